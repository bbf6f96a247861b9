"""Import rules between the parts, read from every import statement of the tree, lazy ones too."""

import ast
import importlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

# What each part may import, itself apart.
ALLOWED = {
    "common": set(),
    "kernels": {"common"},
    "engine": {"common", "kernels"},
    "sandbox": {"common"},
    "solver": {"common", "kernels", "engine", "sandbox"},
    "demo": {"common", "kernels", "engine", "sandbox", "solver"},
}
# Modules by prefix, and what none of them may reach, however indirectly.
NEVER = {
    "engine.scheduling": ("torch", "transformers", "triton", "numpy"),
    "engine.inspection.kv_geometry": ("torch", "transformers", "triton", "numpy"),
    "engine.execution.cpu": ("engine.execution.gpu", "engine.execution.step_upload"),
    "engine.execution.gpu": ("engine.execution.cpu",),
    "sandbox.guest": ("sandbox.host", "engine", "kernels", "solver", "torch"),
    "sandbox": ("torch", "transformers"),
    "common": ("torch", "numpy", "transformers"),
}


@cache
def modules() -> dict[str, Path]:
    """Every module of the installed package, by its name without the leading "eightfold."."""
    found = {}
    for part in ALLOWED:
        folder = Path(importlib.import_module(f"eightfold.{part}").__path__[0])
        for path in folder.rglob("*.py"):
            names = [part, *path.relative_to(folder).with_suffix("").parts]
            found[".".join(names[:-1] if names[-1] == "__init__" else names)] = path
    return found


def _absolute(name: str, node: ast.ImportFrom) -> str:
    """The module that a statement names, resolved from the module `name` that holds it."""
    if not node.level:
        return node.module or ""
    package = name.split(".")
    if modules()[name].name != "__init__.py":
        package.pop()
    package = ["eightfold", *package[: len(package) - node.level + 1]]
    return ".".join([*package, *([node.module] if node.module else [])])


def _statements(name: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(modules()[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(name, node)
            for alias in node.names:
                inner = f"{base}.{alias.name}".removeprefix("eightfold.")
                yield f"eightfold.{inner}" if inner in modules() else base


@cache
def graph() -> dict[str, set[str]]:
    """Return the imports of each module, those of the tree without the leading "eightfold."."""
    found: dict[str, set[str]] = {}
    for name in modules():
        targets = set()
        for target in _statements(name):
            inner = target.removeprefix("eightfold.")
            targets.add(inner if inner != target else target.partition(".")[0])
        found[name] = targets - {name}
    return found


def within(name: str, prefix: str) -> bool:
    """Return whether a module is `prefix`, lies below it, or its file's name begins so."""
    return name == prefix or name.startswith((f"{prefix}.", f"{prefix}_"))


def reach(name: str) -> dict[str, str]:
    """Return everything that a module imports, however indirectly, and who imports it."""
    found: dict[str, str] = {}
    waiting = [name]
    while waiting:
        importer = waiting.pop()
        for target in graph().get(importer, ()):
            if target not in found and target != name:
                found[target] = importer
                waiting.append(target)
    return found


def test_the_tree_is_read() -> None:
    assert len(modules()) > 150
    assert "engine.scheduling.scheduler" in graph()["engine.engine"]
    assert "torch" in graph()["kernels.attention.torch_fallback"]
    assert set().union(*graph().values()) > {"engine.engine", "torch", "numpy"}


@pytest.mark.parametrize("part", ALLOWED)
def test_no_part_imports_upward(part: str) -> None:
    wrong = [
        f"{name} imports {target}"
        for name, targets in graph().items()
        for target in targets
        if name.partition(".")[0] == part
        and target.partition(".")[0] in ALLOWED.keys() - ALLOWED[part] - {part}
    ]
    assert not wrong


@pytest.mark.parametrize("prefix", NEVER)
def test_what_must_never_be_reached(prefix: str) -> None:
    starts = [name for name in modules() if within(name, prefix)]
    assert starts, f"nothing is named {prefix}"
    wrong = [
        f"{name} reaches {target} through {through}"
        for name in starts
        for target, through in reach(name).items()
        if any(within(target, each) for each in NEVER[prefix])
    ]
    assert not wrong


def _circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Groups of nodes that reach one another."""
    closed: dict[str, set[str]] = {}
    for node in edges:
        found, waiting = set(), [node]
        while waiting:
            for target in edges.get(waiting.pop(), ()):
                if target not in found:
                    found.add(target)
                    waiting.append(target)
        closed[node] = found
    groups = {
        tuple(sorted(each for each in closed if each in closed[node] and node in closed[each]))
        for node in closed
    }
    return [list(group) for group in groups if group]


def test_no_module_imports_itself_through_others() -> None:
    assert not _circles(graph())


@pytest.mark.parametrize("part", ALLOWED)
def test_no_circle_between_sub_packages(part: str) -> None:
    def package(name: str) -> str:
        parts = name.split(".")
        return parts[1] if len(parts) > 2 or modules()[name].name == "__init__.py" else part

    edges: dict[str, set[str]] = {}
    for name, targets in graph().items():
        if name.startswith(f"{part}."):
            inner = {each for each in targets if each.startswith(f"{part}.")}
            edges.setdefault(package(name), set()).update(package(each) for each in inner)
    edges.pop(part, None)  # the modules at the part's root tie its packages together
    edges = {node: targets - {node, part} for node, targets in edges.items()}
    assert not _circles(edges)


def test_circles_are_found() -> None:
    assert _circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]
    assert not _circles({"a": {"b", "c"}, "b": {"c"}, "c": set()})
