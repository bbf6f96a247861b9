"""The KV tensors behind the page tables, and how many pages fit."""

import torch

from .architecture import Architecture
from .config import EngineConfig
from .errors import ModelError
from .memory import Group
from .plan import Move


def bytes_per_page(
    architecture: Architecture, window: int | None, page_size: int, width: int
) -> int:
    """Bytes of one page of a group: keys and values of all its layers, ``width`` bytes each."""
    elements = sum(
        2 * layer.kv_heads * layer.head_dim
        for layer in architecture.layers
        if layer.window == window and layer.source == layer.index
    )
    return elements * page_size * width


def size_groups(
    architecture: Architecture, config: EngineConfig, width: int, budget: int
) -> tuple[list[Group], int]:
    """Pages of each group for ``budget`` bytes, and the most tokens one sequence may then hold.

    Sliding pools get what ``max_running`` sequences need at most, but no more than half of the
    budget; the full pool gets the rest, up to ``max_running`` full contexts.

    Raises:
        ModelError: where not even one sequence of 2 pages fits.
    """
    size, windows = config.page_size, architecture.windows
    context = min(config.max_context or architecture.max_positions, architecture.max_positions)
    costs = [bytes_per_page(architecture, window, size, width) for window in windows]
    pages: list[int] = []
    left = budget
    for window, cost in sorted(zip(windows, costs, strict=True), key=lambda item: item[0] is None):
        span = context if window is None else min(context, window + 2 * size)
        want = config.max_running * -(-span // size) + 1
        if window is not None:
            want += 2 * (-(-config.max_step_tokens // size) + 2)
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
        else:
            need = -(-min(context, window + config.max_step_tokens) // size) + 2
            if need > count - 1:
                raise ModelError(
                    f"a window of {window} tokens and a step of {config.max_step_tokens} need "
                    f"{need} sliding pages, but there are {count - 1}; lower max_step_tokens"
                )
    by_window = dict(zip(sorted(windows, key=lambda window: window is None), pages, strict=True))
    total = sum(by_window[w] * cost for w, cost in zip(windows, costs, strict=True))
    share = config.offload_bytes / total
    groups = [Group(w, by_window[w], int(by_window[w] * share)) for w in windows]
    return groups, context


class KVCache:
    """One key and one value tensor ``[pages, page_size, kv_heads, head_dim]`` per layer.

    Layers that share keys and values have the tensors of the layer they share with. The null page
    is zero and stays finite: padded reads of it are masked, but 0 times NaN would not vanish.
    """

    def __init__(
        self,
        architecture: Architecture,
        groups: list[Group],
        page_size: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.windows = architecture.windows
        self.layers: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._of_group: list[list[torch.Tensor]] = [[] for _ in groups]
        self._host: list[list[torch.Tensor]] = [[] for _ in groups]
        for layer in architecture.layers:
            if layer.source != layer.index:
                self.layers.append(self.layers[layer.source])
                continue
            g = self.windows.index(layer.window)
            shape = (page_size, layer.kv_heads, layer.head_dim)
            pair = []
            for _ in ("keys", "values"):
                tensor = torch.empty((groups[g].pages, *shape), device=device, dtype=dtype)
                tensor[0] = 0
                pair.append(tensor)
                self._of_group[g].append(tensor)
                if groups[g].host_pages:
                    pinned = device.type == "cuda"
                    host = torch.empty(
                        (groups[g].host_pages, *shape), dtype=dtype, pin_memory=pinned
                    )
                    self._host[g].append(host)
            self.layers.append((pair[0], pair[1]))

    @property
    def nbytes(self) -> int:
        """Bytes on the device."""
        return sum(tensor.nbytes for group in self._of_group for tensor in group)

    def make(self, moves: list[Move]) -> None:
        """Make the moves in their order: a later one may read what an earlier one wrote."""
        for kind, group, source, target in moves:
            device = self._of_group[group]
            host = self._host[group] if kind != "copy" else device
            origin = host if kind == "in" else device
            destination = host if kind == "out" else device
            for source_tensor, target_tensor in zip(origin, destination, strict=True):
                target_tensor[target].copy_(source_tensor[source], non_blocking=True)
