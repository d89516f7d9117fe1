#!/usr/bin/env bash
# Equal bytes of every result file on 1, 2 and 3 threads.
# shellcheck source=tests/commands/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

for threads in 1 2 3; do
  adwp search "$small" -o run$threads -q --threads=$threads >/dev/null || fail "search on $threads threads"
done
same_results run1 run2
same_results run1 run3
