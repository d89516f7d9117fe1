#!/usr/bin/env bash
# bash tests/gpu/bundle.sh ADWP BUILD FOLDER: fills FOLDER with all that tests/gpu/run needs on a machine with a GPU: the programs of
# BUILD, a build without LLVM; the libraries that they need beside the C library; examples, fixtures (those in ADWP_FIXTURES too);
# and what ADWP, a build with LLVM, finds on this machine's CPU in the search that the GPU is to repeat.
set -euo pipefail
top=$(realpath "$(dirname "${BASH_SOURCE[0]}")/../..")
adwp=$(realpath "$1") build=$(realpath "$2") folder=$3
programs=(adwp check-fixtures kernels_on_device examples_on_device device_peaks)
most_megabytes=60

rm -rf "$folder"
mkdir -p "$folder"/{lib,examples,reference,tests/gpu,tests/commands,tests/oracle/fixtures/more}
for program in "${programs[@]}"; do
  cp "$build/$program" "$folder/"
  strip --strip-debug "$folder/$program"
done
ldd "${programs[@]/#/$build/}" | sed -n 's/^.* => \(\/[^ ]*\) .*/\1/p' | LC_ALL=C sort -u | while read -r library; do
  case ${library##*/} in
  libc.so* | libm.so* | libdl.so* | libpthread.so* | librt.so* | ld-linux*) ;;
  *) cp -L "$library" "$folder/lib/" ;;
  esac
done
cp "$top"/examples/*.adwp "$folder/examples/"
cp "$top/tests/commands/small.adwp" "$folder/tests/commands/"
cp "$top/tests/gpu/run" "$folder/tests/gpu/"
cp "$top/tests/oracle/adwp_torch.py" "$folder/tests/oracle/"
shopt -s nullglob
for fixture in "$top"/tests/oracle/fixtures/*.safetensors; do cp "$fixture" "$folder/tests/oracle/fixtures/"; done
if [ -n "${ADWP_FIXTURES:-}" ]; then
  for fixture in "$ADWP_FIXTURES"/hyper-*.safetensors "$ADWP_FIXTURES"/trajectory*.safetensors; do
    cp "$fixture" "$folder/tests/oracle/fixtures/more/"
  done
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"$adwp" search "$top/examples/tiny.adwp" -q -o "$scratch/run" >/dev/null
cp "$scratch/run/metrics.jsonl" "$scratch/run/arch.json" "$folder/reference/"

size=$(du -sm "$folder" | cut -f 1)
echo "$folder: $size MB; there: tests/gpu/run --out results"
if [ "$size" -gt $most_megabytes ]; then
  echo "that is more than $most_megabytes MB" >&2
  exit 1
fi
