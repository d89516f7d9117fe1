#!/usr/bin/env bash
# adwp check: good models, what it prints of them, settings from the command line, and wrong files. The exact texts of errors are
# in the front end's own tests and in tests/commands/*.case.
# shellcheck source=tests/commands/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

for model in "$small" "$top"/examples/*.adwp; do
  adwp check "$model" >summary.txt || fail "check $model"
  grep -q '^hypernetwork ' summary.txt || fail "no summary of $model"
  adwp check --show-defaults "$model" >full.adwp || fail "check --show-defaults $model"
  adwp check --show-defaults full.adwp >again.adwp || fail "the filled-in model of $model is wrong"
  cmp full.adwp again.adwp || fail "the filled-in model of $model changes when it is filled in again"
done

# An override is checked like the file, and stands in the filled-in model.
adwp check --show-defaults "$small" --set search.train=4 --set toy.train=200 --set search.cross=5..6 --set search.total=9 >set.adwp
grep -qE 'train +4 epochs' set.adwp || fail "--set search.train"
grep -qE 'train +200 images' set.adwp || fail "--set toy.train"
adwp check "$small" --set small.cells=1 --set small.reduction=none --set search.train=1 --set search.cross=none \
  --set small.channels=1 >summary.txt
grep -q ': 1 cell (0 of them reductions), 1 channel at first,' summary.txt || fail "the plural of one cell"
grep -q ' 1 epoch of weights,' summary.txt || fail "the plural of one epoch"
refuses 1 'no block is called .nope.; there are search, data or toy, hypernetwork or small, generator or predict' \
  adwp check "$small" --set nope.x=1
refuses 1 'momentum must be below 1' adwp check "$small" --set search.weights.momentum=1
refuses 1 'falls or stays' adwp check "$small" --set 'search.weights.lr=0.1 -> 0.2 cosine'
refuses 1 'trian' adwp check "$small" --set search.trian=4
refuses 1 '.' adwp check "$small" --set search.batch=0
refuses 1 '.' adwp check "$small" --set search.batch=many
refuses 1 '.' adwp check "$small" --set nothing.train=1

refuses 1 'no-such-file' adwp check no-such-file.adwp
refuses 1 '.' adwp check .
head -c 4096 /dev/urandom >noise.adwp
refuses 1 'noise.adwp:1:' adwp check noise.adwp
: >empty.adwp
refuses 1 '.' adwp check empty.adwp
head -c 300 "$small" >half.adwp
refuses 1 'half.adwp:' adwp check half.adwp
sed 's/sep_conv_3x3(0)/sep_con_3x3(0)/' "$small" >typo.adwp
refuses 1 'typo.adwp:[0-9]+:[0-9]+:.*sep_con_3x3' adwp check typo.adwp
grep -q 'sep_conv_3x3' stderr.txt || fail "no suggestion for a misspelt operation"
sed 's/import "darts.adwp"/import "..\/..\/..\/etc\/passwd"/' "$small" >outside.adwp
refuses 1 'outside.adwp:2:' adwp check outside.adwp
