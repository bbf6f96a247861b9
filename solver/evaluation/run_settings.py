"""The settings of a run that change its results, which must be the same to resume it."""

from __future__ import annotations

from typing import Any

from ..chat.prompt_texts import sets_digest
from ..model_defaults import ModelInputs
from ..solver_config import SolverConfig


def run_settings(
    config: SolverConfig, digest: str, inputs: ModelInputs, limit_time: float | None = None
) -> dict[str, Any]:
    """Return the settings of a run.

    The numbers of kernels, of workers, and of problems solved at the same time are not among them.

    Args:
        config: settings of the solver.
        digest: the digest of the problems.
        inputs: what was read from the model folder; an id's folder is that of its revision.
        limit_time: seconds that the whole run may take, or None.
    """
    names = (
        *("attempts", "early_stop", "turns", "time", "seed", "temperature", "top_p", "top_k"),
        *("min_p", "rule", "tool", "tool_timeout", "max_tokens", "reasoning_effort"),
    )
    chosen: dict[str, Any] = {name: getattr(config, name) for name in names}
    chosen |= {
        "max_context": None if config.engine is None else config.engine.max_context,
        "limit_time": limit_time,
    }
    folder = None if config.model is None else inputs.folder
    model = "bundled" if folder is None else str(folder.resolve())
    prompts = inputs.prompts
    texts: dict[str, Any] = {f"prompt_{name}": text for name, text in prompts.texts.items()}
    texts |= {"prompt_set": prompts.default_set, "prompt_sets": sets_digest()}
    return {"model": model, "problems": digest, **texts, **chosen}
