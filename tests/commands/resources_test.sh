#!/usr/bin/env bash
# What every kernel of two examples takes of a GPU, compiled by NVRTC for sm_80 and sm_90, as it stands in tests/golden/resources: so
# that a regression of registers is seen; ptxas itself is not the same from run to run, so 4 more or less are none. No kernel may
# spill but those that exceptions.txt there names with a reason. Other versions of NVRTC allocate otherwise: then only spills are
# looked for. BLESS=1 writes the files anew.
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
    paste "$golden/$example.txt" $example.txt | awk '
      NF == 14 && $4 != "registers" {
        more = $11 - $4
        if ($1 != $8 || $2 != $9 || $3 != $10 || $7 != $14 || more > 4 || more < -4) { print "was " $1, $2, $3, $4, $7 "; is", $8, $9, $10, $11, $14; bad = 1 }
      }
      NF != 14 && NR > 1 { print "another number of kernels"; bad = 1; exit }
      END { exit bad }' || fail "kernels of $example take other resources (BLESS=1, if that is right)"
  fi
done
