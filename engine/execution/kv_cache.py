"""The tensors behind the page tables: keys and values of all layers, on the device and the host."""

import torch

from ..inspection.architecture import Architecture
from ..inspection.kv_geometry import LayerSpec
from ..scheduling.pages.page_pool import PageGroup
from ..scheduling.scheduled_step import PageCopy


class KVCache:
    """Keys and values of each layer, ``[pages, page_size, kv_heads, head_dim]``.

    Layers that share keys and values have the tensors of the layer that they share with. A layer
    with one copy has no second tensor. Layers of the same group and shape are parts of one tensor,
    so that one copy moves a page of all of them. The null page is zero and stays finite: padded
    reads of it are masked, but 0 times NaN would not vanish.

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
        self.layers: list[tuple[torch.Tensor, torch.Tensor | None]] = []
        self._device_pages: list[list[torch.Tensor]] = [[] for _ in groups]
        self._host_pages: list[list[torch.Tensor]] = [[] for _ in groups]
        own: dict[tuple[int, int, int], list[LayerSpec]] = {}
        for layer in self._architecture.layers:
            if layer.owns_kv:
                key = (self.windows.index(layer.window), layer.kv_heads, layer.head_dim)
                own.setdefault(key, []).append(layer)
        tensors: dict[int, tuple[torch.Tensor, torch.Tensor | None]] = {}
        for (g, *shape), layers in own.items():
            copies = sum(layer.copies for layer in layers)
            stacked = self._empty(copies, groups[g].page_count, *shape, device=self._device)
            stacked[:, 0] = 0
            self._device_pages[g].append(stacked)
            if groups[g].host_page_count:
                self._host_pages[g].append(self._empty(copies, groups[g].host_page_count, *shape))
            parts = iter(stacked.unbind(0))
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

    def copy_pages(self, copies: list[PageCopy]) -> None:
        """Copy pages in the given order: a later copy may read what an earlier one wrote."""
        for kind, group, source, target in copies:
            if kind == "token":
                for pages in self._device_pages[group]:
                    slots = pages.flatten(1, 2)
                    slots[:, target] = slots[:, source]
                continue
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
