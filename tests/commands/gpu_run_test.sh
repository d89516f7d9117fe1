#!/usr/bin/env bash
# tests/gpu/run on the emulator, a short selection of its steps, with commands that stand for PyTorch and compute-sanitizer: what
# it prints, the tables it leaves, and that a failing step is told of and does not stop the others.
# shellcheck source=tests/commands/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

build=$(dirname "$ADWP")
emulator=$build/libadwp_cuda_emulator.so
export ADWP_BUILD=$build DEVICE=cuda-emulator
unset ADWP_FIXTURES
run=$top/tests/gpu/run

if ! ldconfig -p | grep -q 'libcuda[.]so'; then
  status=0
  DEVICE=cuda "$run" >stdout.txt 2>&1 || status=$?
  [ $status -eq 77 ] || fail "without a GPU the status is $status"
  grep -q '^missing *cuda run .*no CUDA driver' stdout.txt || fail "it does not say what is missing"
fi
refuses 2 'there is no step walk: doctor ' "$run" walk
if [ ! -e "$emulator" ]; then
  echo "the rest needs the emulator, which is not built"
  exit 77
fi

mkdir commands
cat >commands/compute-sanitizer <<'END'
#!/bin/sh
echo "========= ERROR SUMMARY: 3 errors"
exit 9
END
cat >commands/python3 <<'END'
#!/bin/sh
case "$*" in
-c*) ;;
*--compile*) exit 1 ;;
*) echo '{"stage": "train", "median_ms": 2000.0, "min_ms": 1900.0}' ;;
esac
END
chmod +x commands/*

status=0
PATH=$PWD/commands:$PATH "$run" --out results doctor kernels search sanitizer timing peer >stdout.txt 2>&1 || status=$?
cat stdout.txt
[ $status -eq 1 ] || fail "with a step that fails the status is $status"
grep -qE '^sanitizer +FAIL .*3 errors' stdout.txt || fail "the failing step is not told of"
for step in doctor kernels search timing peer; do grep -qE "^$step +PASS +[0-9]+ s " stdout.txt || fail "$step has not passed"; done
grep -q '^6 steps, 1 failed' stdout.txt || fail "no summary"
grep -q 'killed and resumed: equal bytes' results/search.log || fail "the search was not resumed"
grep -q "the CPU's architecture" results/search.log || fail "the search was not compared with the CPU's"
# shellcheck disable=SC2016
for line in '| `train_step` | fp32 | [0-9.]* | [0-9.]* | ' '| `conv_grad_weight` | ' '| train | fp32 | eager | 2000.0 | [0-9.]* |' \
  '| train | bf16 | --channels-last --compile --graph | failed'; do
  grep -q "^$line" results/benchmarks.md || fail "no line '$line' in the tables"
done
