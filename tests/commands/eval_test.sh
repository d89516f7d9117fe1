#!/usr/bin/env bash
# adwp eval on what is not a finished run of its own model: other weights, no weights yet, other files, another machine.
# shellcheck source=tests/commands/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

adwp search "$small" -o run -q --cpu=x86-64-v3 >/dev/null

# Weights of another seed fit in every shape.
adwp search "$small" -o seeded -q --set search.seed=8 >/dev/null
cp -r run mixed
cp seeded/weights.safetensors mixed/
refuses 1 'mixed/weights.safetensors are of another run.*seed 8.*seed 7' adwp eval mixed
refuses 1 'mixed/weights.safetensors are of another run' adwp eval mixed --soft --json
adwp search "$small" -o longer -q --set search.total=6 >/dev/null
cp longer/weights.safetensors mixed/
refuses 1 'mixed/weights.safetensors are of another run' adwp eval mixed

# A run that is not finished says how to go on.
"$ADWP" search "$small" -q -o part --set search.total=100000 >/dev/null 2>&1 &
process=$!
await part/checkpoint.safetensors $process
kill -TERM $process
wait $process || true
refuses 1 'part is not finished: there is no part/weights.safetensors yet.*adwp search --resume part' adwp eval part
refuses 1 'not finished' adwp eval part --soft
cp -r run half
rm half/arch.json
refuses 1 'half is not finished: there is no half/arch.json yet.*adwp search --resume half' adwp eval half
adwp eval half --soft >/dev/null 2>&1 || fail "eval --soft needs no arch.json"
adwp eval half --arch run/arch.json >/dev/null 2>&1 || fail "eval --arch needs no arch.json of the run"

# Files of architectures.
refuses 1 'run/arch.adwp: it is the text for people; give the arch.json' adwp eval run --arch run/arch.adwp
sed '0,/\[\["[a-z0-9_]*"/s//[["\\u001b[31mred\\n\\u009b"/' run/arch.json >hostile.json
refuses 1 'has no .x1b.31mred.x0a.xc2.x9b' adwp eval run --arch hostile.json
[ "$(tail -n 1 stderr.txt | grep -c "$(printf '\033')")" -eq 0 ] || fail "a file's escape sequence reaches the terminal"

# The run's target is used, unless --cpu names one.
adwp eval run 2>stderr.txt >found.txt
grep -q 'for x86-64-v3' stderr.txt || fail "eval is not for the run's target"
adwp eval run --cpu=x86-64-v3 2>/dev/null | cmp - found.txt || fail "eval --cpu of the run's own target differs"
if grep -q avx512vl /proc/cpuinfo; then
  adwp eval run --cpu=x86-64-v4 2>stderr.txt >/dev/null
  grep -q 'for x86-64-v4' stderr.txt || fail "eval --cpu is not for that"
fi
cp -r run foreign # of a machine that nobody has; without its hash, so that it is no damage
LC_ALL=C sed -i 's/"x86-64-v3"/"x86-64-v9"/; s/"hash"/"hush"/' foreign/weights.safetensors
refuses 1 'foreign was searched on x86-64-v9.*--cpu.*unknown processor' adwp eval foreign
adwp eval foreign --cpu=x86-64-v3 2>/dev/null | cut -d: -f2 | cmp - <(cut -d: -f2 found.txt) || fail "eval --cpu of a foreign run"

# --data is for nothing here, and that is said.
for command in "search $small -q -o told" "eval run --json"; do
  # shellcheck disable=SC2086
  adwp $command --data nowhere >/dev/null 2>stderr.txt || fail "--data with synthetic images"
  grep -q 'synthetic, so --data nowhere is not used' stderr.txt || fail "nothing on --data: $command"
done
