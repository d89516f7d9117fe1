#!/usr/bin/env bash
# bash tests/bench/steps.sh [MODEL]: median time, speed and peak memory of each step, on 2 threads.
#
# ADWP_PEER is a command that times the same model in another framework, such as `python3 tests/oracle/adwp_torch.py bench
# --channels-last`; it gets --spec, --stage, --batch, --threads and --steps, and prints an object with "median_ms". Measured in
# turn with adwp, so that a neighbour of this machine disturbs both alike. THREADS (2), ROUNDS (3), STEPS (10).
set -euo pipefail
top=$(realpath "$(dirname "${BASH_SOURCE[0]}")/../..")
adwp=$(realpath "${ADWP:-$top/build/adwp}")
model=$(realpath "${1:-$top/examples/cifar10-8.adwp}")
threads=${THREADS:-2} rounds=${ROUNDS:-3} steps=${STEPS:-10}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

field() { # KEY of the one JSON object on standard input
  sed "s/\"kernels\".*//" | sed -n "s/.*\"$1\": *\([0-9.e+-]*\).*/\1/p" | head -n 1
}

median() {
  sort -g | awk '{ v[NR] = $1 } END { if (NR) printf "%.1f", (v[int((NR + 1) / 2)] + v[int(NR / 2) + 1]) / 2 }'
}

# Runs COMMAND..., its output to a file, and prints the largest resident memory seen, in MiB.
peak_of() { # FILE COMMAND...
  local file=$1 process peak=0 now
  shift
  "$@" >"$file" 2>/dev/null &
  process=$!
  while kill -0 $process 2>/dev/null; do
    now=$(sed -n 's/^VmHWM:[^0-9]*\([0-9]*\).*/\1/p' /proc/$process/status 2>/dev/null || true)
    if [ "${now:-0}" -gt "$peak" ]; then peak=$now; fi
    sleep 0.2
  done
  wait $process
  echo $((peak / 1024))
}

"$adwp" emit "$model" --stage=spec >"$scratch/spec.json"
batch=$("$adwp" profile "$model" --step=eval --steps=1 --json 2>/dev/null | field batch)
read -r -a peer <<<"${ADWP_PEER:-}"
for step in train_step search_step cross_step eval; do
  : >"$scratch/mine"
  : >"$scratch/theirs"
  for ((round = 0; round < rounds; round++)); do
    "$adwp" profile "$model" --step=$step --steps="$steps" --threads="$threads" --json >"$scratch/profile" 2>/dev/null
    field median_ms <"$scratch/profile" >>"$scratch/mine"
    if [ ${#peer[@]} -gt 0 ] && [ $step != eval ]; then
      peak=$(peak_of "$scratch/peer" "${peer[@]}" --spec "$scratch/spec.json" --stage "${step%_step}" --batch "$batch" \
        --threads "$threads" --steps "$steps")
      field median_ms <"$scratch/peer" >>"$scratch/theirs"
    fi
  done
  mine=$(median <"$scratch/mine")
  printf '%-12s %8.1f ms  %6.1f GFLOP/s  %6d MiB' $step "$mine" "$(field gflops <"$scratch/profile")" \
    $(($(field peak_bytes <"$scratch/profile") / 1048576))
  if [ -s "$scratch/theirs" ]; then
    theirs=$(median <"$scratch/theirs")
    printf '   peer %8.1f ms  %6d MiB   ratio %.2f' "$theirs" "$peak" "$(awk -v a="$mine" -v b="$theirs" 'BEGIN { print a / b }')"
  fi
  echo
done
