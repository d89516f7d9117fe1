#!/usr/bin/env bash
# The CUDA target without a GPU: what the commands say where there is none, a file a kernel from `adwp emit`, and a whole search on
# the emulator: the CPU's losses, equal bytes after a kill, and a run that moves from one device to the other.
# shellcheck source=tests/commands/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

emulator=$(dirname "$ADWP")/libadwp_cuda_emulator.so
export ADWP_EMULATOR_CHECK=0 # other tests look for races
sed -e 's/120 images/40 images/; s/40 images/20 images/2; s/train  2 epochs/train  1 epochs/; s/3..4/2..2/' \
  -e 's/total  5/total  3/; s/batch  10/batch  5/' "$small" >short.adwp

# The losses of an epoch's line, one a line.
losses() {
  grep '"kind":"epoch"' "$1/metrics.jsonl" | sed 's/.*"loss":\([^,]*\),.*/\1/'
}

if ! ldconfig -p | grep -q 'libcuda[.]so'; then
  refuses 1 'there is no CUDA driver on this machine .*--device=cpu' adwp search short.adwp --device=cuda -o none
  [ ! -e none ] || fail "a search without a GPU left a folder"
  refuses 1 'there is no CUDA driver' adwp profile short.adwp --device=cuda --step=train_step
fi
refuses 2 'cpu, cuda or' adwp search short.adwp --device=gpu -o none
refuses 2 'fp32, tf32 or bf16' adwp search short.adwp --device=cuda --precision=fp16 -o none
refuses 2 'a CPU computes in fp32' adwp search short.adwp --precision=bf16 -o none
refuses 2 '--cpu is for' adwp search short.adwp --device=cuda --cpu=x86-64-v3 -o none
refuses 2 'cubins are files' adwp emit short.adwp --stage=cubin
refuses 2 '--arch is for' adwp emit short.adwp --stage=loop --arch=sm_90
refuses 2 'needs an architecture' adwp emit short.adwp --stage=cubin --arch= -o none

adwp doctor >doctor.txt
for area in cpu 'cuda compile' 'cuda run' cache data; do grep -q "^[a-z]* *$area" doctor.txt || fail "doctor says nothing of $area"; done
adwp doctor --json | grep -q '"area": "cuda run"' || fail "doctor's JSON lacks an area"
adwp doctor --data nowhere | grep -q '^missing *data .*nowhere' || fail "doctor finds data where there are none"

adwp emit short.adwp --stage=loop --device=cuda --step=eval >loop.txt
grep -q '^kernel conv lanes' loop.txt || fail "no kernel for a GPU"
adwp emit short.adwp --stage=cuda --step=eval -o texts.cu 2>/dev/null
ls texts.cu/*_conv.cu >/dev/null || fail "no text of a kernel"
if grep -q '^ok *cuda compile' doctor.txt; then
  adwp emit short.adwp --stage=cubin --step=eval --arch=sm_80,sm_90 -o cubins 2>/dev/null
  texts=(texts.cu/*.cu) cubins=(cubins/*.sm_80.cubin)
  [ ${#cubins[@]} -eq ${#texts[@]} ] || fail "another number of cubins than of texts"
  adwp emit short.adwp --stage=ptx --step=eval -o ptx 2>/dev/null
  grep -q '^.target sm_90' ptx/*_conv.ptx || fail "no PTX for sm_90"
  refuses 1 'sm_12' adwp emit short.adwp --stage=cubin --arch=sm_12 -o none
fi

if [ ! -e "$emulator" ]; then
  refuses 1 'device for tests' adwp search short.adwp --device=cuda-emulator -o none
  echo "the rest needs the emulator, which is not built"
  exit 0
fi
adwp search short.adwp -q -o cpu >/dev/null
adwp search short.adwp -q --device=cuda-emulator -o cuda >/dev/null
[ "$(losses cpu | wc -l)" -eq 3 ] || fail "the search has not three epochs"
paste <(losses cpu) <(losses cuda) | awk '{ d = $1 - $2; if (d < 0) d = -d; if (!(d < 1e-4 * $1)) bad = 1 } END { exit bad }' ||
  fail "the losses of CPU and CUDA differ: $(losses cpu) and $(losses cuda)"
# What stands in the stream runs only when something waits for it: memory that is used again too early shows.
ADWP_EMULATOR_LATE=1 adwp search short.adwp -q --device=cuda-emulator -o late >/dev/null
same_results cuda late
adwp search short.adwp -q --device=cuda-emulator --precision=bf16 -o bf16 >/dev/null
paste <(losses cpu) <(losses bf16) | awk '{ d = $1 - $2; if (d < 0) d = -d; if (!(d < 5e-2 * $1)) bad = 1 } END { exit bad }' ||
  fail "the losses of bf16 are far off: $(losses bf16)"

# Killed after its first checkpoint and resumed: the same bytes.
"$ADWP" search short.adwp -q --device=cuda-emulator --checkpoint-steps=1 -o killed >/dev/null &
process=$!
await killed/checkpoint.safetensors $process
kill -9 $process
wait $process 2>/dev/null || true
refuses 1 'it is of .*target|--device' adwp search --resume killed -q
cp -r killed moved
adwp search --resume killed -q --device=cuda-emulator >/dev/null
same_results cuda killed
adwp search --resume moved --move -q >/dev/null || fail "a run does not move from CUDA to the CPU"
[ "$(losses moved | wc -l)" -eq 3 ] || fail "the run that moved has not three epochs"
adwp eval cuda --device=cuda-emulator | grep -q accuracy || fail "eval on CUDA"
adwp eval cuda | grep -q accuracy || fail "eval of a CUDA run on the CPU"
