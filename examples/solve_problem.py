"""Solve one problem with eight attempts and a vote.

    python examples/solve_problem.py
    python examples/solve_problem.py --model FOLDER "What is the sum of the first 100 primes?"

Without `--model` the bundled model runs, which knows only the kinds of problems it was trained on.
"""

import argparse

from eightfold.solver import Solver, SolverConfig

PROBLEM = "What is the remainder when $5^{8985}$ is divided by 66?"


def main() -> None:
    parser = argparse.ArgumentParser(description="Solve one problem with eight attempts.")
    parser.add_argument("problem", nargs="?", default=PROBLEM)
    parser.add_argument("--model", help="a Hugging Face model folder (default: the bundled model)")
    options = parser.parse_args()

    with Solver(SolverConfig(model=options.model)) as solver:
        result = solver.solve(options.problem)

    print(f"answer: {result.answer}")
    print(f"votes: {result.votes}")
    print(f"{result.tokens} tokens and {result.calls} Python calls in {result.seconds:.1f} s")
    for attempt in result.attempts:
        print(f"attempt {attempt['attempt']}: {attempt['answer']} ({attempt['ending']})")


if __name__ == "__main__":
    main()
