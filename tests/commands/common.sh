# shellcheck shell=bash disable=SC2034
# What the tests of whole commands share; each sources it first. It makes a scratch folder that goes when the test ends and that
# holds the kernel cache too, and stands in it. ADWP is the binary to test; by hand: bash tests/commands/NAME_test.sh
set -euo pipefail
commands=$(realpath "$(dirname "${BASH_SOURCE[0]}")")
top=$(realpath "$commands/../..")
ADWP=$(realpath "${ADWP:-$top/build/adwp}")
small=$commands/small.adwp
scratch=$(mktemp -d "${TMPDIR:-/tmp}/adwp-test.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
export XDG_CACHE_HOME=$scratch/cache
export TERM=dumb

adwp() {
  "$ADWP" "$@"
}

fail() {
  echo "FAILED: $*" >&2
  exit 1
}

# refuses STATUS PATTERN COMMAND...: it ends with this status and with a message on standard error that the extended regular
# expression matches; never by a signal, and never with a sanitizer's report.
refuses() {
  local want=$1 pattern=$2 status=0
  shift 2
  "$@" >stdout.txt 2>stderr.txt || status=$?
  if grep -qE 'Sanitizer|runtime error|bug at' stderr.txt; then
    cat stderr.txt >&2
    fail "a bug: $*"
  fi
  if [ "$status" -ne "$want" ] || ! grep -qE -- "$pattern" stderr.txt; then
    head -c 2000 stderr.txt >&2
    fail "wanted status $want and a message like '$pattern', got status $status: $*"
  fi
}

# same_results A B: the two run folders have the same files with the same bytes, but for those that may differ.
same_results() {
  local name
  diff <(result_names "$1") <(result_names "$2") || fail "$1 and $2 have different files"
  for name in $(result_names "$1"); do
    cmp "$1/$name" "$2/$name" || fail "$name differs between $1 and $2"
  done
}

result_names() {
  (cd "$1" && find . -type f ! -name '*time*' ! -name lock | LC_ALL=C sort)
}

# flip FILE BYTE: inverts the bits of one byte.
flip() {
  local value
  value=$(od -An -tu1 -j "$2" -N 1 "$1" | tr -d ' ')
  # shellcheck disable=SC2059
  printf "\\x$(printf %02x $((255 - value)))" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

# await FILE PROCESS: returns when the file is there; the process must not end before, nor take more than two minutes.
await() {
  local tries
  for ((tries = 0; tries < 12000; tries++)); do
    if [ -e "$1" ]; then return; fi
    kill -0 "$2" 2>/dev/null || fail "the process ended before there was $1"
    sleep 0.01
  done
  fail "there is no $1 after two minutes"
}
