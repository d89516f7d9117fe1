#!/usr/bin/env bash
# What every kernel of two examples takes of a GPU, compiled by NVRTC for sm_80 and sm_90, as it stands in tests/golden/resources: so
# that a regression of registers is seen. None may spill but those that exceptions.txt there names with a reason. Other versions of
# NVRTC allocate otherwise: then only spills are looked for. BLESS=1 writes the files anew.
# shellcheck source=tests/commands/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

golden=$top/tests/golden/resources
version=$(adwp doctor | sed -n 's/^ok *cuda compile *NVRTC \([^,]*\),.*/\1/p')
if [ -z "$version" ]; then
  adwp doctor | grep 'cuda compile'
  exit 77
fi
for example in tiny cifar10-8; do
  {
    echo "# NVRTC $version"
    adwp emit "$top/examples/$example.adwp" --stage=resources --arch=sm_80,sm_90
  } >$example.txt
  if [ -n "${BLESS:-}" ]; then cp $example.txt "$golden/$example.txt"; fi
  # arch kernel threads registers spills ...
  awk '$5 + 0 > 0 { print $1, $2 }' $example.txt | sort -u >spills.txt
  while read -r arch kernel; do
    grep -q "^$arch $kernel " "$golden/exceptions.txt" || fail "$kernel of $example spills registers on $arch"
  done <spills.txt
  if [ "$(head -1 $example.txt)" = "$(head -1 "$golden/$example.txt")" ]; then
    diff -u "$golden/$example.txt" $example.txt || fail "kernels of $example take other registers (BLESS=1, if that is right)"
  fi
done
