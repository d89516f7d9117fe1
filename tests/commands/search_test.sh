#!/usr/bin/env bash
# adwp search and adwp eval: a whole run on synthetic images, its files, and the accuracy of architectures with its weights.
# shellcheck source=tests/commands/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

adwp search "$small" -o run >stdout.txt 2>stderr.txt || { cat stderr.txt >&2; fail "search"; }
grep -q '^found: ' stdout.txt || fail "the search does not say what it found"
for name in model.adwp metrics.jsonl time.jsonl checkpoint.safetensors arch.adwp arch.json weights.safetensors; do
  [ -s "run/$name" ] || fail "there is no run/$name"
done
adwp check --show-defaults "$small" | cmp - run/model.adwp || fail "model.adwp is not the filled-in model"
[ "$(grep -c '"kind":"epoch"' run/metrics.jsonl)" -eq 5 ] || fail "metrics.jsonl has not 5 epochs"
[ "$(tail -n 1 run/metrics.jsonl | grep -c '"kind":"result"')" -eq 1 ] || fail "metrics.jsonl does not end with the result"
grep -q 'images_per_second' run/metrics.jsonl && fail "a time in metrics.jsonl"
refuses 1 'already holds a run' adwp search "$small" -o run

# A finished run has nothing to do, and stays as it is.
cp -r run copy
adwp search --resume run -q >/dev/null 2>stderr.txt || { cat stderr.txt >&2; fail "resume of a finished run"; }
same_results run copy

# Settings and seed matter; the kernel cache and progress do not.
adwp search "$small" -o uncached --no-cache -q >/dev/null
same_results run uncached
adwp search "$small" -o seeded -q --set search.seed=8 >/dev/null
cmp -s run/weights.safetensors seeded/weights.safetensors && fail "the seed changes nothing"
grep -qE 'seed +8' seeded/model.adwp || fail "--set is not in model.adwp"

adwp eval run >found.txt
grep -qE '^run/arch.json: accuracy [0-9.]+ %' found.txt || fail "eval"
adwp eval run --arch run/arch.json | cmp - found.txt || fail "eval --arch of the run's own architecture differs"
adwp eval run --threads=3 | cmp - found.txt || fail "eval depends on the number of threads"
adwp eval run --soft | grep -qE '^soft: accuracy' || fail "eval --soft"
adwp eval run --test | grep -q '40 test images' || fail "eval --test"
adwp eval run --sample 3 2>/dev/null | grep -q '^3 random architectures: median' || fail "eval --sample"
adwp eval run --sample 3 --json >eval.json
grep -q '"median_accuracy":' eval.json || fail "eval --json"
adwp eval run --sample 3 --json | cmp - eval.json || fail "eval is not the same twice"
# The soft network on the validation images is what the search itself measured.
want=$(tail -n 1 run/metrics.jsonl | sed 's/.*"valid_accuracy":\([0-9.e-]*\).*/\1/')
got=$(adwp eval run --soft --json | sed 's/.*"accuracy":\([0-9.e-]*\).*/\1/')
awk -v a="$want" -v b="$got" -v best="$(tail -n 1 run/metrics.jsonl | grep -o '"epoch":[0-9-]*')" \
  'BEGIN { exit !(best != "\"epoch\":4" || (a - b) ^ 2 < 1e-12) }' || fail "eval --soft says $got, the search said $want"

sed 's/sep_conv_3x3/sep_conv_7x7/; s/identity/sep_conv_7x7/' run/arch.json >wrong.json
refuses 1 'wrong.json' adwp eval run --arch wrong.json
echo '{"cells": [' >broken.json
refuses 1 'broken.json' adwp eval run --arch broken.json
refuses 1 'no-run' adwp eval no-run

for step in train_step search_step cross_step eval; do
  adwp profile "$small" --step=$step --steps=3 --json >profile.json 2>/dev/null || fail "profile $step"
  for key in median_ms gflops peak_bytes kernels; do
    grep -q "\"$key\":" profile.json || fail "profile --json has no $key"
  done
done
adwp profile "$small" --step=train_step --steps=3 >profile.txt 2>/dev/null || fail "profile"
grep -q 'GFLOP/s' profile.txt || fail "profile without GFLOP/s"
