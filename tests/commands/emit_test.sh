#!/usr/bin/env bash
# adwp emit: each stage of each step prints, the same each time and on any number of threads, and to a file as to standard output.
# shellcheck source=tests/commands/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

adwp emit "$small" --stage=spec >spec.json
if command -v python3 >/dev/null; then python3 -m json.tool spec.json >/dev/null || fail "the spec is not JSON"; fi
grep -q sep_conv_3x3 spec.json || fail "the spec names no operation"

for step in train_step search_step cross_step eval gradient_step; do
  for stage in graph loop; do
    adwp emit "$small" --stage=$stage --step=$step >$step.$stage || fail "$stage of $step"
    [ -s $step.$stage ] || fail "$stage of $step is empty"
  done
done
grep -q 'conv_grad_weight' train_step.graph || fail "a training step without a gradient of a weight"
grep -q 'conv_grad_weight' eval.graph && fail "a gradient in eval"
grep -q 'momentum' search_step.graph && fail "the closed gate of the weights is open in the search step"

for cpu in x86-64-v3 x86-64-v4; do
  adwp emit "$small" --stage=llvm --step=eval --cpu=$cpu >$cpu.ll || fail "llvm for $cpu"
  grep -q '^define ' $cpu.ll || fail "no function in the LLVM text for $cpu"
  adwp emit "$small" --stage=asm --step=eval --cpu=$cpu >$cpu.s || fail "asm for $cpu"
done
grep -q '%zmm' x86-64-v4.s || fail "no 512-bit register for x86-64-v4"
grep -q '%ymm' x86-64-v3.s || fail "no 256-bit register for x86-64-v3"
grep -q '%zmm' x86-64-v3.s && fail "a 512-bit register for x86-64-v3"
refuses 1 'x86-64' adwp emit "$small" --stage=asm --cpu=pdp11

adwp emit "$small" --stage=loop --step=train_step --threads=3 -o loop.txt
cmp loop.txt train_step.loop || fail "the Loop IR differs between runs"
adwp emit "$small" --stage=graph --step=eval -o /dev/stdout | cmp - eval.graph || fail "-o /dev/stdout"
refuses 1 'no-such-folder' adwp emit "$small" --stage=spec -o no-such-folder/spec.json
