"""Dequantizes the tensors of a GGUF file on many threads, ahead of transformers."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def dequantized_ahead(path: Path, threads: int) -> Iterator[None]:
    """Let `gguf.dequantize` return tensors of a file that threads have already dequantized.

    transformers calls it for one tensor after another, in the order of the file. A call for any
    other tensor is computed as usual.

    Args:
        path: the GGUF file.
        threads: number of threads; up to twice as many tensors are held.
    """
    import gguf

    original = gguf.dequantize
    tensors = iter(gguf.GGUFReader(path).tensors)
    ahead: deque[tuple[Any, Future[Any]]] = deque()

    def refill() -> None:
        while len(ahead) < 2 * threads and (tensor := next(tensors, None)) is not None:
            future = executor.submit(original, tensor.data, tensor.tensor_type)
            ahead.append((tensor, future))

    def dequantize(data: Any, kind: Any) -> Any:
        if not ahead:
            return original(data, kind)
        tensor, future = ahead[0]
        if (data.shape, kind) != (tensor.data.shape, tensor.tensor_type):
            return original(data, kind)
        ahead.popleft()
        refill()
        return future.result()

    with ThreadPoolExecutor(threads) as executor:
        refill()
        gguf.dequantize = dequantize
        try:
            yield
        finally:
            gguf.dequantize = original
            executor.shutdown(cancel_futures=True)
