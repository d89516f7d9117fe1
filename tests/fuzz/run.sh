#!/usr/bin/env bash
# bash tests/fuzz/run.sh BUILD SECONDS: each fuzzer of the build folder for so long, beginning with real texts (ADWP, the release
# binary, prints them) and with what it found interesting before (BUILD/corpus). What breaks one is left beside its corpus.
set -euo pipefail
build=$(realpath "${1:?which build folder?}") seconds=${2:?how many seconds?}
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
adwp=$(realpath "${ADWP:-build/adwp}")
small=tests/commands/small.adwp

seed_corpus() { # NAME FOLDER
  case $1 in
  dsl_fuzz) cp examples/*.adwp dsl/std/*.adwp "$small" "$2" ;;
  graph_fuzz)
    "$adwp" emit "$small" --stage=graph >"$2/module.ir"
    for step in train_step search_step eval; do "$adwp" emit "$small" --stage=graph --step=$step >"$2/$step.ir"; done
    for file in tests/golden/[a-z]*/*.ir; do # both halves of each
      local seed
      seed=$2/$(basename "$(dirname "$file")")-$(basename "$file" .ir)
      sed '/^# after/,$d' "$file" >"$seed.ir"
      sed '1,/^# after/d' "$file" >"$seed-after.ir"
    done
    ;;
  loop_fuzz)
    "$adwp" emit "$small" --stage=loop --step=train_step |
      awk -v folder="$2" '/^kernel /{ file = folder "/kernel-" ++n ".loop" } file { print > file } /^}/ { close(file); file = "" }'
    ;;
  esac
}

for fuzzer in "$build"/tests/*_fuzz; do
  name=$(basename "$fuzzer")
  corpus=$build/corpus/$name
  mkdir -p "$corpus"
  seed_corpus "$name" "$corpus"
  if ! "$fuzzer" -max_total_time="$seconds" -rss_limit_mb=4096 -timeout=20 -artifact_prefix="$corpus-" "$corpus" >"$corpus.log" 2>&1; then
    tail -n 60 "$corpus.log"
    echo "FAILED: $name"
    exit 1
  fi
  echo "$name: $(grep '^Done ' "$corpus.log")"
done
