"""The KV tensors behind the page tables, and how many pages fit."""

import torch

from ..engine_config import EngineConfig
from ..inspection.architecture import Architecture, LayerSpec
from ..model_errors import ModelError
from ..scheduling.page_pool import PageGroup
from ..scheduling.scheduled_step import PageCopy


def bytes_per_page(
    architecture: Architecture, window: int | None, page_size: int, width: int
) -> int:
    """Bytes of one page of a group: what all its layers keep, ``width`` bytes an element."""
    elements = sum(
        layer.copies * layer.kv_heads * layer.head_dim
        for layer in architecture.layers
        if layer.window == window and layer.source == layer.index
    )
    return elements * page_size * width


def size_groups(
    architecture: Architecture, config: EngineConfig, page_size: int, width: int, budget: int
) -> tuple[list[PageGroup], int]:
    """Pages of each group for ``budget`` bytes, and the most tokens one sequence may then hold.

    Sliding pools get what ``max_running`` sequences need at most, but no more than half of the
    budget; the full pool gets the rest, up to ``max_running`` full contexts.

    Raises:
        ModelError: where not even one sequence of 2 pages fits.
    """
    size, windows = page_size, architecture.windows
    context = min(config.max_context or architecture.max_positions, architecture.max_positions)
    costs = [bytes_per_page(architecture, window, size, width) for window in windows]
    pages: list[int] = []
    left = budget
    for window, cost in sorted(zip(windows, costs, strict=True), key=lambda item: item[0] is None):
        want, need = max(3, config.max_running * -(-context // size) + 1), 0
        if window is not None:
            need = -(-min(context, window + config.max_step_tokens) // size) + 2
            want = min(max(want, need + 1), _sliding_pages(config, window, size))
        given = config.full_pages if window is None else config.sliding_pages
        room = left if window is None or len(windows) == 1 else budget // 2
        count = given if given is not None else min(want, room // cost)
        if count < 3:
            raise ModelError(
                f"{budget / 2**30:.2f} GiB are free for the KV cache, which does not hold two "
                f"pages of {size} tokens; free memory or lower page_size"
            )
        pages.append(count)
        left -= count * cost
        if window is None:
            context = min(context, (count - 1) * size)
        elif need > count - 1:
            raise ModelError(
                f"a window of {window} tokens and a step of {config.max_step_tokens} need "
                f"{need} sliding pages, but there are {count - 1}; lower max_step_tokens"
            )
    by_window = dict(zip(sorted(windows, key=lambda window: window is None), pages, strict=True))
    total = sum(by_window[w] * cost for w, cost in zip(windows, costs, strict=True))
    share = config.offload_bytes / total
    groups = [PageGroup(w, by_window[w], int(by_window[w] * share)) for w in windows]
    return groups, context


def _sliding_pages(config: EngineConfig, window: int, size: int) -> int:
    """Pages with which the last sequence is admitted while all others decode.

    Each of them holds a window that starts anywhere in a page, and the page it grows into; the
    scheduler keeps one more page per sequence in reserve and asks for a whole chunk's.
    """
    held = -(-(window + size) // size) + 1
    chunk = -(-(window + config.max_step_tokens) // size) + 2
    return (config.max_running - 1) * held + chunk + config.max_running + 1


class KVCache:
    """The layers' keys and values ``[pages, page_size, kv_heads, head_dim]``.

    Layers that share keys and values have the tensors of the layer they share with; a layer that
    keeps one copy has no second tensor. Layers of a group and shape lie behind one another in one
    tensor, so that a page of all of them is moved by one copy. The null page is zero and stays
    finite: padded reads of it are masked, but 0 times NaN would not vanish.
    """

    def __init__(
        self,
        architecture: Architecture,
        groups: list[PageGroup],
        page_size: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.windows = architecture.windows
        self.page_size = page_size
        self._architecture = architecture
        self._device, self._dtype = device, dtype
        self.allocate(groups)

    def allocate(self, groups: list[PageGroup]) -> None:
        """Make room for so many pages; what was held before is lost."""
        self.layers: list[tuple[torch.Tensor, torch.Tensor | None]] = []
        self._device_pages: list[list[torch.Tensor]] = [[] for _ in groups]
        self._host_pages: list[list[torch.Tensor]] = [[] for _ in groups]
        own: dict[tuple[int, int, int], list[LayerSpec]] = {}
        for layer in self._architecture.layers:
            if layer.source == layer.index:
                key = (self.windows.index(layer.window), layer.kv_heads, layer.head_dim)
                own.setdefault(key, []).append(layer)
        tensors: dict[int, tuple[torch.Tensor, torch.Tensor | None]] = {}
        for (g, *shape), layers in own.items():
            copies = sum(layer.copies for layer in layers)
            joint = self._empty(copies, groups[g].page_count, *shape, device=self._device)
            joint[:, 0] = 0
            self._device_pages[g].append(joint)
            if groups[g].host_page_count:
                self._host_pages[g].append(self._empty(copies, groups[g].host_page_count, *shape))
            parts = iter(joint.unbind(0))
            for layer in layers:
                tensors[layer.index] = (next(parts), None if layer.one_copy else next(parts))
        self.layers = [tensors[layer.source] for layer in self._architecture.layers]

    def _empty(
        self, copies: int, pages: int, *shape: int, device: torch.device | None = None
    ) -> torch.Tensor:
        pinned = device is None and self._device.type == "cuda"
        return torch.empty(
            (copies, pages, self.page_size, *shape),
            device=device, dtype=self._dtype, pin_memory=pinned,
        )  # fmt: skip

    @property
    def nbytes(self) -> int:
        """Bytes on the device."""
        return sum(tensor.nbytes for group in self._device_pages for tensor in group)

    def make(self, copies: list[PageCopy]) -> None:
        """Make the copies in their order: a later one may read what an earlier one wrote."""
        for kind, group, source, target in copies:
            device, host = self._device_pages[group], self._host_pages[group]
            origin = host if kind == "restore" else device
            destination = host if kind == "offload" else device
            for source_tensor, target_tensor in zip(origin, destination, strict=True):
                if kind == "fork":
                    target_tensor[:, target] = source_tensor[:, source]
                    continue
                # Across the bus a strided copy would be staged and waited for: one per layer.
                for to, page in zip(target_tensor, source_tensor, strict=True):
                    to[target].copy_(page[source], non_blocking=True)
