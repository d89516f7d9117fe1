#!/usr/bin/env bash
# Standard streams that are closed, or whose reader has left: files keep their bytes, a search goes on, and a result that could
# not be written is an error.
# shellcheck source=tests/commands/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

adwp search "$small" -o run -q >/dev/null

without_output() { adwp "$@" >&-; }
without_any() { adwp "$@" <&- >&- 2>&-; }
for command in version help "check $small" "check --show-defaults $small" "emit --stage=spec $small" "eval run --json"; do
  # shellcheck disable=SC2086
  refuses 1 'cannot write.*standard output: Bad file descriptor' without_output $command
done
refuses 1 'standard output' without_output search "$small" -o no-output
same_results run no-output
status=0
without_any search "$small" -o nothing || status=$?
[ $status -eq 1 ] || fail "a search without streams ended with status $status"
same_results run nothing
[ ! -s nothing/lock ] || fail "a message stands in the lock"
adwp search "$small" -o no-error 2>&- >/dev/null || fail "a search without standard error"
same_results run no-error
[ ! -s no-error/lock ] || fail "a message stands in the lock"

# Readers that leave.
adwp search "$small" -o left 2> >(exec true) >/dev/null || fail "a search whose messages nobody reads any more"
same_results run left
mkfifo pipe
# shellcheck disable=SC2094
exec 8<>pipe 9>pipe 8<&- # 9 writes into a pipe without a reader
into_pipe() { adwp check --show-defaults "$small" >&9; }
refuses 1 'standard output: Broken pipe' into_pipe
