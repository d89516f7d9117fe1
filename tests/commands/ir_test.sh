#!/usr/bin/env bash
# adwp opt and run-ir on a whole model: the passes one by one make what the compiler makes of it, and no pass changes what the
# interpreter computes.
# shellcheck source=tests/commands/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

stages="lower autodiff simplify hoist sums layout graph"
for stage in $stages; do adwp emit "$small" --stage="$stage" >"$stage.ir" || fail "$stage"; done
cmp layout.ir graph.ir || fail "graph is not the last of the graph stages"
before=lower
for pass in autodiff simplify hoist sums layout; do
  adwp opt --pass=$pass $before.ir | cmp - $pass.ir || fail "$pass alone makes something else of $before"
  before=$pass
done
adwp opt --pass=autodiff,simplify,hoist,sums,layout -o all.ir - <lower.ir
cmp all.ir graph.ir || fail "all passes at once"

adwp emit "$small" --stage=graph --time-passes 2>times.txt >/dev/null
for pass in autodiff simplify hoist sums layout; do grep -qE "^$pass +[0-9.]+ ms$" times.txt || fail "no time of $pass"; done
adwp opt --pass=simplify --dump=simplify autodiff.ir 2>dump.txt >/dev/null
[ "$(grep -cE '^# (before|after) simplify$' dump.txt)" = 2 ] || fail "--dump"

# What a step computes, after each pass.
for stage in autodiff simplify sums layout; do
  adwp run-ir "$stage.ir" --step=train_step --batch=1 --seed=3 --json >"$stage.json" || fail "run-ir of $stage"
done
if command -v python3 >/dev/null; then
  python3 - <<'PYTHON' || fail "a pass changes what a step computes"
import json, math
first = json.load(open("autodiff.json"))
for stage in "simplify", "sums", "layout":
    other = json.load(open(stage + ".json"))
    for part in "results", "updates":
        for name, x in first[part].items():
            y = other[part][name]
            d = math.sqrt(sum((a - b) ** 2 for a, b in zip(x, y)))
            assert len(x) == len(y) and d <= 1e-12 * (1 + math.sqrt(sum(a * a for a in x))), (stage, name, d)
PYTHON
fi
# Values from a .safetensors file: a header that is padded to 64 bytes, then one float, 0.5.
header='{"rate":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}'
{ printf '\x40\0\0\0\0\0\0\0%-64s\0\0\0\x3f' "$header"; } >rate.safetensors
echo '{"rate": 0.5}' >rate.json
for file in rate.safetensors rate.json; do
  adwp run-ir graph.ir --step=train_step --batch=1 --values=$file --json >"$file.out" || fail "--values=$file"
done
cmp rate.safetensors.out rate.json.out || fail "a value from a .safetensors file is another than from JSON"
adwp run-ir graph.ir --step=train_step --batch=1 --json >drawn.out
cmp -s drawn.out rate.json.out && fail "--values is not used"

refuses 1 'gradient that was not worked out' adwp run-ir lower.ir --step=train_step
refuses 1 'no --step is given' adwp run-ir graph.ir
refuses 2 'whole number' adwp run-ir graph.ir --step=eval --batch=0
head -c 3000 graph.ir >cut.ir
refuses 1 'cut.ir: graph text, line' adwp opt --pass=simplify cut.ir
refuses 1 'standard input: graph text' adwp run-ir - <cut.ir
