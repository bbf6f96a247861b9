"""Decode over a cache of random numbers, without the time that computing the prompts takes.

What a decode step costs depends on how much the cache holds, not on what.
"""

import torch

from eightfold.engine import Engine

PART_PAGES = 4096  # filled at a time
FINITE_FP8_CODES = 0x78  # those from here on are larger than 200, or not numbers


def pass_over_prompts(engine: Engine) -> None:
    """Fill the engine's cache with random numbers, and let steps with chunks compute nothing.

    Such steps are planned as usual; tokens that they would sample come from logits of 0.
    """
    runner = engine._runner
    decoder, compute = runner.decoder, runner.decoder.logits

    def logits(tokens: torch.Tensor, positions: torch.Tensor, *others: object) -> torch.Tensor:
        *_, sample_rows = others
        if sample_rows is None:  # single tokens only
            return compute(tokens, positions, *others)
        return torch.zeros(len(sample_rows), engine._vocabulary, device=tokens.device)

    decoder.logits = logits
    for layer in runner.cache.layers:
        for pages in layer:
            if isinstance(pages, torch.Tensor):
                for part in pages.split(PART_PAGES):
                    part.normal_()
            elif pages is not None:
                pages.codes.random_(FINITE_FP8_CODES)
