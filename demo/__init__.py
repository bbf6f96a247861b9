"""The bundled model, and the scripts and data that it was made with; see MODEL_CARD.md."""

from pathlib import Path


def model_path() -> Path:
    """Return the folder of the bundled model: config, tokenizer, chat template and weights."""
    return Path(__file__).parent / "model"
