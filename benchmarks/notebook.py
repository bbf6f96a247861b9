"""What a Kaggle user does, on any machine: the bundle into a fresh environment, then its notebook.

    python benchmarks/notebook.py BUNDLE PROBLEMS

The environment sees this Python's packages, and those of --site, less our own: an image. The
notebook's cells run in a Jupyter kernel of it, where the first installs the bundle; inputs lie as
on Kaggle, with the bundled model and one far too large; the local gateway asks. On a GPU also by
plain PyTorch, in float32, and with the memory held by another process until two problems got the
fallback; without one the last is acted. --large runs random weights of Gemma 4 31B's shapes
instead: they never end an answer, and show sizes, start-up and that deadlines are kept.

The last line is JSON; the exit code 1 where a run was cut or left no whole submission.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
from support.kaggle_image import MODEL, TOKENIZER, Image, make_image, make_inputs, write_table
from support.notebook_kernel import Kernel, kill

from eightfold.solver import SolverError
from eightfold.solver.problem_set import Problem, load_problems

NAMES = ("notebook", "plain", "memory", "rehearsal", "float32")
WITHOUT_GPU = ("notebook", "memory", "rehearsal")  # the others are the same on a CPU
LOOK = """
print("eightfold is that of", kaggle.__file__)
_engine = session.solver.loop.engine if session.solver else None
if _engine is not None:
    print("engine:", _engine.device, _engine.config, _engine.stats())
print("session:", session.served, "served", session.fallbacks, "fallbacks", session.rebuilds, "new")
"""
PLAIN = """
# As on a GPU of another generation: where those that run the kernels begin is all that differs.
import eightfold.kernels.supported_gpus as _devices
_devices.MIN_CAPABILITY = 99.0
"""
FLOAT32 = PLAIN + "_devices.BFLOAT16_MIN_CAPABILITY = 99.0\n"
FULL = """
# Without a GPU: what an engine without memory says, as long as the file is there.
import os, pathlib
os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE")  # must be set before torch comes
import torch, eightfold.engine.engine as _module
def _full(name, _real=_module.device_named):
    if pathlib.Path("full").exists():
        raise torch.OutOfMemoryError("CUDA out of memory (acted)")
    return _real(name)
_module.device_named = _full
"""
SHORT = """
# 25 s a problem, since none of these weights' answers ends.
from eightfold.solver import kaggle as _kaggle
from eightfold.solver.budget import BudgetConfig as _Budget
def _configure(root, _real=_kaggle.configure, **changes):
    return _real(root, budget=_Budget(floor=25, cap=25), **changes)
_kaggle.configure = _configure
"""


@dataclass
class Run:
    """One run and what came of it; times in seconds from the start of its process."""

    name: str
    problems: list[Problem]
    stop: float
    began: float = field(default_factory=time.monotonic)
    right: int = 0
    fallbacks: int = 0
    ready: float | None = None
    seconds: float = 0.0
    gpu: int = 0
    whole: bool = False
    cut: bool = True
    error: str = ""

    def hear(self, text: str) -> None:
        """Prints what the process said, with the time; notes when the solver was first ready."""
        now = time.monotonic() - self.began
        if self.ready is None and "solver ready after" in text:
            self.ready = round(now, 1)
        for line in text.rstrip().splitlines():
            say(f"  {now:6.1f} s | {line[:900]}")

    def result(self) -> dict[str, Any]:
        return {
            **{"run": self.name, "right": self.right, "of": len(self.problems)},
            **{"fallbacks": self.fallbacks, "ready_s": self.ready, "seconds": self.seconds},
            **{"gpu_mib": self.gpu, "submission": self.whole, "cut": self.cut, "error": self.error},
        }


class Memory(threading.Thread):
    """The most MiB in use on a GPU that nvidia-smi saw, by whomever."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most, self.ended = 0, threading.Event()

    def run(self) -> None:
        gpu = has_gpu()
        while gpu and not self.ended.is_set():
            used = nvidia_smi("--query-gpu=memory.used", "--format=csv,noheader,nounits")
            self.most = max([self.most, *map(int, re.findall(r"\d+", used))])
            self.ended.wait(1)


def say(text: str) -> None:
    print(text, flush=True)


def nvidia_smi(*options: str) -> str:
    """What it prints; "" where it is missing or fails."""
    try:
        command = ["nvidia-smi", *options]
        return subprocess.run(command, capture_output=True, text=True, timeout=20).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def has_gpu() -> bool:
    return "UUID" in nvidia_smi("-L")


