"""Makes the drafter that the settings name."""

from pathlib import Path

from ..model_errors import UnsupportedModelError
from .drafter import Drafter
from .ngram.ngram_drafter import NgramDrafter


def make_drafter(speculate: str, branches: bool) -> Drafter | None:
    """Return the drafter that ``EngineConfig.speculate`` names, or ``None`` for none.

    Args:
        branches: True if steps can verify trees of drafts.

    Raises:
        ValueError: if the name is neither a drafter nor a folder.
        UnsupportedModelError: if the folder holds a drafter that the engine cannot run.
    """
    if speculate == "off":
        return None
    if speculate in ("auto", "ngram"):
        return NgramDrafter(branches)
    if not Path(speculate).is_dir():
        raise ValueError(
            f"speculate must be 'auto', 'off', 'ngram' or a drafter's folder, and {speculate!r} is "
            "not a folder."
        )
    raise UnsupportedModelError(
        f"Drafters with weights, such as the one in {speculate}, cannot be run yet; use 'ngram', "
        "which needs none, or 'off'."
    )
