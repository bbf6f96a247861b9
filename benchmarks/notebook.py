"""Do what a Kaggle user does, on any machine: install the bundle afresh, then run its notebook.

    python benchmarks/notebook.py BUNDLE PROBLEMS

The environment stands for Kaggle's image: it sees this Python's packages, and those of --site, but
not eightfold. The notebook's cells run in a Jupyter kernel of that environment, where the first one
installs the bundle. The inputs lie as they do on Kaggle, with the bundled model and one that is far
too large. The local gateway asks the problems.

On a GPU the notebook also runs with plain PyTorch, in float32, and while another process holds the
memory until two problems got the fallback; without a GPU, the last is simulated. --large uses
random weights in Gemma 4 31B's shapes instead. Their answers never end, so the run shows sizes, the
start-up time, and that deadlines are kept.

The last line is JSON. The exit code is 1 if a run was cut off or left no whole submission.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from support.kaggle.kaggle_environment import make_environment, make_inputs
from support.kaggle.notebook_runs import NotebookRun, has_gpu, perform, say

from eightfold.solver import SolverError
from eightfold.solver.problem_set import load_problems

NAMES = ("notebook", "plain", "memory", "rehearsal", "float32")
WITHOUT_GPU = ("notebook", "memory", "rehearsal")  # on a CPU, the others do not differ from these


def parse_options() -> argparse.Namespace:
    """Return the command line's options; exit with code 2 and one sentence if they are wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("bundle", type=Path, help="folder that eightfold bundle made")
    parser.add_argument("problems", help=".csv or .jsonl file with id, problem and answer")
    parser.add_argument("--site", type=Path, metavar="DIR", help="more packages of the image")
    parser.add_argument(
        "--work",
        type=Path,
        metavar="DIR",
        help="working folder to keep (default: a temporary one)",
    )
    parser.add_argument(
        "--seconds", type=float, default=600.0, help="time for all runs (%(default)g)"
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--only", metavar="RUN,RUN", help=f"runs to make, out of {', '.join(NAMES)}")
    which.add_argument(
        "--large", type=float, metavar="GB", help="run with random weights of this size only"
    )
    options = parser.parse_args()
    for name in ("eightfold.lock", "aimo3.ipynb"):
        if not (options.bundle / name).is_file():
            parser.error(f"{options.bundle} has no {name}; make it with eightfold bundle --out")
    if options.site is not None and not options.site.is_dir():
        parser.error(f"there is no folder {options.site}")
    if options.work is not None and options.work.exists():
        parser.error(f"{options.work} exists; name a folder that may be created")
    wanted = NAMES if options.only is None else options.only.split(",")
    if not set(wanted) <= set(NAMES):
        parser.error(f"--only takes {', '.join(NAMES)}, separated by commas")
    if options.large is not None and not 0 < options.large < 1000:
        parser.error(f"--large must be above 0 and below 1000 GB, not {options.large}")
    options.runs = ["large"] if options.large else [name for name in NAMES if name in wanted]
    try:
        options.problems = load_problems(options.problems)
    except SolverError as error:
        parser.error(str(error))
    return options


def print_table(runs: list[NotebookRun]) -> None:
    say(f"\n{'run':10} {'right':>7} {'fallbacks':>9} {'ready':>7} {'whole run':>9} {'GPU':>9}")
    for run in runs:
        ready = "-" if run.ready is None else f"{run.ready:.1f} s"
        say(
            f"{run.name:10} {run.right:2} of {len(run.problems)} {run.fallbacks:9} {ready:>7} "
            f"{run.seconds:7.1f} s {run.gpu:5} MiB  {'CUT ' * run.cut}{run.error}"
        )
    say("limit of ready: 900 s, by when the competition's server must be up")


def main() -> int:
    options = parse_options()
    deadline = time.monotonic() + options.seconds
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(124))  # so that processes are ended
    base = (options.work or Path(tempfile.mkdtemp())).resolve()
    runs: list[NotebookRun] = []
    try:
        base.mkdir(parents=True, exist_ok=True)
        base.chmod(0o755)  # the sandbox's kernels may run as another user
        site = options.site and options.site.resolve()
        environment = make_environment(base, options.bundle.resolve(), site)
        make_inputs(environment)
        for name in options.runs:
            if name != "large" and name not in WITHOUT_GPU and not has_gpu():
                say(f"\nno GPU, so not run: {name}")
                continue
            count = {"notebook": len(options.problems), "float32": 3, "large": 3}.get(name, 5)
            runs.append(NotebookRun(name, options.problems[:count], deadline))
            perform(environment, runs[-1], options.large)
    finally:
        if options.work is None:
            shutil.rmtree(base, ignore_errors=True)
        print_table(runs)
        say(json.dumps({"runs": [run.result() for run in runs]}))
    return int(any(run.cut or not run.whole for run in runs))


if __name__ == "__main__":
    sys.exit(main())
