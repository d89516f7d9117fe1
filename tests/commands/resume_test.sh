#!/usr/bin/env bash
# A run that is killed at random moments and resumed each time, and one that is stopped by Ctrl-C, end with the bytes of one that
# was left alone. ROUNDS: how often to kill (10); SEED repeats the moments.
# shellcheck source=tests/commands/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

rounds=${ROUNDS:-10}
seed=${SEED:-$RANDOM}
RANDOM=$seed
echo "SEED=$seed"

options=(-q --threads=2 --checkpoint-steps=4)
adwp search "$small" -o straight "${options[@]}" >/dev/null # fills the cache, so that the next one is only the run
began=$(date +%s%N)
adwp search "$small" -o timed "${options[@]}" >/dev/null
milliseconds=$((($(date +%s%N) - began) / 1000000 + 20))
same_results straight timed

take_up() { # go on with RUN, or begin it where the kill came before there was anything
  if [ -e "$1/model.adwp" ]; then
    exec "$ADWP" search --resume "$1" "${options[@]}"
  else
    rm -rf "$1"
    exec "$ADWP" search "$small" -o "$1" "${options[@]}"
  fi
}

kills=0
for ((round = 0; round < rounds; round++)); do
  take_up killed >/dev/null 2>stderr.txt &
  process=$!
  wait_ms=$((RANDOM % milliseconds))
  sleep "$((wait_ms / 1000)).$(printf %03d $((wait_ms % 1000)))"
  if kill -9 $process 2>/dev/null; then kills=$((kills + 1)); fi
  status=0
  wait $process 2>/dev/null || status=$?
  if [ $status -ne 0 ] && [ $status -ne 137 ]; then
    cat stderr.txt >&2
    fail "round $round ended with status $status"
  fi
  if [ -e killed/arch.json ] && [ $status -eq 0 ]; then # it had ended: begin again, so that all kills fall into a run
    same_results straight killed
    rm -rf killed
  fi
done
(take_up killed) >/dev/null || fail "the last resume"
same_results straight killed
[ "$kills" -gt 0 ] || fail "no kill came in time"

# Ctrl-C: a checkpoint, status 130, how to go on, and the same bytes in the end.
interrupts=0
for ((round = 0; round < 5 || interrupts == 0; round++)); do
  [ $round -lt 50 ] || fail "no Ctrl-C came in time"
  rm -rf stopped
  "$ADWP" search "$small" -o stopped "${options[@]}" >/dev/null 2>stderr.txt &
  process=$!
  await stopped/checkpoint.safetensors $process
  sleep "0.0$((RANDOM % 10))"
  kill -INT $process 2>/dev/null || true
  status=0
  wait $process || status=$?
  if [ $status -ne 0 ]; then
    [ $status -eq 130 ] || fail "Ctrl-C ended with status $status"
    grep -q 'adwp search --resume stopped' stderr.txt || fail "Ctrl-C does not say how to go on"
    [ ! -e stopped/arch.json ] || fail "an interrupted run has a result"
    interrupts=$((interrupts + 1))
    adwp search --resume stopped "${options[@]}" >/dev/null || fail "resume after Ctrl-C"
  fi
  same_results straight stopped
done

# SIGTERM, in a run that would take long.
"$ADWP" search "$small" -o terminated "${options[@]}" --set search.total=100000 >/dev/null 2>stderr.txt &
process=$!
await terminated/checkpoint.safetensors $process
kill -TERM $process
status=0
wait $process || status=$?
[ $status -eq 143 ] || fail "SIGTERM ended with status $status"

# A terminal that goes away: two SIGHUP are one request, and a process that was told to ignore them goes on.
begin_long() {
  rm -rf hung
  "$ADWP" search "$small" -o hung "${options[@]}" --set search.total=100000 >/dev/null 2>stderr.txt &
  process=$!
  await hung/checkpoint.safetensors $process
}
begin_long
kill -HUP $process
kill -HUP $process 2>/dev/null || true
status=0
wait $process || status=$?
[ $status -eq 129 ] || fail "SIGHUP ended with status $status"
grep -q 'adwp search --resume hung' stderr.txt || fail "SIGHUP does not say how to go on"
trap '' HUP
begin_long
trap - HUP
kill -HUP $process
sleep 0.5
kill -TERM $process || fail "SIGHUP ended what nohup began"
status=0
wait $process || status=$?
[ $status -eq 143 ] || fail "SIGTERM after an ignored SIGHUP ended with status $status"
