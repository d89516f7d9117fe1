#!/usr/bin/env bash
# adwp profile: what its JSON says of a step and of each kernel, its trace, wrong usage; and the machine's figures that it compares
# with, which `adwp doctor --measure` keeps: a damaged file is survived, said, and replaced.
# shellcheck source=tests/commands/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

refuses 2 'which FILE' adwp profile --step=eval
refuses 2 'which --step' adwp profile "$small"
refuses 2 'is train_step' adwp profile "$small" --step=gradient_step
refuses 2 'whole number' adwp profile "$small" --step=eval --steps=0
refuses 1 'no-such.adwp' adwp profile no-such.adwp --step=eval
refuses 1 'no-such-folder' adwp profile "$small" --step=eval --steps=1 --trace no-such-folder/trace.json
refuses 2 'nothing to do' adwp doctor measure
refuses 2 'whole number' adwp doctor --measure --threads=0

profile() { # STEP OPTION...
  adwp profile "$small" --step="$1" --steps=2 --threads=2 "${@:2}" 2>/dev/null || fail "profile of $*"
}
estimates() { # OPTION...: whether the speed of the machine is an estimate
  profile eval "$@" >text.txt
  grep -q '^machine .*an estimate.*doctor --measure' text.txt
}
doctor_says() { # PATTERN OPTION...
  adwp doctor "${@:2}" >doctor.txt || fail "doctor ${*:2}"
  grep -q "$1" doctor.txt
}

# ---- nothing measured: an estimate, and said so ----
estimates || fail "text does not say that the machine was not measured"
grep -qE '^launches +ms +share +GFLOP/s +of FMA +GB/s +of memory +MB moved +/ least +kernel' text.txt || fail "no head of the table"
grep -qE ' 4x32x32 k3' text.txt || fail "no kernel says its shape"
doctor_says '^note *machine *not measured' || fail "doctor does not say that nothing was measured"

