#!/usr/bin/env bash
# ./make.sh TARGET...: installs what a fresh Debian 12 lacks for these targets of the Makefile, then hands over to make.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

packages=(make cmake ninja-build gcc libc6-dev pkg-config flex bison llvm-19-dev libjansson-dev libxxhash-dev)
for target in "${@:-all}"; do
  case $target in
  test) packages+=(libcmocka-dev) ;;
  lint) packages+=(libcmocka-dev clang-19 clang-format clang-tidy-19 cppcheck shellcheck) ;;
  fuzz) packages+=(clang-19 libclang-rt-19-dev) ;;
  esac
done

is_installed() {
  [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

missing=()
if command -v apt-get >/dev/null; then
  for package in "${packages[@]}"; do
    is_installed "$package" || missing+=("$package")
  done
else
  echo "make.sh: this is not a Debian system; make will say what it cannot find (wanted: ${packages[*]})"
fi

if [ ${#missing[@]} -gt 0 ]; then
  as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
      echo "make.sh: please let root run: apt-get install ${missing[*]}" >&2
      exit 1
    fi
    as_root=(sudo)
  fi
  echo "make.sh: installing with apt-get: ${missing[*]}"
  "${as_root[@]}" apt-get update -qq
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi

exec make "$@"
