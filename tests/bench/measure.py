"""What the benchmarks share: runs of programs one after another on a machine that others may use, and tables of what came out.

Ways to do the same are measured in turn, round after round, and compared by their medians, so that a neighbour disturbs all alike.
Before each run the machine must have been idle for a moment; a run beside which something else was busy is done again. How often that
happened is a line under each table: figures of a machine that was never idle are wrong, and the table says so.
"""
import json, os, statistics, subprocess, sys, time

TICK = os.sysconf("SC_CLK_TCK")
TOP = os.path.realpath(os.path.join(os.path.dirname(__file__), "..", ".."))
WAY_OF_RUNNING = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}


def busy_ticks():
    """Ticks in which any CPU did something, and all ticks, since the machine started."""
    with open("/proc/stat") as f:
        ticks = [int(t) for t in f.readline().split()[1:9]]
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)


class Machine:
    """Watches what else runs. `patience`: seconds to wait for an idle machine, once a run; `tries`: of a disturbed run."""

    def __init__(self, patience=20, tries=3):
        self.patience, self.tries = patience, tries
        self.runs = self.disturbed = 0
        self.others = 0.0  # the largest number of CPUs that something else kept busy beside a run that was counted

    def wait_until_idle(self):
        end = time.monotonic() + self.patience
        while True:
            busy, whole = busy_ticks()
            time.sleep(0.3)
            now_busy, now = busy_ticks()
            if now_busy - busy <= 0.1 * (now - whole) or time.monotonic() > end:
                return

    def run(self, work):
        """The result of work(), which returns (result, CPU seconds of its own)."""
        for attempt in range(self.tries):
            self.wait_until_idle()
            busy, start = busy_ticks()[0], time.monotonic()
            result, own = work()
            seconds = max(time.monotonic() - start, 1e-3)
            others = (busy_ticks()[0] - busy) / TICK - own
            quiet = others <= 0.05 * own + 0.1
            if quiet or attempt == self.tries - 1:
                self.runs += 1
                self.disturbed += not quiet
                self.others = max(self.others, others / seconds)
                return result

    def note(self):
        if not self.disturbed:
            return f"Nothing else was busy during these {self.runs} runs."
        return (f"WRONG FIGURES: {self.disturbed} of {self.runs} runs were disturbed, by up to {self.others:.1f} busy CPUs, and "
                f"stayed so in {self.tries} tries.")


def command(argv, **settings):
    """Work for Machine.run: a program that prints one JSON object, or one a line (then a list)."""
    def work():
        before = os.times()
        done = subprocess.run(argv, **WAY_OF_RUNNING, **settings)
        after = os.times()
        if done.returncode:
            raise RuntimeError(f"{' '.join(argv)}: status {done.returncode}: {done.stderr.strip()[-400:]}")
        own = after.children_user - before.children_user + after.children_system - before.children_system
        lines = [json.loads(line) for line in done.stdout.splitlines() if line.strip()]
        return (lines[0] if len(lines) == 1 else lines), own
    return work


class Peer:
    """A peer that stays: it compiles once, then does some steps whenever it is asked to."""

    def __init__(self, name, argv):
        self.name = name
        self.errors = open(os.devnull, "w")
        self.process = subprocess.Popen([*argv, "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors,
                                        text=True)

    def cpu(self):
        with open(f"/proc/{self.process.pid}/stat") as f:
            fields = f.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def steps(self, count):
        def work():
            before = self.cpu()
            self.process.stdin.write(f"{count}\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
            if not line:
                raise RuntimeError(f"{self.name} ended with status {self.process.wait()}; run it by hand to see why")
            return json.loads(line), self.cpu() - before
        return work

    def stop(self):
        try:
            self.process.stdin.close()
            self.process.wait(timeout=20)
        except (OSError, subprocess.TimeoutExpired):
            self.process.kill()
        self.errors.close()


def find_peer(python):
    """Whether `python` has PyTorch; else a sentence on how to get it."""
    try:
        done = subprocess.run([python, "-c", "import torch; print(torch.__version__)"], **WAY_OF_RUNNING)
    except OSError as e:
        return None, f"PyTorch was not measured: {python}: {e.strerror}. Give a Python that has it by --python or $PYTHON."
    if done.returncode:
        return None, (f"PyTorch was not measured: {python} has none. `{python} -m pip install torch` in a virtual environment, then "
                      "give its Python by --python or $PYTHON.")
    return done.stdout.strip(), None


def median(values):
    return statistics.median(values)


def cpu_name():
    with open("/proc/cpuinfo") as f:
        names = [line.partition(":")[2].strip() for line in f if line.startswith("model name")]
    return f"{names[0] if names else 'unknown'}, {len(os.sched_getaffinity(0))} CPUs"


def format_cell(value):
    if value is None:
        return "-"
    return value if isinstance(value, str) else f"{value:.0f}" if abs(value) >= 1000 else f"{value:.2f}"


def table(columns, rows):
    cells = [columns] + [[format_cell(value) for value in row] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    return "\n".join("  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths))) for row in cells)


class Report:
    """Tables of one benchmark: to the terminal at once, to FOLDER/NAME.txt and FOLDER/NAME.json after each."""

    def __init__(self, folder, name, about):
        self.path = os.path.join(folder, name)
        os.makedirs(folder, exist_ok=True)
        self.text = [f"{name}, {time.strftime('%Y-%m-%d %H:%M')}, {cpu_name()}"]
        self.data = {"benchmark": name, "time": time.strftime("%Y-%m-%dT%H:%M:%S"), "cpu": cpu_name(), "settings": about, "tables": []}
        print(self.text[0], flush=True)

    def add(self, title, columns, rows, notes=()):
        notes = [n for n in notes if n]
        self.text.append("\n".join(["", title, "", table(columns, rows), *notes]))
        self.data["tables"].append({"title": title, "rows": [dict(zip(columns, row)) for row in rows], "notes": notes})
        print(self.text[-1], flush=True)
        self.write()

    def say(self, line):
        self.text.append("\n" + line)
        self.data.setdefault("notes", []).append(line)
        print("\n" + line, flush=True)
        self.write()

    def write(self):
        with open(self.path + ".txt", "w") as f:
            f.write("\n".join(self.text) + "\n")
        with open(self.path + ".json", "w") as f:
            json.dump(self.data, f, indent=1)


def add_options(parser, rounds):
    parser.add_argument("--adwp", default=os.environ.get("ADWP", os.path.join(TOP, "build", "adwp")))
    parser.add_argument("--python", default=os.environ.get("PYTHON", sys.executable), help="a Python that has PyTorch")
    parser.add_argument("--out", default=os.path.join(TOP, "build", "bench"), help="the folder of the tables")
    parser.add_argument("--rounds", type=int, default=rounds, help="repetitions, each of all ways in turn")
    parser.add_argument("--patience", type=float, default=20, help="seconds to wait for an idle machine before each run")
