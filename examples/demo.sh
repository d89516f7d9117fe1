#!/usr/bin/env bash
# bash examples/demo.sh ADWP RUN: what `make demo` shows. Searches the model of tiny.adwp on images that it draws itself, then
# shows the curve, the architecture, and how that does against random ones with weights that nobody trained for any of them.
set -euo pipefail
adwp=${1:?which adwp?} run=${2:?which run folder?}
here=$(dirname "${BASH_SOURCE[0]}")

show() {
  printf '\n$ %s\n' "$*"
  "$@"
}

rm -rf "$run"
show "$adwp" check "$here/tiny.adwp"
show "$adwp" search "$here/tiny.adwp" -o "$run"
show bash "$here/curve.sh" "$run"
show cat "$run/arch.adwp"
show "$adwp" eval "$run" --sample 20
