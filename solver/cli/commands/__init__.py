"""One module for each command of the command line: `add_parser(subparsers)` and `run(options)`."""

from . import (
    budget_command,
    bundle_command,
    evaluate_command,
    export_command,
    kaggle_command,
    preload_command,
    replay_command,
    report_command,
    sandbox_command,
    serve_command,
    solve_command,
)

COMMANDS = (
    solve_command,
    evaluate_command,
    replay_command,
    report_command,
    export_command,
    budget_command,
    serve_command,
    sandbox_command,
    preload_command,
    bundle_command,
    kaggle_command,
)
"""In the order in which `eightfold --help` lists them."""
