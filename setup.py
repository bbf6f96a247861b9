"""Map the top-level folders into the namespace package ``eightfold``.

The folders carry plain names (``engine``, ``kernels``, ...) in the repository. Installed under
those they would collide with other distributions (Hugging Face's ``kernels``, for one), so each
becomes ``eightfold.<folder>``. There is no ``eightfold/__init__.py``: it is a namespace package.
"""

from pathlib import Path

from setuptools import find_packages, setup

PARTS = ("common", "kernels", "engine", "sandbox", "solver", "demo")
PACKAGES = {
    f"eightfold.{name}": name.replace(".", "/")
    for part in PARTS
    for name in (part, *(f"{part}.{sub}" for sub in find_packages(part)))
}
# Patterns hold in nested folders too, so that a new folder is shipped without a change here.
KINDS = ("cu", "cuh", "json", "jsonl.gz", "jinja", "txt", "md", "html", "css", "js")
DATA = {f"eightfold.{part}": ["py.typed", *(f"**/*.{kind}" for kind in KINDS)] for part in PARTS}
DATA["eightfold.demo"] += ["model/*", "model/drafter/*"]

setup(
    name="eightfold",
    version="0.1.0",
    description="Offline, tool-using mathematical reasoning on one GPU",
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    classifiers=[
        "Environment :: Console",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Mathematics",
    ],
    python_requires=">=3.11",
    packages=sorted(PACKAGES),
    package_dir=PACKAGES,
    package_data=DATA,
    install_requires=[
        "torch>=2.9",
        "transformers>=5.5",
        "accelerate>=1.0",
        "safetensors>=0.5",
        "numpy>=1.26",
        "sympy>=1.13",
        "mpmath>=1.3",
        "jupyter_client>=8.0",
        "ipykernel>=6.29",
        "rich>=13",
        "Jinja2>=3.1",
        "Pygments>=2.17",
        "latex2mathml>=3.77",
        "argcomplete>=3.1",
    ],
    extras_require={
        "flash": ["flash-attn>=2.7"],
        "flash4": ["flash-attn-4>=4.0.0b36"],
        "kaggle": ["polars>=1.0"],
        "inspect": ["inspect-ai>=0.3.100"],
        "serve": [
            "fastapi>=0.115",
            "uvicorn>=0.30",
            "httptools>=0.6",
            "uvloop>=0.19",
            "prometheus-client>=0.20",
        ],
        "ray": ["ray[data]>=2.50"],
        "test": [
            "pytest>=8",
            "pytest-timeout>=2.3",
            "pytest-xdist>=3.6",
            "hypothesis>=6.100",
            "math-verify[antlr4_13_2]>=0.8",
            "psutil>=6",
            "ruff>=0.12",
            "mypy>=1.15",
            "build>=1.2",
            "setuptools>=77",
            "triton>=3.7; sys_platform == 'linux'",
            "polars>=1.0",
            "fastapi>=0.115",
            "uvicorn>=0.30",
            "httptools>=0.6",
            "uvloop>=0.19",
            "prometheus-client>=0.20",
            "openai>=2",
            "ray[data]>=2.50",
            "compressed-tensors>=0.13",
        ],
    },
    entry_points={"console_scripts": ["eightfold = eightfold.solver.cli:run"]},
)
