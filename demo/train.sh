#!/bin/sh
# Train from a clone without installing the package. Parts that are not imported, such as the
# kernels, need not have their dependencies. Usage: demo/train.sh [options of eightfold.demo.train]
set -e
root=$(cd "$(dirname "$0")/.." && pwd)
space=$(mktemp -d)
trap 'rm -rf "$space"' EXIT INT TERM
mkdir "$space/eightfold"
for marker in "$root"/*/py.typed; do
    part=$(dirname "$marker")
    ln -s "$part" "$space/eightfold/$(basename "$part")"
done
export PYTHONPATH="$space" PYTHONUNBUFFERED=1
python3 -m eightfold.demo.train "$@"
