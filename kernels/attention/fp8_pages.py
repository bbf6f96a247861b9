"""Pages of keys or values in FP8 (E4M3), with a scale for each page and head, in plain PyTorch.

Scales are powers of two, so that a value is rounded in the same way under each of them, unless it
is below 2^-14 of the largest of its page and head. A page's scale grows with the values that are
written to it; what is there already is moved to the new scale, which loses nothing else. So the
cache hardly depends on how tokens were divided among steps, and a product of code and scale is
exact in bfloat16.
"""

from dataclasses import dataclass

import torch

FP8 = torch.float8_e4m3fn
FP8_MAX = 448.0
SMALLEST = 2.0**-100  # of the magnitudes for which a scale is chosen


@dataclass(frozen=True, slots=True)
class Fp8Pages:
    """A cache of keys or of values.

    Attributes:
        codes: uint8 [pages, page_size, kv_heads, head_dim], the bits of FP8.
        scales: float32 [pages, kv_heads], powers of two. A value is code times scale.
    """

    codes: torch.Tensor
    scales: torch.Tensor

    @property
    def shape(self) -> torch.Size:
        """Shape of the codes."""
        return self.codes.shape

    @property
    def device(self) -> torch.device:
        """Device that holds the pages."""
        return self.codes.device

    def expand(self, dtype: torch.dtype) -> torch.Tensor:
        """Return the values [pages, page_size, kv_heads, head_dim]."""
        return (self.codes.view(FP8).float() * self.scales[:, None, :, None]).to(dtype)

    def gather(self, slots: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Return the values at slots [...]: [..., kv_heads, head_dim]."""
        flat = slots.flatten()
        codes = self.codes.flatten(0, 1).index_select(0, flat).view(FP8)
        scales = self.scales.index_select(0, flat // self.codes.shape[1])
        return (codes.float() * scales[..., None]).to(dtype).unflatten(0, slots.shape)

    def check(self) -> None:
        """Assert that all scales are powers of two."""
        assert (torch.frexp(self.scales).mantissa == 0.5).all()


KVPages = torch.Tensor | Fp8Pages
"""A cache of keys or of values, [pages, page_size, kv_heads, head_dim]."""


def write_fp8_pages_in_torch(pages: Fp8Pages, new: torch.Tensor, slots: torch.Tensor) -> None:
    """Write rows to their slots, and enlarge the scales of their pages as far as needed.

    Writing to a page's first slot starts the page anew: its scale and its old rows are discarded.

    Args:
        pages: the cache, changed.
        new: floats [T, kv_heads, head_dim].
        slots: whole numbers [T]; nothing is written to a negative slot.

    Raises:
        ValueError: a shape or dtype does not fit.
    """
    check_rows(pages, new, slots)
    size = pages.shape[1]
    written = slots >= 0
    slots, values = slots[written].long(), new[written].float()
    index, place = torch.unique(slots // size, return_inverse=True)
    largest = values.abs().amax(-1)
    wanted = largest.new_zeros(len(index), largest.shape[1]).scatter_reduce_(
        0, place[:, None].expand_as(largest), largest, "amax"
    )
    first = torch.full_like(index, size).scatter_reduce_(0, place, slots % size, "amin")
    old = torch.where((first == 0)[:, None], 0.0, pages.scales[index])
    scales = torch.maximum(old, scale_of(wanted))
    grown = ((scales > old) & (old > 0)).any(1)
    if grown.any():
        which = index[grown]
        factor = (old[grown] / scales[grown])[:, None, :, None]
        pages.codes[which] = _codes(pages.codes[which].view(FP8).float() * factor)
    pages.scales[index] = scales
    pages.codes.flatten(0, 1)[slots] = _codes(values / scales[place][..., None])


def scale_of(largest: torch.Tensor) -> torch.Tensor:
    """Return the smallest power of two under which a magnitude (float32) is at most FP8's."""
    bits = (largest.clamp(min=SMALLEST) / FP8_MAX).view(torch.int32)
    return ((bits + 0x7FFFFF) & 0x7F800000).view(torch.float32)


def _codes(values: torch.Tensor) -> torch.Tensor:
    return values.clamp(-FP8_MAX, FP8_MAX).to(FP8).view(torch.uint8)


def check_rows(pages: Fp8Pages, new: torch.Tensor, slots: torch.Tensor) -> None:
    """Raise ValueError unless rows and their slots fit pages."""
    count, _, *width = pages.shape
    if (
        pages.codes.dtype != torch.uint8
        or tuple(pages.scales.shape) != (count, width[0])
        or list(new.shape) != [len(slots), *width]
        or not new.is_floating_point()
    ):
        raise ValueError(
            f"Rows {tuple(new.shape)} and scales {tuple(pages.scales.shape)} do not fit pages of "
            f"shape {tuple(pages.shape)} and {len(slots)} slots."
        )
