#!/usr/bin/env bash
# Every golden file of the passes: tests/golden/PASS/NAME.ir, each one pass on one small graph, and tests/golden/chain, the paper's
# chain at every stage. A pass without golden files is a mistake.
# shellcheck source=tests/commands/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

golden=$top/tests/golden
sed -n 's/^PASS(\([a-z]*\),.*/\1/p' "$top/compiler/pass/passes.def" >passes.txt
while read -r pass; do
  [ -n "$(find "$golden/$pass" -name '*.ir' 2>/dev/null)" ] || fail "tests/golden/$pass has no golden file"
done <passes.txt
find "$golden" -name '*.ir' | sort | ADWP=$ADWP xargs -P 2 -n 16 "$top/tests/run"