# ---- measured, kept, read again ----
doctor_says '^ok *machine .*GFLOP/s of all threads' --measure --threads=2 || fail "doctor shows no figures"
files=(cache/adwp/*.machine)
if [ ${#files[@]} -ne 1 ] || [ ! -f "${files[0]}" ]; then fail "not one file of figures: ${files[*]}"; fi
kept=${files[0]}
grep -q '^threads 2$' "$kept" || fail "the figures of other threads"
[ -z "$(find cache/adwp -name '*.machine?*')" ] || fail "a temporary file is left"
doctor_says '^ok *machine' --threads=2 || fail "the figures are not read again"
doctor_says '^note *machine *not measured' --threads=3 || fail "figures of two threads are taken for those of three"
estimates && fail "profile does not know what was measured"
estimates --no-cache || fail "--no-cache reads the cache"

# ---- damaged in many ways ----
cp "$kept" good.machine
size=$(stat -c %s good.machine)
survives() { # WHAT: the file is as it is now
  doctor_says '^note *machine .*damaged' --threads=2 || fail "doctor does not say that figures are damaged: $1"
  estimates || fail "profile with figures that are $1"
}
for place in 0 20 $((size / 2)) $((size - 2)); do
  cp good.machine "$kept"
  flip "$kept" "$place"
  survives "flipped at $place"
done
: >"$kept"
survives empty
head -c $((size / 2)) good.machine >"$kept"
survives cut
{ cat good.machine; echo more; } >"$kept"
survives longer
sed 's/^fma_one .*/fma_one nan/' good.machine >"$kept"
survives 'no numbers'
head -c 100000 /dev/zero >"$kept"
survives 'zeros without end'
adwp doctor --measure --threads=2 >/dev/null || fail "doctor --measure over a damaged file"
doctor_says '^ok *machine' --threads=2 || fail "a damaged file is not replaced"

# ---- nowhere to keep them ----
mkdir open
mkdir -m 777 open/adwp
status=0
XDG_CACHE_HOME=$scratch/open adwp doctor --measure >doctor.txt || status=$?
[ $status -eq 1 ] || fail "doctor --measure into a folder that others can write ends with status $status"
grep -q '^missing *machine .*other users can write' doctor.txt || fail "figures are kept where others can write"
[ -z "$(ls open/adwp)" ] || fail "a folder that must not be used is"
env -u XDG_CACHE_HOME -u HOME "$ADWP" doctor --measure >doctor.txt || fail "doctor --measure without a home"
grep -q '^ok *machine *there is no folder' doctor.txt || fail "doctor does not say that nothing is kept"

# ---- JSON and the trace ----
if ! command -v python3 >/dev/null; then
  echo "no python3 here: JSON was not looked at"
  exit 77
fi
adwp doctor --json --threads=2 >doctor.json
for step in train_step search_enter search_step cross_step eval; do
  profile $step --json --trace $step.trace >$step.json
done
python3 - <<'END' || fail "what profile says"
import json

machine = [one for one in json.load(open("doctor.json")) if one["area"] == "machine"][0]
names = ["fma_one", "fma_all", "memory_read", "memory_write", "memory_scale", "cache2_read", "cache3_read", "launch"]
assert machine["figures"]["measured"] is True and machine["figures"]["threads"] == 2
assert all(machine["figures"][name] > 0 for name in names)

def near(a, b):
    return abs(a - b) <= 1e-4 * abs(b) + 1e-9

def check_traffic(one, seconds, machine):
    moved = one["read_bytes"] + one["written_bytes"]
    assert 0 <= one["least_bytes"] <= moved, one
    if seconds > 0:
        assert near(one["gb_per_second"], moved / seconds / 1e9), one
        least = one["read_bytes"] / machine["memory_read"] + one["written_bytes"] / machine["memory_write"]
        assert near(one["memory_share"], least / seconds), one
        assert near(one["fma_share"], one["gflops"] * 1e9 / machine["fma_all"]), one

for name in ["train_step", "search_enter", "search_step", "cross_step", "eval"]:
    step = json.load(open(name + ".json"))
    assert step["step"] == name and step["model"] == "small" and step["threads"] == 2 and step["steps"] == 2
    assert step["machine"] == {key: machine["figures"][key] for key in step["machine"]}
    assert 0 < step["least_ms"] <= step["median_ms"] and step["peak_bytes"] > step["arena_bytes"] > 0
    check_traffic(step, step["median_ms"] / 1e3, step["machine"])
    kernels = step["kernels"]
    assert len({(kernel["name"], kernel["description"]) for kernel in kernels}) == len(kernels)
    assert near(sum(kernel["share"] for kernel in kernels), 1)
    for what in ["read_bytes", "written_bytes", "least_bytes"]:
        assert sum(kernel[what] for kernel in kernels) == step[what], what
    for kernel in kernels:
        assert kernel["launches"] > 0 and kernel["ms"] >= 0
        check_traffic(kernel, kernel["ms"] / 1e3, step["machine"])
    assert [kernel["ms"] for kernel in kernels] == sorted((kernel["ms"] for kernel in kernels), reverse=True)

    events = json.load(open(name + ".trace"))["traceEvents"]
    tracks = {one["tid"]: one["args"]["name"] for one in events if one["ph"] == "M" and one["name"] == "thread_name"}
    slices = [one for one in events if one["ph"] == "X"]
    assert slices and {one["tid"] for one in slices} == set(tracks)
    assert all(tracks[track] == "worker %d" % track for track in tracks) and set(tracks) <= {0, 1}
    launches = sum(kernel["launches"] for kernel in kernels)
    assert {one["args"]["launch"] for one in slices} == set(range(launches))
    assert {one["name"] for one in slices} == {kernel["name"] for kernel in kernels}
    for track in tracks:
        end = 0
        for one in [one for one in slices if one["tid"] == track]:
            assert one["ts"] >= end - 0.01 and one["dur"] >= 0 and one["args"]["tasks"] > 0, one
            end = one["ts"] + one["dur"]
END
