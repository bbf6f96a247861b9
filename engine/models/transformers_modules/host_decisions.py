"""Finds the module that makes a graph impossible: one that reads a tensor's values on the host."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

# Operators whose result on the host, or whose shape, depends on a tensor's values.
_DECISIONS = (
    "aten::_local_scalar_dense",
    "aten::nonzero",
    "aten::nonzero_numpy",
    "aten::is_nonzero",
    "aten::equal",
    "aten::masked_select",
    "aten::_unique",
    "aten::_unique2",
    "aten::unique_dim",
    "aten::unique_consecutive",
    "aten::unique_dim_consecutive",
    "aten::bincount",
    "aten::histogram",
)
_INDEXING = ("aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_")


class HostDecisionError(RuntimeError):
    """A model reads a tensor's values on the host. The message names the operator."""


class _Watch(TorchDispatchMode):
    """Raises HostDecisionError at operators whose work depends on values."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func.name().split(".")[0]
        if (
            name in _DECISIONS
            or (name in _INDEXING and _has_boolean_index(args))
            or (name == "aten::repeat_interleave" and func._overloadname.startswith("Tensor")
                and kwargs.get("output_size") is None)
            or (name == "aten::_to_copy" and _leaves_device(args, kwargs))
        ):  # fmt: skip
            raise HostDecisionError(name.removeprefix("aten::"))
        return func(*args, **kwargs)


def _has_boolean_index(args: tuple[Any, ...]) -> bool:
    indices = args[1] if len(args) > 1 and isinstance(args[1], (list, tuple)) else ()
    return any(
        isinstance(index, torch.Tensor) and index.dtype in (torch.bool, torch.uint8)
        for index in indices
    )


def _leaves_device(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Return whether a copy goes between the host and a device."""
    target = kwargs.get("device")
    return target is not None and torch.device(target).type != args[0].device.type


@contextmanager
def no_host_decisions() -> Iterator[None]:
    """Make operators that read values raise HostDecisionError in the body."""
    with _Watch():
        yield


def module_at_fault(error: BaseException, model: nn.Module) -> str:
    """Return the name and class of the innermost module in which an error was raised."""
    names = {id(module): name for name, module in model.named_modules()}
    found: nn.Module = model
    trace: TracebackType | None = error.__traceback__
    while trace is not None:
        owner = trace.tb_frame.f_locals.get("self")
        if isinstance(owner, nn.Module) and id(owner) in names:
            found = owner
        trace = trace.tb_next
    name = names[id(found)] or "the model"
    return f"{name} ({type(found).__name__})"


def host_decision(model: nn.Module, run: Callable[[], object]) -> str | None:
    """Run a model, and return which of its modules reads a tensor's values on the host.

    Args:
        run: runs the model.

    Returns:
        A clause that names the module and the operator; ``None`` if no module does.
    """
    try:
        with no_host_decisions():
            run()
    except HostDecisionError as error:
        return f"{module_at_fault(error, model)} reads values on the host, by {error}"
    return None


def plain_forward(module: nn.Module) -> Callable[..., Any]:
    """Return the function behind a module's ``forward``, without its decorators."""
    function = inspect.unwrap(type(module).forward)
    assert callable(function)
    return function
