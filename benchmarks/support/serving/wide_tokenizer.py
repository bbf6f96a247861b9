"""A tokenizer with a text for each token of a model in published shapes, whose weights are random.

It is that of the bundled model, with words added to its vocabulary, so that the server has as much
text to decode and to send as with a real one.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from eightfold.solver.model_defaults import bundled_model

FILES = ("tokenizer_config.json", "chat_template.jinja")


def wide_tokenizer(size: int) -> PreTrainedTokenizerBase:
    """Return a tokenizer with `size` tokens."""
    folder = bundled_model()
    fields = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = fields["model"]["vocab"]
    for number in range(len(vocabulary), size):
        vocabulary[f"\u0120w{number}"] = number  # that letter stands for a blank
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "tokenizer.json").write_text(json.dumps(fields))
        for name in FILES:
            shutil.copy(folder / name, place)
        return AutoTokenizer.from_pretrained(place, local_files_only=True)
