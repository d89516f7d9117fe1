#!/usr/bin/env bash
# bash tests/bench/startup.sh [MODEL]: seconds from the start of the process until everything is compiled, with an empty kernel
# cache and then from the cache; the least of three each.
set -euo pipefail
top=$(realpath "$(dirname "${BASH_SOURCE[0]}")/../..")
adwp=$(realpath "${ADWP:-$top/build/adwp}")
model=${1:-$top/examples/cifar10-8.adwp}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export XDG_CACHE_HOME=$scratch

startup() { # STEP
  "$adwp" profile "$model" --step="$1" --steps=1 --json 2>/dev/null | sed 's/.*"startup_seconds":\([0-9.e-]*\).*/\1/'
}

for step in train_step search_step cross_step eval; do
  cold=999 warm=999
  for _ in 1 2 3; do
    rm -rf "${scratch:?}"/*
    cold=$(printf '%s\n' "$cold" "$(startup "$step")" | sort -g | head -n 1)
    warm=$(printf '%s\n' "$warm" "$(startup "$step")" | sort -g | head -n 1)
  done
  printf 'start-up of %-12s cold %6.2f s   from the cache %6.2f s\n' "$step" "$cold" "$warm"
done

# What a search compiles before its first step, as it says itself.
rm -rf "${scratch:?}"/*
for how in cold cached; do
  printf 'start-up of a search, %s: ' "$how"
  "$adwp" search "$model" -o "$scratch/run-$how" --data "$scratch/none" 2>&1 | grep -m 1 'kernels compiled' || true
done
