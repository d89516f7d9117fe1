#!/usr/bin/env python3
"""Whole steps of a model: adwp fused, unfused and with each pattern left out, on one thread and more, and PyTorch beside it.

    python3 tests/bench/steps.py [--model FILE] [--python PYTHON] [--part loss|steps|patterns ...]

`loss`: on equal weights and images, the loss of adwp and that of PyTorch, both in float32, against one in double precision; a
difference above 1e-4 ends the program, since times of different computations compare nothing. `steps`: the medians of all steps,
interleaved. `patterns`: a training step without each way of fusing, against what `--explain-fusion` expects it to save.
"""
import argparse, json, os, re, subprocess, sys, tempfile

import measure

STEPS = ["train_step", "search_step", "cross_step"]
PEERS = {"eager": [], "channels-last": ["--channels-last"], "compile": ["--channels-last", "--compile"]}
LOSS_BOUND = 1e-4


def profile(a, step, threads, *more):
    return measure.command([a.adwp, "profile", a.model, f"--step={step}", f"--steps={a.steps}", f"--threads={threads}", "--json", *more])


# ---- the loss ----

def relative_losses(a, spec, folder):
    """Of adwp and of PyTorch in float32: |loss / loss in double - 1|."""
    fixture = os.path.join(folder, "fixture.safetensors")
    oracle = [a.python, a.oracle]
    subprocess.run([*oracle, "fixture", fixture, "--spec", spec, "--batch", str(a.check_batch), "--size", "32"], check=True,
                   stdout=subprocess.DEVNULL, timeout=900)
    ours = subprocess.run([a.check_fixtures, "--backend=cpu", "--bound=1", "--each", fixture], stdout=subprocess.PIPE, text=True,
                          timeout=900)
    found = re.search(r"^\s*loss\s+([0-9.e+-]+)", ours.stdout, re.M)
    if not found:
        sys.exit(f"steps.py: {a.check_fixtures} compared no loss:\n{ours.stdout}")
    theirs = subprocess.run([*oracle, "float32", fixture, "--channels-last"], check=True, stdout=subprocess.PIPE, text=True,
                            timeout=900)
    return float(found.group(1)), json.loads(theirs.stdout)["loss"]


def compare_losses(a, report, spec, folder):
    ours, theirs = relative_losses(a, spec, folder)
    report.add(f"Loss of the first step, batch {a.check_batch}, against the same in double precision",
               ["", "relative error"], [["adwp", f"{ours:.1e}"], ["PyTorch float32", f"{theirs:.1e}"]])
    if not ours + theirs <= LOSS_BOUND:
        sys.exit(f"steps.py: the losses may differ by {ours + theirs:.1e}, more than {LOSS_BOUND:.0e}: not the same computation")


# ---- whole steps ----

def measure_step(a, machine, step, spec, peers):
    """{way: [a run's figures]} of one step, all ways in turn."""
    most = a.threads[-1]
    ways = {f"adwp, {t} threads": profile(a, step, t) for t in a.threads}
    ways["adwp, nothing fused"] = profile(a, step, most, "--no-fuse=all")
    processes = []
    try:
        for name in peers:
            peer = measure.Peer(name, [a.python, a.oracle, "bench", "--spec", spec, "--stage", step.removesuffix("_step"), "--batch",
                                       str(a.batch), "--threads", str(most), *PEERS[name]])
            processes.append(peer)
            peer.steps(1)()  # compiled and warm before anything is timed
            ways[f"PyTorch {name}"] = peer.steps(a.steps)
        runs = {name: [] for name in ways}
        for _ in range(a.rounds):
            for name, work in ways.items():
                runs[name].append(machine.run(work))
        return runs
    finally:
        for peer in processes:
            peer.stop()


def step_rows(a, runs):
    milliseconds = {name: measure.median([r["median_ms"] for r in of]) for name, of in runs.items()}
    fastest = milliseconds[f"adwp, {a.threads[-1]} threads"]
    rows = []
    for name, of in runs.items():
        times = [r["median_ms"] for r in of]
        rows.append([name, milliseconds[name], min(times), max(times), max(r["peak_bytes"] for r in of) / 2**20,
                     measure.median([r["gflops"] for r in of]) if "gflops" in of[0] else None, milliseconds[name] / fastest])
    return rows


