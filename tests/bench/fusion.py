#!/usr/bin/env python3
"""Fused groups of operations against their parts, and four ways to make generated weights.

    python3 tests/bench/fusion.py [--python PYTHON] [--part kernels|generate ...] [--groups NAME ...]

`kernels`: kernel_bench on one thread, and oneDNN's convolutions of the same shapes where PyTorch, which carries it, is there.
`generate`: a network of one cell, of 16 to 256 channels: a training step, whose weights change each time, and a search step.
"""
import argparse, os, tempfile

import measure

FORMS = ["none", "horizontal", "vertical", "hoisted"]

# One cell of every generated convolution, small images: the weights are as much work as they can be beside the convolutions.
CELL = """import "darts.adwp"

data synthetic {{
    format   synthetic
    image    3 x {side} x {side}
    classes  10
    train    256 images
    test     64 images
}}

generator predict = softmax -> fc(64) -> fc(weights)

intensive one of darts keep 4 {{
    normal {{
        node 2: sep_conv_3x3(0), sep_conv_5x5(0), dil_conv_3x3(1), dil_conv_5x5(1)
        node 3: sep_conv_3x3(1), sep_conv_5x5(1), dil_conv_3x3(2), dil_conv_5x5(2)
    }}
    reduction {{
        node 2: sep_conv_3x3(0), sep_conv_5x5(0), dil_conv_3x3(1), dil_conv_5x5(1)
        node 3: sep_conv_3x3(1), sep_conv_5x5(1), dil_conv_3x3(2), dil_conv_5x5(2)
    }}
}}

hypernetwork cell{channels} {{
    stem        conv(3, 3*C) -> bn(affine)
    cells       1 of one, channels C = {channels}
    preprocess  squeeze, after reduction reduce
    predict     conv weights by predict
    head        global_avg_pool -> linear(classes) -> cross_entropy
}}

search cell{channels} on synthetic {{
    train    2 epochs
    cross    3..4
    total    4 epochs
    batch    {batch}
    weights  sgd(lr: 0.025 -> 0 cosine, momentum: 0.9, decay: 3e-4, clip: 5)
    alpha    adam(lr: 3e-4, betas: [0.5, 0.999], decay: 1e-3)
    keep     top 2
}}
"""


def measure_kernels(a, report, version, missing):
    machine = measure.Machine(a.patience)
    lines = machine.run(measure.command([a.kernel_bench, f"rounds={4 * a.rounds}", f"cpu={a.cpu}", "json", *a.groups]))
    lines = lines if isinstance(lines, list) else [lines]
    groups = list(dict.fromkeys(line["group"] for line in lines))
    peer = {}
    if version:
        theirs = machine.run(measure.command([a.python, a.oracle, "onednn", f"--rounds={4 * a.rounds}", *groups]))
        peer = {line["group"]: line["gflops"] for line in (theirs if isinstance(theirs, list) else [theirs])}
    ways = {(line["group"], line["way"] == "parts"): line for line in lines}
    rows = []
    for group in groups:
        fused, parts, onednn = ways.get((group, False)), ways.get((group, True)), peer.get(group)
        # oneDNN has a whole batch at a time, over the same tensors again and again: as `batch`.
        rows.append([group, fused["task"], fused["batch"], fused["cold"], *([parts["task"], parts["batch"], parts["cold"],
                     fused["task"] / parts["task"], fused["cold"] / parts["cold"]] if parts else [None] * 5), onednn,
                     fused["batch"] / onednn if onednn else None])
    report.add(f"Groups of operations on one thread, batch 98, {a.cpu}, GFLOP/s of useful arithmetic",
               ["", "fused: task", "batch", "cold", "parts: task", "batch ", "cold ", "ratio, task", "ratio, cold", "oneDNN",
                "ratio to it"], rows,
               [machine.note(), "oneDNN: convolutions alone, as PyTorch " + version + " calls them, without ReLU, BN and moments."
                if version else missing])


def measure_forms(a, report, folder):
    for step in a.step:
        machine, rows = measure.Machine(a.patience), []
        for channels in a.channels:
            model = os.path.join(folder, f"cell{channels}.adwp")
            with open(model, "w") as f:
                f.write(CELL.format(channels=channels, side=a.side, batch=a.batch))
            times = {form: [] for form in FORMS}
            for _ in range(a.rounds):
                for form in FORMS:
                    times[form].append(machine.run(measure.command(
                        [a.adwp, "profile", model, f"--step={step}", f"--steps={a.steps}", f"--threads={a.threads}", "--json",
                         f"--fuse-generate={form}"]))["median_ms"])
            medians = {form: measure.median(of) for form, of in times.items()}
            rows.append([str(channels), *(medians[form] for form in FORMS), *(medians["none"] / medians[form] for form in FORMS[1:]),
                         min(medians, key=medians.get)])
        report.add(f"{step} of one cell, weights made in four ways: ms; batch {a.batch}, {a.side} x {a.side}, {a.threads} threads",
                   ["channels", *FORMS, *(f"none / {form}" for form in FORMS[1:]), "fastest"], rows, [machine.note()])


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    measure.add_options(ap, rounds=3)
    ap.add_argument("--part", nargs="+", choices=["kernels", "generate"], default=["kernels", "generate"])
    ap.add_argument("--kernel-bench", default=os.path.join(measure.TOP, "build", "tests", "kernel_bench"))
    ap.add_argument("--groups", nargs="*", default=[], help="kernel_bench's names; all if none is given")
    ap.add_argument("--cpu", default="x86-64-v4" if has_avx512() else "x86-64-v3")
    ap.add_argument("--step", nargs="+", default=["train_step", "search_step"])
    ap.add_argument("--channels", nargs="+", type=int, default=[16, 32, 64, 128, 256])
    ap.add_argument("--steps", type=int, default=3)
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--batch", type=int, default=32)
    ap.add_argument("--side", type=int, default=16)
    a = ap.parse_args()
    a.oracle = os.path.join(measure.TOP, "tests", "oracle", "adwp_torch.py")
    report = measure.Report(a.out, "fusion", {"rounds": a.rounds, "steps": a.steps, "batch": a.batch, "side": a.side})
    if "kernels" in a.part:
        measure_kernels(a, report, *measure.find_peer(a.python))
    if "generate" in a.part:
        with tempfile.TemporaryDirectory() as folder:
            measure_forms(a, report, folder)


def has_avx512():
    with open("/proc/cpuinfo") as f:
        return "avx512vl" in f.read()


if __name__ == "__main__":
    main()
