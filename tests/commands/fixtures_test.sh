#!/usr/bin/env bash
# check-fixtures on the project's own fixtures and on those in the folder ADWP_FIXTURES, with the interpreter and with machine code
# for each level that this machine can run; on the project's own also with what a GPU would run.
# shellcheck source=tests/commands/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

check_fixtures=${ADWP_BUILD:-$top/build}/check-fixtures
shopt -s nullglob
fixtures=("$top"/tests/oracle/fixtures/*.safetensors)
if [ -n "${ADWP_FIXTURES:-}" ]; then fixtures+=("$ADWP_FIXTURES"/hyper-*.safetensors "$ADWP_FIXTURES"/trajectory*.safetensors); fi
if [ ${#fixtures[@]} -eq 0 ]; then
  echo "no fixture: neither in tests/oracle/fixtures nor in ADWP_FIXTURES"
  exit 77
fi

"$check_fixtures" --backend=interpreter "${fixtures[@]}"
levels=(x86-64-v3)
if grep -qw avx512f /proc/cpuinfo; then levels+=(x86-64-v4); fi
for level in "${levels[@]}"; do
  "$check_fixtures" --backend=cpu --cpu="$level" "${fixtures[@]}"
done

# With each way of fusing left out, and generated weights made in each way.
for pattern in conv_block conv_block_grad pointwise_grad pool_grad moments prologue map accumulate place descend run all; do
  "$check_fixtures" --backend=cpu --no-fuse=$pattern "$top"/tests/oracle/fixtures/hyper-small.safetensors
done
for form in horizontal vertical hoisted none; do
  "$check_fixtures" --backend=cpu --fuse-generate=$form "$top"/tests/oracle/fixtures/trajectory.safetensors
done

# CUDA text on the emulator, of the project's own small fixtures.
if [ -e "${ADWP_BUILD:-$top/build}/libadwp_cuda_emulator.so" ]; then
  "$check_fixtures" --backend=cuda-emulator "$top"/tests/oracle/fixtures/*.safetensors
  for precision in tf32 bf16; do
    ADWP_EMULATOR_CHECK=0 "$check_fixtures" --backend=cuda-emulator --precision=$precision "$top"/tests/oracle/fixtures/*.safetensors
  done
fi

# A bound that nothing can keep must make it fail.
status=0
"$check_fixtures" --backend=cpu --bound=1e-30 "${fixtures[0]}" || status=$?
[ $status -eq 1 ] || fail "a bound of 1e-30 ends with status $status"
head -c 1000 "${fixtures[0]}" >short.safetensors
status=0
"$check_fixtures" short.safetensors >stdout.txt 2>&1 || status=$?
[ $status -eq 1 ] || fail "a fixture that is cut off ends with status $status"
grep -q 'short.safetensors is damaged' stdout.txt || fail "no message for a fixture that is cut off"
