"""The tensors behind the page tables: keys and values of all layers, on the device and the host."""

from collections.abc import Iterator

import torch

from eightfold.kernels.attention.fp8_pages import Fp8Pages, KVPages, write_fp8_pages_in_torch

from ..inspection.architecture import Architecture
from ..inspection.kv_geometry import LayerSpec
from ..scheduling.pages.page_pool import PageGroup
from ..scheduling.scheduled_step import PageCopy


class KVCache:
    """Keys and values of each layer, ``[pages, page_size, kv_heads, head_dim]``.

    Layers that share keys and values have the tensors of the layer that they share with. A layer
    with one copy has no second tensor. Layers in FP8 have scales beside their codes, which move
    with the pages. Layers of the same group and shape are parts of one tensor, so that one copy
    moves a page of all of them. The null page is zero and stays finite: padded reads of it are
    masked, but 0 times NaN would not vanish.

    Attributes:
        windows: window of each page group.
        layers: keys and values of each layer; values are ``None`` with one copy.
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
        """Allocate the pages of each group; what the cache held before is lost."""
        self.layers: list[tuple[KVPages, KVPages | None]] = []
        self._device_pages: list[list[torch.Tensor]] = [[] for _ in groups]
        self._host_pages: list[list[torch.Tensor]] = [[] for _ in groups]
        # What copies of single tokens move: of each group, layers in one tensor, [slots of one
        # after the other, kv_heads, head_dim], with the first slot of each; and those in FP8.
        self._token_stacks: list[list[tuple[torch.Tensor, torch.Tensor]]] = [[] for _ in groups]
        self._fp8_pages: list[list[Fp8Pages]] = [[] for _ in groups]
        own: dict[tuple[int, int, int, bool], list[LayerSpec]] = {}
        for layer in self._architecture.layers:
            if layer.owns_kv:
                key = (self.windows.index(layer.window), layer.kv_heads, layer.head_dim, layer.fp8)
                own.setdefault(key, []).append(layer)
        tensors: dict[int, tuple[KVPages, KVPages | None]] = {}
        for (g, heads, head_dim, fp8), layers in own.items():
            copies = sum(layer.copies for layer in layers)
            shape, dtype = (self.page_size, heads, head_dim), torch.uint8 if fp8 else self._dtype
            stacked = self._stack(g, groups[g], copies, shape, dtype)
            parts: Iterator[KVPages] = iter(stacked.unbind(0))
            if fp8:
                scales = self._stack(g, groups[g], copies, (heads,), torch.float32).fill_(1)
                fp8_pages = list(map(Fp8Pages, stacked.unbind(0), scales.unbind(0)))
                self._fp8_pages[g] += fp8_pages
                parts = iter(fp8_pages)
            else:
                slots = stacked.shape[1] * stacked.shape[2]
                firsts = torch.arange(0, copies * slots, slots, device=self._device)
                self._token_stacks[g].append((stacked.flatten(0, 2), firsts[:, None]))
            for layer in layers:
                tensors[layer.index] = (next(parts), None if layer.one_copy else next(parts))
        self.layers = [tensors[layer.source] for layer in self._architecture.layers]

    def _stack(
        self, g: int, group: PageGroup, copies: int, shape: tuple[int, ...], dtype: torch.dtype
    ) -> torch.Tensor:
        """Allocate one tensor for pages of several layers, and the host's pages of it."""
        stacked = torch.empty((copies, group.page_count, *shape), device=self._device, dtype=dtype)
        stacked[:, 0] = 0
        self._device_pages[g].append(stacked)
        if group.host_page_count:
            host, pinned = (copies, group.host_page_count, *shape), self._device.type == "cuda"
            self._host_pages[g].append(torch.empty(host, dtype=dtype, pin_memory=pinned))
        return stacked

    @property
    def nbytes(self) -> int:
        """Bytes on the device."""
        return sum(tensor.nbytes for group in self._device_pages for tensor in group)

    def copy_pages(self, copies: list[PageCopy]) -> None:
        """Copy pages in the given order: a later copy may read what an earlier one wrote."""
        moved: dict[int, dict[int, int]] = {}  # of each group: tokens' sources by their targets
        for kind, group, source, target in copies:
            if kind == "token":
                if source in moved.get(group, ()):
                    self._copy_tokens(moved)
                moved.setdefault(group, {})[target] = source
                continue
            self._copy_tokens(moved)
            device, host = self._device_pages[group], self._host_pages[group]
            origin = host if kind == "restore" else device
            destination = host if kind == "offload" else device
            for source_tensor, target_tensor in zip(origin, destination, strict=True):
                if kind == "fork":
                    target_tensor[:, target] = source_tensor[:, source]
                    continue
                # A strided copy between host and device would be staged and waited for, so that
                # each layer is copied by itself.
                for to, page in zip(target_tensor, source_tensor, strict=True):
                    to[target].copy_(page[source], non_blocking=True)
        self._copy_tokens(moved)

    def _copy_tokens(self, moved: dict[int, dict[int, int]]) -> None:
        """Copy what is at some slots of each group's layers to other slots; empties ``moved``.

        All tokens are read before one is written. Layers of one shape are copied together, so that
        it takes a few launches, whatever the number of layers and tokens: the device would wait
        for more. Only pages in FP8, which may have to be rounded anew, are copied one by one.
        """
        if not moved:
            return
        slots = [[*of.keys(), *of.values()] for of in moved.values()]
        pinned = self._device.type == "cuda"
        uploaded = torch.tensor([slot for of in slots for slot in of], pin_memory=pinned)
        uploaded = uploaded.to(self._device, non_blocking=True)
        for group, own in zip(moved, uploaded.split([len(of) for of in slots]), strict=True):
            pairs = own.view(2, 1, -1)  # targets, sources
            for flat, firsts in self._token_stacks[group]:
                targets, sources = (firsts + pairs).flatten(1)
                flat.index_copy_(0, targets, flat.index_select(0, sources))
            for pages in self._fp8_pages[group]:
                rows = pages.gather(pairs[1, 0], torch.float32)
                write_fp8_pages_in_torch(pages, rows, pairs[0, 0])
        moved.clear()
