#!/usr/bin/env python3
"""The HyperNetwork in PyTorch, in plain modules: the reference that check-fixtures compares with, and the peer in benchmarks.

It follows the same definition as the compiler (docs/language.md, dsl/std/darts.adwp) and shares no code with it: ReLU first,
BatchNorm last, no affine BatchNorm but in the stem; images are (batch, channels, height, width).

    adwp_torch.py fixture OUT ...              one step: gradients, and both optimizers' updates from them
    adwp_torch.py fixture-trajectory OUT ...   six steps: train, train, search, cross, cross, search
    adwp_torch.py own FOLDER                   the fixtures that the project carries
    adwp_torch.py float32 FIXTURE ...          the error of PyTorch's own float32 on a fixture
    adwp_torch.py bench --stage train|search|cross ...
    adwp_torch.py onednn GROUP ...             convolutions of kernel_bench's groups by oneDNN, as PyTorch carries it
    adwp_torch.py spec                         the model of examples/cifar10-8.adwp as JSON

A fixture is a safetensors file in double precision. Its metadata hold the model (`spec`), and of a trajectory the steps
(`kinds`). One step: `x`, `y`, `param.*`, `alpha.CELL.NODE`, `logits`, `loss`, `grad.*`, and `stepped.*`, which is after one SGD step
of the weights (rate 0.025, norm clipped to 5, empty momentum) and one Adam step of alpha. A trajectory: `param.*`, `start.alpha.*`,
for each step I `step.I.x/y/loss`, `step.I.norm` (before clipping), `step.I.alpha.*` where alpha is drawn anew, then `end.*`,
`end.momentum.*`, `end.alpha.*`.
"""
import argparse, json, math, os, random, re, struct, sys, time
import torch
import torch.nn as nn
import torch.nn.functional as F

CONV_OPS = {  # name: (kernel, dilation, twice)
    "sep_conv_3x3": (3, 1, True), "sep_conv_5x5": (5, 1, True),
    "dil_conv_3x3": (3, 2, False), "dil_conv_5x5": (5, 2, False),
}
OPS = list(CONV_OPS) + ["avg_pool_3x3", "max_pool_3x3", "identity"]  # what random specs are drawn from
RATE, MOMENTUM, DECAY, CLIP = 0.025, 0.9, 3e-4, 5.0


# ---- the model ----

class Generator(nn.Module):
    """GeneratingBlock of one convolution: probability () -> fc1 -> hidden (H,) -> [ReLU] -> fc2 -> weight of `shape`."""

    def __init__(self, shape, hidden=64, relu=False):
        super().__init__()
        self.shape, self.relu = shape, relu
        self.fc1 = nn.Linear(1, hidden)
        self.fc2 = nn.Linear(hidden, math.prod(shape))

    def forward(self, p):
        h = self.fc1(p.reshape(1, 1))
        return self.fc2(F.relu(h) if self.relu else h).reshape(self.shape)


def batch_norm(x):
    return F.batch_norm(x, None, None, training=True, eps=1e-5)


class GeneratedConv(nn.Module):
    """ReLU -> depthwise k x k -> pointwise 1 x 1 -> BatchNorm, once or twice, with generated weights."""

    def __init__(self, C, stride, kernel, dilation, twice, **kw):
        super().__init__()
        self.C, self.stride, self.dilation, self.twice = C, stride, dilation, twice
        self.pad = dilation * (kernel - 1) // 2
        self.dw1, self.pw1 = Generator((C, 1, kernel, kernel), **kw), Generator((C, C, 1, 1), **kw)
        if twice:
            self.dw2, self.pw2 = Generator((C, 1, kernel, kernel), **kw), Generator((C, C, 1, 1), **kw)

    def half(self, x, dw, pw, stride):
        x = F.conv2d(F.relu(x), dw, stride=stride, padding=self.pad, dilation=self.dilation, groups=self.C)
        return batch_norm(F.conv2d(x, pw))

    def forward(self, x, p):
        x = self.half(x, self.dw1(p), self.pw1(p), self.stride)
        return self.half(x, self.dw2(p), self.pw2(p), 1) if self.twice else x


class ReLUConvBN(nn.Module):
    def __init__(self, cin, cout):
        super().__init__()
        self.conv = nn.Conv2d(cin, cout, 1, bias=False)

    def forward(self, x):
        return batch_norm(self.conv(F.relu(x)))


