"""The runs of `notebook.py`: the notebook under several conditions, and the rehearsal."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
from support.kaggle import notebook_hooks
from support.kaggle.kaggle_environment import MODEL, TOKENIZER, KaggleEnvironment, write_problems
from support.kaggle.notebook_kernel import NotebookKernel, end_process_group

from eightfold.solver.problem_set import Problem

MEMORY_HOG = Path(__file__).with_name("gpu_memory_hog.py")
HOOKS = {"plain": notebook_hooks.PLAIN_PYTORCH, "float32": notebook_hooks.FLOAT32}


@dataclass
class NotebookRun:
    """One run and its result; times are in seconds from the start of its process.

    Attributes:
        name: the run's name on the command line, or "large".
        problems: the problems that it is asked.
        deadline: the time at which it is cut off, of `time.monotonic()`.
        began: the time at which it began, of `time.monotonic()`.
        right: problems answered rightly.
        fallbacks: problems that got the fallback answer.
        ready: when the solver was first ready.
        seconds: how long the run took.
        gpu: most MiB in use on a GPU.
        whole: True if the submission has a valid answer to every problem.
        cut: True if the run did not end by itself.
        error: what went wrong.
    """

    name: str
    problems: list[Problem]
    deadline: float
    began: float = field(default_factory=time.monotonic)
    right: int = 0
    fallbacks: int = 0
    ready: float | None = None
    seconds: float = 0.0
    gpu: int = 0
    whole: bool = False
    cut: bool = True
    error: str = ""

    def on_text(self, text: str) -> None:
        """Print what the process wrote, with the time, and note when the solver is first ready."""
        now = time.monotonic() - self.began
        if self.ready is None and "solver ready after" in text:
            self.ready = round(now, 1)
        for line in text.rstrip().splitlines():
            say(f"  {now:6.1f} s | {line[:900]}")

    def result(self) -> dict[str, Any]:
        """Return the run's part of the last line."""
        return {
            **{"run": self.name, "right": self.right, "of": len(self.problems)},
            **{"fallbacks": self.fallbacks, "ready_s": self.ready, "seconds": self.seconds},
            **{"gpu_mib": self.gpu, "submission": self.whole, "cut": self.cut, "error": self.error},
        }


