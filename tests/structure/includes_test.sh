#!/usr/bin/env bash
# The rules of the house (docs/architecture.md) that a machine can see: which way includes run, where LLVM's headers may stand, what
# no file may say, and how large a file may be.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

failed=0
complain() { # TITLE TEXT
  [ -n "$2" ] || return 0
  printf '%s\n%s\n' "$1" "$2"
  failed=1
}

# Prints the includes of the files under FOLDER... that match the first expression and not the second.
includes() { # PATTERN ALLOWED FOLDER...
  local pattern=$1 allowed=$2
  shift 2
  grep -rnE "^ *# *include $pattern" --include='*.[chly]' "$@" | grep -vE "include $allowed" || true
}

for folder in dsl kernels runtime; do
  complain "$folder/ may include only itself and runtime/base:" \
    "$(includes '"(compiler|dsl|kernels|runtime|tests)/' "\"($folder|runtime/base)/" $folder)"
done
complain "runtime/base/ may include only itself:" "$(includes '"' '"runtime/base/' runtime/base)"
complain "no source may include a test:" "$(includes '"tests/' '^$' compiler dsl kernels runtime)"
complain "nothing but the driver may include the driver:" \
  "$(includes '"compiler/driver/' '^$' compiler/graph compiler/pass compiler/emit compiler/*.[ch] dsl kernels runtime)"
complain "the Graph IR knows no machine:" "$(includes '"(compiler/emit|kernels|runtime)/' '"runtime/base/' compiler/graph)"
complain "emit knows no graph:" "$(includes '"(compiler/graph|compiler/pass|dsl)/' '^$' compiler/emit)"
complain "includes are written from the root:" "$(includes '"\.\.?/' '^$' compiler dsl kernels runtime tests)"
complain "LLVM's headers may stand only in compiler/emit:" \
  "$(includes '[<"]llvm' '^$' compiler dsl kernels runtime tests | grep -v '^compiler/emit/' || true)"
complain "CUDA's headers may stand nowhere: its libraries are opened at run time:" \
  "$(includes '[<"](cuda|nvrtc|cublas)' '^$' compiler dsl kernels runtime tests)"
complain "schedules of one target know nothing of another's, and nobody else knows either:" \
  "$(includes '"kernels/gpu/' '^$' compiler dsl runtime kernels/cpu kernels/*.[ch]; includes '"kernels/cpu/' '^$' compiler dsl runtime kernels/gpu kernels/*.[ch])"
complain "JSON is for runtime, driver and tests:" "$(includes '<jansson' '^$' dsl kernels compiler/graph compiler/pass compiler/emit)"

# ---- what no file may say ----
files() {
  if git rev-parse --is-inside-work-tree >/dev/null 2>&1; then
    git ls-files -z --cached --others --exclude-standard
  else
    find . -path ./build -prune -o -type f -print0
  fi
}
says() { # -F|-E PATTERN
  files | xargs -0 grep -InI "$1" -e "$2" -- /dev/null 2>/dev/null || true
}
parent=$(dirname "$PWD")
if [ "$parent" != / ]; then complain "a path of this machine:" "$(says -F "$parent/")"; fi
if [ -n "${HOME:-}" ] && [ "$HOME" != / ]; then complain "a home folder of this machine:" "$(says -F "$HOME/")"; fi
complain "unfinished:" "$(says -E '(TO[D]O|FIX[M]E|\bX[X]X\b|not (yet )?impleme[n]ted|place[h]older)')"

large=$(files | xargs -0 -I{} find {} -maxdepth 0 -size +2M)
complain "files of more than 2 MiB (data stay outside of the project):" "$large"

exit $failed
