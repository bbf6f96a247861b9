.PHONY: install test lint bench

# PyTorch's CPU build is enough for development; see CONTRIBUTING.md.
install:
	pip install -c constraints.txt -e ".[test]" --config-settings editable_mode=strict

test:
	pytest -n auto --dist loadfile

lint:
	ruff check .
	ruff format --check .
	cd / && mypy --config-file $(CURDIR)/pyproject.toml $(addprefix -p eightfold.,common kernels engine sandbox solver demo)

bench:
	python benchmarks/batching.py
	python benchmarks/sandbox.py
