"""Replaces the modules of a transformers model by stand-ins that compute the same, once probed."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from ...inspection.architecture import attention_modules
from ...inspection.families import ACTIVATIONS
from ...quantization.meta_modules import stored_linears
from ...quantization.split_experts import SplitExperts
from .gated_mlp_module import mlp_candidates
from .host_decisions import host_decision
from .linear_modules import FewRowsLinear, JointPart, JointProduct, joinable
from .module_probe import ModuleProbe
from .norm_module import norm_candidates
from .rotary_module import MAX_TABLE_BYTES, RotaryTable, defer_rotation

# Implementations of experts in transformers, the fastest first. Its own default loops over the
# experts that have tokens, which reads values on the host.
EXPERTS = ("grouped_mm", "batched_mm")


@dataclass(frozen=True, slots=True)
class FusedModules:
    """What was replaced.

    Attributes:
        replaced: number of modules by kind.
        decision: why no graph can hold a step, as a clause that names the module; ``None`` if one
            can.
    """

    replaced: Counter[str]
    decision: str | None


def fuse_modules(model: PreTrainedModel, positions: int) -> FusedModules:
    """Replace the norms, feed-forward blocks, rotary embeddings and projections of known kinds.

    What a module computes decides, not its name: the model runs once on a few tokens, and a
    stand-in is kept if it gives the same for the same arguments. The weights must be loaded.

    Args:
        model: has paged attention attached. Its modules stay replaced.
        positions: number of positions that rotary tables are made for.
    """
    _use_stored_kernels(model)
    probe = ModuleProbe(model, positions)
    decision = _choose_experts(model, probe)
    modules = dict(model.named_modules())
    probe.record(modules.values())
    replaced: Counter[str] = Counter()
    for name, module in modules.items():
        for kind, candidates in (("norms", norm_candidates), ("MLPs", mlp_candidates)):
            for candidate in candidates(module):
                if probe.agrees(module, candidate):
                    _set_module(model, name, candidate)
                    replaced[kind] += 1
                    break
        if "rotary" in type(module).__name__.lower() and _use_table(model, name, module, probe):
            replaced["rotary tables"] += 1
    for module in attention_modules(model):
        replaced["attention blocks"] += _fuse_attention(module, probe)
    probe.calls.clear()
    for name, module in list(model.named_modules()):
        if type(module) is nn.Linear:
            _set_module(model, name, FewRowsLinear(module))
            replaced["linear layers"] += 1
    if decision is not None:  # perhaps in a module that has been replaced
        decision = host_decision(model, probe.run)
    return FusedModules(replaced, decision)


def _use_stored_kernels(model: PreTrainedModel) -> None:
    """Let modules that hold quantized weights multiply with our kernels."""
    for layer in stored_linears(model):
        layer.use_kernels = True
    options = model.config.to_dict()
    name = options.get("hidden_act", options.get("hidden_activation"))
    for module in model.modules():
        if isinstance(module, SplitExperts) and name in ACTIVATIONS:
            module.weights = module.stacked(ACTIVATIONS[name])


def _choose_experts(model: PreTrainedModel, probe: ModuleProbe) -> str | None:
    """Choose an implementation of experts that a graph can hold; return why there is none."""
    decision = host_decision(model, probe.run)
    if decision is None or not hasattr(model, "set_experts_implementation"):
        return decision
    before = getattr(model.config, "_experts_implementation", None)
    for name in EXPERTS:
        try:
            model.set_experts_implementation(name)
            found = host_decision(model, probe.run)
        except (ValueError, RuntimeError, NotImplementedError):
            continue
        if found is None:
            return None
    if before is not None:
        model.set_experts_implementation(before)
    return decision


def _set_module(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


def _use_table(model: nn.Module, name: str, module: nn.Module, probe: ModuleProbe) -> bool:
    """Replace a rotary embedding by tables, one for each kind of layer that the model asks for."""
    calls = probe.calls.get(module, [])
    if not calls or next(module.parameters(), None) is not None:
        return False
    table = RotaryTable(module, probe.positions)
    try:
        with torch.inference_mode():
            for call in calls:
                table.prepare(*call.args, **call.kwargs)
    except Exception:  # arguments of another kind
        return False
    if table.nbytes > MAX_TABLE_BYTES or not probe.agrees(module, table):
        return False
    _set_module(model, name, table)
    return True


def _fuse_attention(module: nn.Module, probe: ModuleProbe) -> bool:
    """Join the projections of an attention module, and leave its rotation to the cache write."""
    attention: Any = module
    names = [name for name in ("q_proj", "k_proj", "v_proj") if hasattr(attention, name)]
    sources = [getattr(attention, name) for name in names]
    joins = len(names) == 3 and joinable(sources)
    joint = JointProduct(sources) if joins else None
    for join, defer in ((True, True), (False, True), (True, False)):
        if join and joint is None:
            continue
        if join and joint is not None:
            for index, (name, source) in enumerate(zip(names, sources, strict=True)):
                setattr(attention, name, JointPart(source, joint, index))
        deferred = defer_rotation(module, attention.eightfold_layer) if defer else []
        agrees = bool(join or deferred) and probe.agrees(module, module)
        if agrees and not any(rotation.unknown for rotation in deferred):
            return True
        attention.__dict__.pop("forward", None)
        attention.eightfold_layer.rotation = None
        for name, source in zip(names, sources, strict=True):
            setattr(attention, name, source)
    return False