class FactorizedReduce(nn.Module):
    """Two 1 x 1 stride-2 convolutions, the second on the input shifted by one pixel, concatenated."""

    def __init__(self, cin, cout):
        super().__init__()
        self.conv1 = nn.Conv2d(cin, cout // 2, 1, stride=2, bias=False)
        self.conv2 = nn.Conv2d(cin, cout // 2, 1, stride=2, bias=False)

    def forward(self, x):
        x = F.relu(x)
        return batch_norm(torch.cat([self.conv1(x), self.conv2(x[:, :, 1:, 1:])], 1))


class Op(nn.Module):
    """One candidate of a node."""

    def __init__(self, name, C, stride, **kw):
        super().__init__()
        if name not in OPS + ["zero"]:
            raise ValueError(f"unknown operation {name}")
        self.name, self.stride = name, stride
        if name in CONV_OPS:
            self.conv = GeneratedConv(C, stride, *CONV_OPS[name], **kw)
        elif name == "identity" and stride == 2:
            self.reduce = FactorizedReduce(C, C)

    def forward(self, x, p):
        if self.name in CONV_OPS:
            return self.conv(x, p)
        if self.name == "avg_pool_3x3":
            return batch_norm(F.avg_pool2d(x, 3, self.stride, 1, count_include_pad=False))
        if self.name == "max_pool_3x3":
            return batch_norm(F.max_pool2d(x, 3, self.stride, 1))
        if self.name == "zero":
            return torch.zeros_like(x[:, :, ::self.stride, ::self.stride])
        return self.reduce(x) if self.stride == 2 else x


class Cell(nn.Module):
    def __init__(self, space, cpp, cp, C, reduction, reduction_prev, **kw):
        super().__init__()
        self.pre0 = FactorizedReduce(cpp, C) if reduction_prev else ReLUConvBN(cpp, C)
        self.pre1 = ReLUConvBN(cp, C)
        self.space = space
        self.nodes = nn.ModuleList(
            nn.ModuleList(Op(name, C, 2 if reduction and src < 2 else 1, **kw) for name, src in ops) for ops in space)

    def forward(self, s0, s1, alpha):
        """alpha: one (K,) vector of logits a node."""
        states = [self.pre0(s0), self.pre1(s1)]
        for ops, spec, a in zip(self.nodes, self.space, alpha):
            p = F.softmax(a, -1)
            states.append(sum(p[k] * op(states[src], p[k]) for k, (op, (_, src)) in enumerate(zip(ops, spec))))
        return torch.cat(states[2:], 1)


class HyperNetwork(nn.Module):
    def __init__(self, spec):
        super().__init__()
        L, C = spec["cells"], spec["channels"]
        kw = dict(hidden=spec.get("hidden", 64), relu=spec.get("relu", False))
        c = spec.get("stem_multiplier", 3) * C
        self.stem = nn.Conv2d(3, c, 3, padding=1, bias=False)
        self.stem_bn = nn.BatchNorm2d(c, track_running_stats=False)
        cpp, cp, cells, rprev = c, c, [], False
        reductions = spec.get("reduce", [L // 3, 2 * L // 3])
        for l in range(L):
            r = l in reductions
            C = 2 * C if r else C
            space = spec["intensive"]["reduce" if r else "normal"]
            cells.append(Cell(space, cpp, cp, C, r, rprev, **kw))
            cpp, cp, rprev = cp, len(space) * C, r
        self.cells = nn.ModuleList(cells)
        self.classifier = nn.Linear(cp, spec["classes"])
        self.shape = [[len(ops) for ops in cell.space] for cell in self.cells]

    def random_alpha(self, scale=1.0):
        return [[scale * torch.randn(k) for k in cell] for cell in self.shape]

    def forward(self, x, alpha):
        s0 = s1 = self.stem_bn(self.stem(x))
        for cell, a in zip(self.cells, alpha):
            s0, s1 = s1, cell(s0, s1, a)
        return self.classifier(s1.mean((2, 3)))


def default_spec(cells=8, channels=16, classes=10, K=6, seed=0):
    """An intensive-space drawn at random with a fixed seed: K distinct (operation, source) pairs a node."""
    rng = random.Random(seed)

    def draw():
        return [[list(t) for t in sorted(rng.sample([(o, i) for i in range(j) for o in OPS], K), key=lambda t: (t[1], t[0]))]
                for j in range(2, 6)]
    return {"cells": cells, "channels": channels, "classes": classes, "intensive": {"normal": draw(), "reduce": draw()}}


# ---- safetensors: u64 header length, JSON header, raw little-endian data ----

TYPES = {"F32": torch.float32, "F64": torch.float64, "I64": torch.int64}


def save_safetensors(path, tensors, meta):
    names = {t: n for n, t in TYPES.items()}
    head, blobs, at = {"__metadata__": meta}, [], 0
    for k, t in tensors.items():
        b = t.detach().contiguous().numpy().tobytes()
        head[k] = {"dtype": names[t.dtype], "shape": list(t.shape), "data_offsets": [at, at + len(b)]}
        blobs.append(b)
        at += len(b)
    h = json.dumps(head, separators=(",", ":")).encode()
    h += b" " * (-len(h) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(h)) + h)
        f.writelines(blobs)
    print(f"{path}: {len(tensors)} tensors, {at} bytes")


def load_safetensors(path):
    with open(path, "rb") as f:
        head = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
        data = bytearray(f.read())
    meta = head.pop("__metadata__")
    tensors = {}
    for k, e in head.items():
        begin, end = e["data_offsets"]
        tensors[k] = torch.frombuffer(data[begin:end], dtype=TYPES[e["dtype"]]).reshape(e["shape"])
    return tensors, meta


# ---- fixtures ----

def named_alpha(prefix, alpha):
    return {f"{prefix}.{l}.{j}": t.detach().clone() for l, c in enumerate(alpha) for j, t in enumerate(c)}


def named(prefix, net):
    return {prefix + n: p.detach().clone() for n, p in net.named_parameters()}


def trainable(alpha):
    return [[t.double().requires_grad_() for t in c] for c in alpha]


def optimizers(net, alpha, capturable=False):
    """SGD and Adam. Gradients are zero at first, not missing: a parameter that the loss does not depend on decays, too."""
    for p in [*net.parameters(), *(t for c in alpha for t in c)]:
        p.grad = torch.zeros_like(p)
    return (torch.optim.SGD(net.parameters(), RATE, momentum=MOMENTUM, weight_decay=DECAY),
            torch.optim.Adam([t for c in alpha for t in c], 3e-4, betas=(0.5, 0.999), weight_decay=1e-3,
                             capturable=capturable))


def step_fixture(out, spec, batch, size, seed):
    torch.manual_seed(seed)
    net = HyperNetwork(spec).double()
    alpha = trainable(net.random_alpha())
    x, y = torch.randn(batch, 3, size, size).double(), torch.randint(0, spec["classes"], (batch,))
    sgd, adam = optimizers(net, alpha)
    values = {"x": x, "y": y} | named("param.", net) | named_alpha("alpha", alpha)
    logits = net(x, alpha)
    loss = F.cross_entropy(logits, y)
    loss.backward()
    values |= {"logits": logits, "loss": loss.reshape(1)}
    values |= named_alpha("grad.alpha", [[t.grad for t in c] for c in alpha])
    values |= {"grad." + n: p.grad.clone() for n, p in net.named_parameters()}
    nn.utils.clip_grad_norm_(net.parameters(), CLIP)
    sgd.step()
    adam.step()
    values |= named("stepped.", net) | named_alpha("stepped.alpha", alpha)
    save_safetensors(out, values, {"spec": json.dumps(spec)})


def trajectory_fixture(out, spec, batch, size, seed):
    torch.manual_seed(seed)
    net = HyperNetwork(spec).double()
    start = trainable(net.random_alpha(scale=1e-3))
    sgd, adam = optimizers(net, start)
    values = named("param.", net) | named_alpha("start.alpha", start)
    kinds = ["train", "train", "search", "cross", "cross", "search"]
    for i, kind in enumerate(kinds):
        x, y = 2 * torch.randn(batch, 3, size, size).double(), torch.randint(0, spec["classes"], (batch,))
        alpha = start
        if kind == "train":
            alpha = [[t.double() for t in c] for c in net.random_alpha()]
            values |= named_alpha(f"step.{i}.alpha", alpha)
        sgd.zero_grad(set_to_none=False)
        adam.zero_grad(set_to_none=False)
        loss = F.cross_entropy(net(x, alpha), y)
        loss.backward()
        values |= {f"step.{i}.x": x, f"step.{i}.y": y, f"step.{i}.loss": loss.detach().reshape(1)}
        if kind != "search":
            values[f"step.{i}.norm"] = nn.utils.clip_grad_norm_(net.parameters(), CLIP).detach().reshape(1)
            sgd.step()
        if kind != "train":
            adam.step()
    values |= named("end.", net) | named_alpha("end.alpha", start)
    values |= {"end.momentum." + n: sgd.state[p]["momentum_buffer"] for n, p in net.named_parameters()}
    save_safetensors(out, values, {"spec": json.dumps(spec), "kinds": json.dumps(kinds)})


def every_operation(channels, classes, hidden):
    """Every operation of the space from both of a cell's inputs and from its nodes, so that each is there at both strides."""
    def node(*pairs):
        return [[name, source] for name, source in pairs]
    inputs = [node(("sep_conv_3x3", 0), ("dil_conv_5x5", 0), ("max_pool_3x3", 1), ("identity", 1)),
              node(("dil_conv_3x3", 0), ("avg_pool_3x3", 0), ("zero", 0), ("sep_conv_5x5", 1))]
    nodes = [node(("sep_conv_3x3", 2), ("avg_pool_3x3", 2), ("identity", 3), ("dil_conv_5x5", 3)),
             node(("dil_conv_3x3", 2), ("sep_conv_5x5", 3), ("max_pool_3x3", 4), ("zero", 4))]
    space = inputs + nodes
    return {"cells": 3, "channels": channels, "classes": classes, "hidden": hidden, "reduce": [1], "stem_multiplier": 2,
            "intensive": {"normal": space, "reduce": space}}


def own_fixtures(folder):
    """Small enough to be carried, and together all that a fixture can show."""
    at = lambda name: os.path.join(folder, name + ".safetensors")
    small = default_spec(3, 4, K=2, seed=7) | {"hidden": 2, "reduce": [1]}
    relu = default_spec(2, 4, K=2, seed=2) | {"hidden": 2, "reduce": [1], "relu": True}
    step_fixture(at("hyper-small"), small, batch=3, size=8, seed=7)
    step_fixture(at("hyper-relu"), relu, batch=3, size=8, seed=2)
    step_fixture(at("hyper-operations"), every_operation(channels=2, classes=7, hidden=2), batch=3, size=12, seed=6)
    trajectory_fixture(at("trajectory"), default_spec(3, 2, K=2, seed=7) | {"hidden": 2}, batch=3, size=8, seed=7)


def float32_errors(path, layout):
    """The same step in float32: relative errors in norm, as check-fixtures measures them."""
    values, meta = load_safetensors(path)
    net = HyperNetwork(json.loads(meta["spec"]))
    with torch.no_grad():
        for n, p in net.named_parameters():
            p.copy_(values["param." + n])
    net = net.to(memory_format=layout)
    alpha = [[values[f"alpha.{l}.{j}"].float().requires_grad_() for j in range(len(c))] for l, c in enumerate(net.shape)]
    logits = net(values["x"].float().to(memory_format=layout), alpha)
    loss = F.cross_entropy(logits, values["y"])
    loss.backward()
    grads = {"grad." + n: p.grad for n, p in net.named_parameters() if p.grad is not None}
    grads |= {f"grad.alpha.{l}.{j}": t.grad for l, c in enumerate(alpha) for j, t in enumerate(c)}
    logits, loss = logits.detach(), loss.detach().reshape(1)

    def relative(pairs):
        difference = sum(float((a.double() - b).square().sum()) for a, b in pairs)
        return difference and math.sqrt(difference / sum(float(b.square().sum()) for _, b in pairs))
    worst = max(grads, key=lambda n: relative([(grads[n], values[n])]))
    print(json.dumps({"fixture": path, "logits": relative([(logits, values["logits"])]), "loss": relative([(loss, values["loss"])]),
                      "gradients": relative([(g, values[n]) for n, g in grads.items()]),
                      "gradient": relative([(grads[worst], values[worst])]), "worst": worst}))


# ---- speed ----

def bench(a):
    if a.threads:
        torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    cuda = a.device == "cuda"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = a.tf32
    net = HyperNetwork(read_spec(a)).to(a.device)
    if a.channels_last:
        net = net.to(memory_format=torch.channels_last)
    run = torch.compile(net) if a.compile else net
    alpha = [[t.to(a.device).requires_grad_() for t in c] for c in net.random_alpha(scale=1e-3)]
    sgd, adam = optimizers(net, alpha, capturable=a.graph)
    x, y = torch.randn(a.batch, 3, 32, 32, device=a.device), torch.randint(0, 10, (a.batch,), device=a.device)
    if a.channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    if a.stage == "search":
        net.requires_grad_(False)

    def step():
        if a.stage == "train":
            with torch.no_grad():
                for t in (t for c in alpha for t in c):
                    t.normal_()
        sgd.zero_grad(set_to_none=True)
        adam.zero_grad(set_to_none=True)
        with torch.autocast(a.device, torch.bfloat16, enabled=a.bf16):
            logits = run(x, alpha)
        F.cross_entropy(logits.float(), y).backward()
        if a.stage != "search":
            nn.utils.clip_grad_norm_(net.parameters(), CLIP)
            sgd.step()
        if a.stage != "train":
            adam.step()

    def captured(step):
        """The whole step as one CUDA graph, as fast as PyTorch can launch it."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()
        return graph.replay

    if a.graph:
        step = captured(step)
    def timed(count):
        times = []
        for _ in range(count):
            t = time.perf_counter()
            step()
            if cuda:
                torch.cuda.synchronize()
            times.append(time.perf_counter() - t)
        return times

    import resource
    about = {"stage": a.stage, "parameters": sum(p.numel() for p in net.parameters()), "torch": torch.__version__,
             "threads": torch.get_num_threads(), "compile": a.compile, "channels_last": a.channels_last, "batch": a.batch,
             "device": torch.cuda.get_device_name() if cuda else "cpu", "bf16": a.bf16, "tf32": a.tf32, "graph": a.graph}
    timed(a.warmup)
    # A server does some steps for each number that it reads, so that others can be timed in between.
    for count in (int(line) for line in sys.stdin) if a.serve else [a.steps]:
        times = sorted(timed(count))
        print(json.dumps(about | {
            "median_ms": round(1e3 * times[len(times) // 2], 3), "min_ms": round(1e3 * times[0], 3),
            "max_ms": round(1e3 * times[-1], 3), "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            "gpu_bytes": torch.cuda.max_memory_allocated() if cuda else 0}), flush=True)


def group_of(name):
    """kernel_bench's names of groups, as far as oneDNN has the operation: kernel, dilation, stride, in, out, depthwise, kind."""
    block = re.fullmatch(r"k(\d+)d(\d+)s(\d+)c(\d+)(?:\.(grad))?", name)
    if block:
        kernel, dilation, stride, channels = map(int, block.groups()[:4])
        return kernel, dilation, stride, channels, channels, True, block.group(5) or ""
    conv = re.fullmatch(r"conv(\d+)s(\d+)i(\d+)o(\d+)(?:\.(dx|dw))?", name)
    if conv:
        kernel, stride, cin, cout = map(int, conv.groups()[:4])
        return kernel, 1, stride, cin, cout, False, conv.group(5) or ""
    return None


def onednn(a):
    """GFLOP/s of one thread, of oneDNN's convolutions as PyTorch calls them: the depthwise and the pointwise one of a ConvBlock, one
    after the other, without ReLU and moments; CPU time, the least of all rounds."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    layout = {"memory_format": torch.channels_last}
    for name in a.groups:
        group = group_of(name)
        if not group:
            continue
        kernel, dilation, stride, cin, cout, depthwise, kind = group
        side = {16: 32, 32: 16, 64: 8}[cout] if cout in (16, 32, 64) else 32
        convs = [(kernel, dilation, stride, cin, cin if depthwise else cout, cin if depthwise else 1)]
        if depthwise:
            convs.append((1, 1, 1, cin, cout, 1))
        calls, flop, inputs = [], 0.0, side * stride
        for k, d, s, i, o, g in convs:
            x = torch.randn(a.batch, i, inputs, inputs).to(**layout)
            w = torch.randn(o, i // g, k, k).to(**layout)
            dy = torch.randn(a.batch, o, side, side).to(**layout)
            pad, inputs = d * (k // 2), side
            flop += 2.0 * a.batch * side * side * w.numel()
            if kind:
                mask = [kind != "dw", kind != "dx", False]
                calls.append(lambda x=x, w=w, dy=dy, pad=pad, s=s, d=d, g=g, mask=mask: torch.ops.aten.convolution_backward(
                    dy, x, w, None, [s, s], [pad, pad], [d, d], False, [0, 0], g, mask))
            else:
                calls.append(lambda x=x, w=w, pad=pad, s=s, d=d, g=g: torch.mkldnn_convolution(
                    x, w, None, [pad, pad], [s, s], [d, d], g))
        best = math.inf
        for _ in range(a.rounds + 1):
            t = time.thread_time()
            for call in calls:
                call()
            best = min(best, time.thread_time() - t)
        print(json.dumps({"group": name, "gflops": (2 if kind == "grad" else 1) * flop / best / 1e9}), flush=True)


# ---- the command line ----

def read_spec(a):
    if a.spec:
        with open(a.spec) as f:
            return json.load(f)
    return default_spec(a.cells, a.channels, K=a.K, seed=a.spec_seed)


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    sub = ap.add_subparsers(dest="command", required=True)
    fixture = sub.add_parser("fixture", help="one step with all its tensors")
    trajectory = sub.add_parser("fixture-trajectory", help="six steps over all kinds")
    for p in (fixture, trajectory):
        p.add_argument("out")
        p.add_argument("--batch", type=int, default=4)
        p.add_argument("--size", type=int, default=16)
        p.add_argument("--seed", type=int, default=1)
        p.add_argument("--hidden", type=int, default=64)
        p.add_argument("--relu", action="store_true", help="ReLU between the layers of a GeneratingBlock")
    speed = sub.add_parser("bench", help="time one step")
    speed.add_argument("--stage", choices=["train", "search", "cross"], default="train")
    speed.add_argument("--batch", type=int, default=98)
    speed.add_argument("--steps", type=int, default=5)
    speed.add_argument("--warmup", type=int, default=2)
    speed.add_argument("--threads", type=int)
    speed.add_argument("--compile", action="store_true")
    speed.add_argument("--channels-last", action="store_true")
    speed.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    speed.add_argument("--bf16", action="store_true", help="autocast to bfloat16")
    speed.add_argument("--tf32", action="store_true", help="allow TF32 in products")
    speed.add_argument("--serve", action="store_true", help="do N steps for each line N of standard input")
    speed.add_argument("--graph", action="store_true", help="the whole step as one CUDA graph")
    convolutions = sub.add_parser("onednn", help="time oneDNN's convolutions on kernel_bench's groups")
    convolutions.add_argument("groups", nargs="+")
    convolutions.add_argument("--batch", type=int, default=98)
    convolutions.add_argument("--rounds", type=int, default=10)
    spec = sub.add_parser("spec", help="print a model")
    for p in (fixture, trajectory, speed, spec):
        p.add_argument("--cells", type=int, default=8)
        p.add_argument("--channels", type=int, default=16)
        p.add_argument("--K", type=int, default=6)
        p.add_argument("--spec-seed", type=int, default=0)
        p.add_argument("--spec", help="JSON file with cells, channels, classes and intensive")
    sub.add_parser("own", help="write the project's own fixtures").add_argument("folder")
    single = sub.add_parser("float32", help="the error of float32 on fixtures of one step")
    single.add_argument("fixtures", nargs="+")
    single.add_argument("--channels-last", action="store_true", help="PyTorch 2.15 can crash on images of a few channels so")
    a = ap.parse_args()
    if a.command == "spec":
        json.dump(read_spec(a), sys.stdout, indent=1)
        print()
    elif a.command == "own":
        own_fixtures(a.folder)
    elif a.command == "float32":
        for path in a.fixtures:
            float32_errors(path, torch.channels_last if a.channels_last else torch.contiguous_format)
    elif a.command == "bench":
        bench(a)
    elif a.command == "onednn":
        onednn(a)
    else:
        write = step_fixture if a.command == "fixture" else trajectory_fixture
        write(a.out, read_spec(a) | {"hidden": a.hidden, "relu": a.relu}, a.batch, a.size, a.seed)


if __name__ == "__main__":
    main()
