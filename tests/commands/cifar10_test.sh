#!/usr/bin/env bash
# The first steps of the paper's 8-cell search on real images, through all three stages: ADWP_CIFAR10 is the folder that holds them.
# shellcheck source=tests/commands/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

if [ -z "${ADWP_CIFAR10:-}" ]; then
  echo "no images: ADWP_CIFAR10 is not set"
  exit 77
fi

# Few images, wherever they come from: the first 600 of each file, and a narrower network.
mkdir -p data/cifar-10-batches-bin
for name in data_batch_1 data_batch_2 data_batch_3 data_batch_4 data_batch_5 test_batch; do
  head -c $((600 * 3073)) "$(find "$ADWP_CIFAR10" -name $name.bin | head -n 1)" >data/cifar-10-batches-bin/$name.bin
done
adwp search "$top/examples/cifar10-8.adwp" --data data -o run -q --set search.train=4 --set search.cross=5..6 --set search.total=7 \
  --set search.batch=25 --set net8.channels=4
bash "$top/examples/curve.sh" run
[ "$(wc -l <run/arch.adwp)" -gt 40 ] || fail "no architecture of 8 cells"
losses=$(sed -n 's/.*"kind":"epoch","stage":"train".*"loss":\([0-9.]*\).*/\1/p' run/metrics.jsonl)
echo "$losses" | awk 'NR == 1 { first = $1 } { last = $1 } END { exit !(last < first) }' || fail "the training loss does not fall"
adwp eval run --data data | grep -q 'validation images' || fail "eval on real images"
