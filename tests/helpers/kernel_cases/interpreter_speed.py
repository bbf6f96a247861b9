"""Let Triton's interpreter do once what it does at each call of a jitted function.

It replaces the functions of `triton.language` by its own when a kernel is launched, and again at
each call from one jitted function to another, of which a program makes dozens. It also builds a
table of all types to look up one, derives shapes for each value, and computes whether integers
overflow without ever looking at the result. Together that takes two thirds of its time.
"""

import dataclasses
import sys
from types import FunctionType, ModuleType
from typing import Any

_quick: set[ModuleType] = set()


def speed_up_interpreter() -> None:
    """Change the interpreter if it has been imported and is of a version that is known."""
    interpreter: Any = sys.modules.get("triton.runtime.interpreter")
    if interpreter is None or interpreter in _quick:
        return
    _quick.add(interpreter)
    if hasattr(interpreter, "_LangPatchScope") and hasattr(interpreter, "_get_np_dtype"):
        _replace_the_language_once(interpreter)
        _remember_types(interpreter)
        _remember_shapes(interpreter.tl)
        builder = interpreter.interpreter_builder  # asserts of kernels hold in debug mode alone
        builder.options = dataclasses.replace(
            builder.options, sanitize_overflow=builder.options.debug
        )


def _replace_the_language_once(interpreter: Any) -> None:
    """Skip what is replaced already, until the end of the launch restores it."""
    replace = interpreter._patch_lang
    languages = (interpreter.tl, interpreter.tl.core)
    seen: dict[FunctionType, frozenset[str]] = {}
    replaced: set[str] = set()

    def replace_once(fn: FunctionType) -> Any:
        if fn not in seen:
            found = [v for v in fn.__globals__.values() if isinstance(v, ModuleType)]
            seen[fn] = frozenset(v.__name__ for v in found if v in languages)
        if replaced and seen[fn] <= replaced:
            return interpreter._LangPatchScope()
        scope = replace(fn)
        restore = scope.restore

        def restore_and_forget() -> None:
            restore()
            replaced.clear()

        scope.restore = restore_and_forget
        replaced.update(seen[fn])
        return scope

    interpreter._patch_lang = replace_once


def _remember_types(interpreter: Any) -> None:
    """Look up NumPy's type of a scalar by name."""
    look_up = interpreter._get_np_dtype
    block, pointer = interpreter.tl.block_type, interpreter.tl.pointer_type
    known: dict[str, Any] = {}

    def remembered(kind: Any) -> Any:
        scalar = kind.element_ty if isinstance(kind, block) else kind
        if isinstance(scalar, pointer):
            return look_up(kind)
        if scalar.name not in known:
            known[scalar.name] = look_up(scalar)
        return known[scalar.name]

    interpreter._get_np_dtype = remembered


def _remember_shapes(language: Any) -> None:
    """Copy what follows from a shape and a type, instead of deriving it for each value."""
    make_block, make_tensor = language.block_type.__init__, language.tensor.__init__
    blocks: dict[tuple[Any, ...], dict[str, Any]] = {}
    tensors: dict[str, dict[str, Any]] = {}

    def block(self: Any, element_ty: Any, shape: Any) -> None:
        sizes = [s.value if isinstance(s, language.constexpr) else s for s in shape]
        if not all(type(s) is int for s in sizes):
            make_block(self, element_ty, shape)
            return
        key = (element_ty.name, *sizes)
        if key not in blocks:
            make_block(self, element_ty, shape)
            blocks[key] = dict(vars(self))
        vars(self).update(blocks[key])

    def tensor(self: Any, handle: Any, type: Any) -> None:
        if type.name not in tensors:
            make_tensor(self, handle, type)
            tensors[type.name] = dict(vars(self))
        vars(self).update(tensors[type.name])
        self.handle, self.type = handle, type

    language.block_type.__init__, language.tensor.__init__ = block, tensor