class GpuMemoryMonitor(threading.Thread):
    """Records the most MiB in use on a GPU, by any process, that nvidia-smi reports."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most, self.ended = 0, threading.Event()

    def run(self) -> None:
        gpu = has_gpu()
        while gpu and not self.ended.is_set():
            used = nvidia_smi("--query-gpu=memory.used", "--format=csv,noheader,nounits")
            self.most = max([self.most, *map(int, re.findall(r"\d+", used))])
            self.ended.wait(1)


class MemoryHog:
    """A process that holds the GPU's memory; see `gpu_memory_hog.py`.

    Args:
        leaves: MiB to leave free, at first and after each release.
    """

    def __init__(self, *leaves: int) -> None:
        command = [sys.executable, str(MEMORY_HOG), *map(str, leaves)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, text=True, process_group=0
        )

    def report(self) -> str:
        """Return the next line that the process prints, once it has taken or released memory."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def release_more(self) -> None:
        """Let the process release memory."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()


def say(text: str) -> None:
    print(text, flush=True)


def nvidia_smi(*options: str) -> str:
    """Return what nvidia-smi prints, or "" if it is missing or fails."""
    try:
        command = ["nvidia-smi", *options]
        return subprocess.run(command, capture_output=True, text=True, timeout=20).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def has_gpu() -> bool:
    return "UUID" in nvidia_smi("-L")


def run_notebook(
    environment: KaggleEnvironment,
    run: NotebookRun,
    folder: Path,
    hook: str = "",
    on_text: Callable[[str], None] | None = None,
) -> None:
    """Run the notebook's cells in order.

    Args:
        environment: the environment.
        run: receives the result.
        folder: the working folder.
        hook: code to run after the cell that installs the bundle.
        on_text: called with each text that the cells write.
    """
    competition = environment.base / "input" / "competitions" / "ai-mathematical-olympiad"
    write_problems(competition / "test.csv", run.problems, answers=False)
    cells = json.loads((environment.bundle / "aimo3.ipynb").read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    code[1:1] = [hook] if hook else []
    code[-1:-1] = [notebook_hooks.PRINT_SESSION]

    def pass_on(text: str) -> None:
        run.on_text(text)
        if on_text is not None:
            on_text(text)

    run.began = time.monotonic()
    kernel = NotebookKernel(environment, folder)
    try:
        kernel.wait_ready(run.deadline)
        say(f"  the Jupyter kernel answers after {time.monotonic() - run.began:.1f} s")
        for text in code:
            began, first = time.monotonic(), text.strip().splitlines()[0]
            error = kernel.run_cell(text, run.deadline, pass_on)
            run.error = run.error or error
            say(f"  cell {first[:50]!r}: {time.monotonic() - began:.1f} s {error or 'ok'}")
    finally:
        kernel.close()
        log = (folder / "kernel.log").read_text().strip()
        say(f"  the Jupyter kernel's own output: {log[-1500:] or 'none'}")


def run_with_memory_taken(environment: KaggleEnvironment, run: NotebookRun, folder: Path) -> None:
    """Run the notebook while another process holds the GPU's memory.

    At first 300 MiB are free, too little for a CUDA context; after a fallback 900 MiB, too little
    for the engine or nearly so; after another fallback, all. Without a GPU, this is simulated.
    """
    hog = MemoryHog(300, 900) if has_gpu() else None
    if hog is not None:
        say(f"  another process: {hog.report()}")
    else:
        (folder / "full").touch()
    seen: list[str] = []

    def on_text(text: str) -> None:
        if "(fallback" not in text or len(seen) == 2:
            return
        seen.append(text)
        if hog is not None:
            hog.release_more()
            say(f"  --- {hog.report()} ---")
        elif len(seen) == 2:
            (folder / "full").unlink()

    try:
        hook = "" if hog else notebook_hooks.OUT_OF_MEMORY
        run_notebook(environment, run, folder, hook, on_text)
        run.error = run.error or ("" if len(seen) == 2 else "fewer than two fallbacks")
    finally:
        if hog is not None:
            end_process_group(hog.process)


def run_rehearsal(environment: KaggleEnvironment, run: NotebookRun, folder: Path) -> None:
    """Run `eightfold kaggle rehearse`, after installing the bundle if no notebook has done so."""
    install: list[str | Path] = ["-m", "pip", "install", "--quiet", "--no-index"]
    install += ["--find-links", environment.bundle, "--no-deps", "--require-hashes"]
    install += ["-r", environment.bundle / "eightfold.lock"]
    variables = environment.variables()
    subprocess.run([environment.python, *install], env=variables, check=True)
    write_problems(folder / "problems.csv", run.problems, answers=True)
    program = environment.python.parent / "eightfold"
    command: list[str | Path] = [
        program,
        "kaggle",
        "rehearse",
        "problems.csv",
        "--json",
        "--model",
        MODEL,
    ]
    run.began = time.monotonic()
    with open(folder / "said", "w") as out, open(folder / "said") as said:
        process = subprocess.Popen(
            command, cwd=folder, env=variables, process_group=0, stdout=out, stderr=out
        )
        try:
            while (code := process.poll()) is None:
                run.on_text(said.read())
                if time.monotonic() > run.deadline:
                    raise TimeoutError
                time.sleep(0.1)
        finally:
            end_process_group(process)
            run.on_text(said.read())
    run.error = f"exit code {code}" if code else ""


def run_large(environment: KaggleEnvironment, run: NotebookRun, folder: Path, gb: float) -> None:
    """Run the notebook with a model of `gb` GB of random weights."""
    from support.loading.checkpoint_writer import write_checkpoint

    began = time.monotonic()
    model = environment.base / "input" / "models" / "somebody" / "random" / "1"
    size = write_checkpoint(model, gb)
    for name in TOKENIZER:
        shutil.copy(MODEL / name, model)
    say(f"  wrote {size / 1e9:.1f} GB in {time.monotonic() - began:.0f} s")
    run_notebook(environment, run, folder, notebook_hooks.SHORT_PROBLEMS)


def check_answers(run: NotebookRun, folder: Path) -> None:
    """Compare the answers with the known ones, and check that the submission is whole."""
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


def perform(environment: KaggleEnvironment, run: NotebookRun, gb: float | None) -> None:
    """Do one run; whatever goes wrong is noted in it.

    Args:
        environment: the environment.
        run: the run, which receives the result.
        gb: size of the model of the run "large".
    """
    say(f"\n=== {run.name} ===")
    folder = environment.base / "working" / run.name
    folder.mkdir(parents=True)
    memory = GpuMemoryMonitor()
    memory.start()
    try:
        if run.name == "large":
            run_large(environment, run, folder, gb or 0.0)
        elif run.name == "memory":
            run_with_memory_taken(environment, run, folder)
        elif run.name == "rehearsal":
            run_rehearsal(environment, run, folder)
        else:
            run_notebook(environment, run, folder, HOOKS.get(run.name, ""))
        run.cut = False
    except TimeoutError:
        run.error = "out of time"
    except Exception as error:  # the other runs still take place
        run.cut, run.error = False, f"{type(error).__name__}: {error}"[:300]
    finally:
        run.seconds = round(time.monotonic() - run.began, 1)
        memory.ended.set()
        run.gpu = memory.most
        check_answers(run, folder)