def measure_steps(a, report, spec, version, missing):
    peers = a.peers if version else []
    for step in a.step:
        machine = measure.Machine(a.patience)
        runs = measure_step(a, machine, step, spec, peers)
        report.add(f"{step}, batch {a.batch}, {a.threads[-1]} threads where not said" + (f", PyTorch {version}" if version else ""),
                   ["", "median ms", "least", "most", "peak MiB", "GFLOP/s", "to adwp"], step_rows(a, runs), [machine.note(), missing])


# ---- each pattern ----

def expected_savings(a, step):
    """{pattern: (how often, ms)}: the end of what --explain-fusion says."""
    done = subprocess.run([a.adwp, "emit", a.model, "--explain-fusion", f"--step={step}"], check=True, stdout=subprocess.PIPE, text=True)
    whole = done.stdout.rpartition("as a whole, expected to save\n")[2]
    return {name: (int(times), float(ms)) for name, times, ms in re.findall(r"^\s+(\w+)\s+(\d+) times\s+([0-9.]+) ms$", whole, re.M)}


def verdict(expected, measured, noise):
    if max(expected, abs(measured)) <= noise:
        return "both below the noise"
    if measured <= 0 or expected <= 0:
        return "no"
    return "yes" if 0.5 <= expected / measured <= 2 else "no"


def measure_patterns(a, report):
    step, threads, machine = "train_step", a.threads[-1], measure.Machine(a.patience)
    expected = {name: e for name, e in expected_savings(a, step).items() if e[0]}
    if not expected:
        sys.exit("steps.py: --explain-fusion said nothing of what it expects to save")
    ways = {"": profile(a, step, threads)} | {name: profile(a, step, threads, f"--no-fuse={name}") for name in expected}
    times = {name: [] for name in ways}
    peaks = {}
    for _ in range(a.rounds):
        for name, work in ways.items():
            run = machine.run(work)
            times[name].append(run["median_ms"])
            peaks[name] = run["peak_bytes"] / 2**20
    noise = (max(times[""]) - min(times[""])) / 2
    rows = [["all fused", None, measure.median(times[""]), None, None, peaks[""], ""]]
    for name, (count, ms) in expected.items():
        saved = measure.median([without - all_of_them for without, all_of_them in zip(times[name], times[""])])
        rows.append([f"without {name}", float(count), measure.median(times[name]), ms, saved, peaks[name], verdict(ms, saved, noise)])
    report.add(f"{step} without each way of fusing, {threads} threads, batch {a.batch}",
               ["", "times used", "median ms", "saves: expected ms", "measured ms", "peak MiB", "within a factor of two"], rows,
               [f"Rounds of the same differ by up to {2 * noise:.1f} ms.", machine.note()])


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    measure.add_options(ap, rounds=5)
    ap.add_argument("--model", default=os.path.join(measure.TOP, "examples", "cifar10-8.adwp"))
    ap.add_argument("--part", nargs="+", choices=["loss", "steps", "patterns"], default=["loss", "steps", "patterns"])
    ap.add_argument("--step", nargs="+", choices=STEPS, default=STEPS)
    ap.add_argument("--peers", nargs="*", choices=list(PEERS), default=list(PEERS))
    ap.add_argument("--steps", type=int, default=5, help="steps of a run; its median counts")
    ap.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="the last is that of every comparison")
    ap.add_argument("--check-batch", type=int, default=8, help="images of the comparison of losses, which is in double precision")
    ap.add_argument("--check-fixtures", default=None, help="the program (beside adwp)")
    a = ap.parse_args()
    a.check_fixtures = a.check_fixtures or os.path.join(os.path.dirname(a.adwp), "check-fixtures")
    a.oracle = os.path.join(measure.TOP, "tests", "oracle", "adwp_torch.py")
    report = measure.Report(a.out, "steps", {"model": os.path.basename(a.model), "rounds": a.rounds, "steps": a.steps})
    version, missing = measure.find_peer(a.python)
    a.batch = measure.command([a.adwp, "profile", a.model, "--step=eval", "--steps=1", "--json"])()[0]["batch"]
    with tempfile.TemporaryDirectory() as folder:
        spec = os.path.join(folder, "spec.json")
        with open(spec, "w") as f:
            subprocess.run([a.adwp, "emit", a.model, "--stage=spec"], check=True, stdout=f)
        if "loss" in a.part and version:
            compare_losses(a, report, spec, folder)
        if "steps" in a.part:
            measure_steps(a, report, spec, version, missing)
        if "patterns" in a.part:
            measure_patterns(a, report)
        if missing:
            report.say(missing)


if __name__ == "__main__":
    main()