def notebook(image: Image, run: Run, folder: Path, hook: str = "", on_text: Any = None) -> None:
    """The notebook's cells in order; `hook` runs after the one that installs."""
    competition = image.base / "input" / "competitions" / "ai-mathematical-olympiad"
    write_table(competition / "test.csv", run.problems, answers=False)
    cells = json.loads((image.bundle / "aimo3.ipynb").read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    code[1:1] = [hook] if hook else []
    code[-1:-1] = [LOOK]

    def hear(text: str) -> None:
        run.hear(text)
        if on_text is not None:
            on_text(text)

    run.began = time.monotonic()
    kernel = Kernel(image, folder)
    try:
        kernel.wait(run.stop)
        say(f"  the Jupyter kernel answers after {time.monotonic() - run.began:.1f} s")
        for text in code:
            began, first = time.monotonic(), text.strip().splitlines()[0]
            wrong = kernel.run(text, run.stop, hear)
            run.error = run.error or wrong
            say(f"  cell {first[:50]!r}: {time.monotonic() - began:.1f} s {wrong or 'ok'}")
    finally:
        kernel.end()
        said = (folder / "kernel.log").read_text().strip()
        say(f"  the Jupyter kernel's own output: {said[-1500:] or 'none'}")


def memory_taken(image: Image, run: Run, folder: Path) -> None:
    """At first 300 MiB are free, too little for a CUDA context; after a fallback 900, too little
    for the engine or nearly so; after another, all."""
    hog: subprocess.Popen[str] | None = None
    if has_gpu():
        command = [
            sys.executable,
            str(Path(__file__).with_name("support") / "gpu_memory_hog.py"),
            "300",
            "900",
        ]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        hog = subprocess.Popen(command, text=True, process_group=0, **pipes)
        say(f"  another process: {hog.stdout.readline().strip()}")
    else:
        (folder / "full").touch()
    seen: list[str] = []

    def on_text(text: str) -> None:
        if "(fallback" not in text or len(seen) == 2:
            return
        seen.append(text)
        if hog is not None:
            hog.stdin.write("\n")
            hog.stdin.flush()
            say(f"  --- {hog.stdout.readline().strip()} ---")
        elif len(seen) == 2:
            (folder / "full").unlink()

    try:
        notebook(image, run, folder, "" if hog else FULL, on_text)
        run.error = run.error or ("" if len(seen) == 2 else "fewer than two fallbacks")
    finally:
        if hog is not None:
            kill(hog)


def rehearsal(image: Image, run: Run, folder: Path) -> None:
    """`eightfold kaggle rehearse`, installed from the bundle where no notebook has done that."""
    install = ["-m", "pip", "install", "--quiet", "--no-index", "--find-links", image.bundle]
    install += ["--no-deps", "--require-hashes", "-r", image.bundle / "eightfold.lock"]
    subprocess.run([image.python, *install], env=image.environment(), check=True)
    write_table(folder / "problems.csv", run.problems, answers=True)
    command = [image.python.parent / "eightfold", "kaggle", "rehearse", "problems.csv", "--json"]
    command += ["--model", MODEL]
    run.began = time.monotonic()
    with open(folder / "said", "w") as out, open(folder / "said") as said:
        process = subprocess.Popen(
            command, cwd=folder, env=image.environment(), process_group=0, stdout=out, stderr=out
        )
        try:
            while (code := process.poll()) is None:
                run.hear(said.read())
                if time.monotonic() > run.stop:
                    raise TimeoutError
                time.sleep(0.1)
        finally:
            kill(process)
            run.hear(said.read())
    run.error = f"exit code {code}" if code else ""


def large(image: Image, run: Run, folder: Path, gb: float) -> None:
    from support.random_checkpoint import write_checkpoint

    began = time.monotonic()
    model = image.base / "input" / "models" / "somebody" / "random" / "1"
    size = write_checkpoint(model, gb)
    for name in TOKENIZER:
        shutil.copy(MODEL / name, model)
    say(f"  wrote {size / 1e9:.1f} GB in {time.monotonic() - began:.0f} s")
    notebook(image, run, folder, SHORT)


def count(run: Run, folder: Path) -> None:
    """Answers beside the known ones, and whether the submission is whole."""
    known = {problem.id: problem.answer for problem in run.problems}
    log = folder / "kaggle.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    for line in lines:
        right = "right" if line["answer"] == known.get(line["id"]) else "WRONG"
        faults = "; ".join(line["faults"])[:400]
        say(
            f"  {line['id']:28} {line['answer']:6} {right} {line['seconds']:6.2f} s  votes "
            f"{line['votes']}  {line['note']}  {faults}"
        )
    run.fallbacks = sum(line["fallback"] for line in lines)
    table = folder / "submission.parquet"
    answers = dict(pl.read_parquet(table).rows()) if table.exists() else {}
    run.right = sum(answers.get(name) == answer for name, answer in known.items())
    in_range = all(isinstance(a, int) and 0 <= a <= 99999 for a in answers.values())
    run.whole = answers.keys() == known.keys() and in_range


def perform(image: Image, run: Run, gb: float | None) -> None:
    """Does one run; what goes wrong is noted in it."""
    say(f"\n=== {run.name} ===")
    folder = image.base / "working" / run.name
    folder.mkdir(parents=True)
    memory = Memory()
    memory.start()
    try:
        if run.name == "large":
            large(image, run, folder, gb or 0.0)
        elif run.name == "memory":
            memory_taken(image, run, folder)
        elif run.name == "rehearsal":
            rehearsal(image, run, folder)
        else:
            notebook(image, run, folder, {"plain": PLAIN, "float32": FLOAT32}.get(run.name, ""))
        run.cut = False
    except TimeoutError:
        run.error = "out of time"
    except Exception as error:  # the other runs are made all the same
        run.cut, run.error = False, f"{type(error).__name__}: {error}"[:300]
    finally:
        run.seconds = round(time.monotonic() - run.began, 1)
        memory.ended.set()
        run.gpu = memory.most
        count(run, folder)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("bundle", type=Path, help="made by eightfold bundle for this Python")
    parser.add_argument("problems", help=".csv or .jsonl with id, problem, answer")
    parser.add_argument("--site", type=Path, metavar="DIR", help="more packages of the image")
    parser.add_argument("--work", type=Path, metavar="DIR", help="kept; default: a temporary one")
    parser.add_argument("--seconds", type=float, default=600.0, help="for all (%(default)g)")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--only", metavar="RUN,RUN", help=f"of {', '.join(NAMES)}")
    which.add_argument("--large", type=float, metavar="GB", help="random weights, this run alone")
    options = parser.parse_args()
    for name in ("eightfold.lock", "aimo3.ipynb"):
        if not (options.bundle / name).is_file():
            parser.error(f"{options.bundle} has no {name}; make it by eightfold bundle --out")
    if options.site is not None and not options.site.is_dir():
        parser.error(f"there is no folder {options.site}")
    if options.work is not None and options.work.exists():
        parser.error(f"{options.work} exists; name a folder that may be made")
    wanted = NAMES if options.only is None else options.only.split(",")
    if not set(wanted) <= set(NAMES):
        parser.error(f"--only takes {', '.join(NAMES)}, divided by commas")
    if options.large is not None and not 0 < options.large < 1000:
        parser.error(f"--large takes GB on the disk, above 0 and below 1000, not {options.large}")
    options.runs = ["large"] if options.large else [name for name in NAMES if name in wanted]
    try:
        options.problems = load_problems(options.problems)
    except SolverError as error:
        parser.error(str(error))
    return options


def main() -> int:
    options = arguments()
    end = time.monotonic() + options.seconds
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(124))  # so that processes are ended
    base = (options.work or Path(tempfile.mkdtemp())).resolve()
    runs: list[Run] = []
    try:
        base.mkdir(parents=True, exist_ok=True)
        base.chmod(0o755)  # kernels of the sandbox may run as another user
        image = make_image(base, options.bundle.resolve(), options.site and options.site.resolve())
        make_inputs(image)
        for name in options.runs:
            if name != "large" and name not in WITHOUT_GPU and not has_gpu():
                say(f"\nno GPU, so not run: {name}")
                continue
            first = {"notebook": len(options.problems), "float32": 3, "large": 3}.get(name, 5)
            runs.append(Run(name, options.problems[:first], end))
            perform(image, runs[-1], options.large)
    finally:
        if options.work is None:
            shutil.rmtree(base, ignore_errors=True)
        say(f"\n{'run':10} {'right':>7} {'fallbacks':>9} {'ready':>7} {'whole run':>9} {'GPU':>9}")
        for run in runs:
            ready = "-" if run.ready is None else f"{run.ready:.1f} s"
            say(
                f"{run.name:10} {run.right:2} of {len(run.problems)} {run.fallbacks:9} {ready:>7} "
                f"{run.seconds:7.1f} s {run.gpu:5} MiB  {'CUT ' * run.cut}{run.error}"
            )
        say("limit of ready: 900 s, by when the competition's server must be up")
        say(json.dumps({"runs": [run.result() for run in runs]}))
    return int(any(run.cut or not run.whole for run in runs))


if __name__ == "__main__":
    sys.exit(main())
