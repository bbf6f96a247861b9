#!/bin/sh
# Trains on a machine that holds the repository but not its dependencies for kernels: only the modules that
# training needs are put into the namespace. Usage: demo/train.sh [options of eightfold.demo.train]
set -e
here=$(cd "$(dirname "$0")/.." && pwd)
space=$(mktemp -d)
trap 'rm -rf "$space"' EXIT INT TERM
mkdir -p "$space/eightfold/sandbox" "$space/eightfold/solver"
ln -s "$here/demo" "$space/eightfold/demo"
for file in inprocess output preamble; do
    ln -s "$here/sandbox/$file.py" "$space/eightfold/sandbox/$file.py"
done
for file in calls fenced framing gemma4 hermes plaintext prompts protocol; do
    ln -s "$here/solver/$file.py" "$space/eightfold/solver/$file.py"
done
export PYTHONPATH="$space" PYTHONUNBUFFERED=1
python3 -m eightfold.demo.train "$@"
