"""Keeps computed tensors up to a number of bytes and forgets the least recently used. One thread's alone."""

from collections import OrderedDict
from dataclasses import dataclass

from torch import Tensor

from m2ib_server.package import Role


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheKey:
    """Everything that a kept tensor depends on.

    Attributes:
        model: the package's digest.
        role: the graph that computed it.
        layer: the bottleneck's block.
        content: SHA-256 of the graph's original input.
    """

    model: str
    role: Role
    layer: int
    content: str


class FeatureCache:
    """A byte-bounded cache of graph outputs."""

    def __init__(self, max_bytes: int) -> None:
        """Keep at most `max_bytes` of tensors."""
        self.max_bytes = max_bytes
        self.size_bytes = 0
        self._kept: OrderedDict[CacheKey, tuple[Tensor, ...]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: CacheKey) -> tuple[Tensor, ...] | None:
        """Return what is kept under a key and make it the most recent, or None."""
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def put(self, key: CacheKey, tensors: tuple[Tensor, ...]) -> None:
        """Keep tensors of their own memory, forgetting the oldest others; too large for the cache is not kept."""
        size = _size_bytes(tensors)
        if size > self.max_bytes or key in self._kept:
            return
        self._kept[key] = tensors
        self.size_bytes += size
        while self.size_bytes > self.max_bytes:
            _, forgotten = self._kept.popitem(last=False)
            self.size_bytes -= _size_bytes(forgotten)

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()
        self.size_bytes = 0

    def forget(self, model: str) -> None:
        """Forget everything that the package with that digest computed."""
        for key in [key for key in self._kept if key.model == model]:
            self.size_bytes -= _size_bytes(self._kept.pop(key))


def _size_bytes(tensors: tuple[Tensor, ...]) -> int:
    return sum(tensor.untyped_storage().nbytes() for tensor in tensors)
