"""The bundled model, and everything it was made with; see MODEL_CARD.md."""

from pathlib import Path


def model_path() -> Path:
    """The folder of the bundled model: config, tokenizer, chat template and weights."""
    return Path(__file__).parent / "model"
