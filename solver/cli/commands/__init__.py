"""One module for each command of the command line: `add_parser(commands)` and `run(options)`."""
