#!/usr/bin/env bash
# What `make demo` shows: the whole search of tiny.adwp, and that the architecture it finds is better than the median of 20 random
# ones, all with predicted weights.
# shellcheck source=tests/commands/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

bash "$top/examples/demo.sh" "$ADWP" demo >demo.txt 2>stderr.txt || { cat stderr.txt >&2; fail "the demo"; }
grep -q '^found: ' demo.txt || fail "no result in the demo"
grep -q '^epoch  stage' demo.txt || fail "no curve in the demo"
grep -q '^network tiny {' demo.txt || fail "no architecture in the demo"
tail -n 2 demo.txt
awk '/arch.json: accuracy/ { found = $3 } /random architectures: median/ { median = $6 } END { exit !(found > median && median > 0) }' \
  demo.txt || fail "the architecture does not beat the median of the random ones"
