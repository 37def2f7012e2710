"""Owns the weights files: each distinct weight is written once, named by its content, for graphs to point at."""

import hashlib
from pathlib import Path
from types import TracebackType
from typing import Self

import onnx_ir as ir

ALIGNMENT_BYTES = 4096
"""Weights start at whole pages, so that a runtime can map each of them."""
INLINE_BELOW_BYTES = 1024


class WeightsFile:
    """A weights file that is being written; use it as a context manager.

    Graphs that are given the same file share every weight of equal content, under the same name and offset.
    """

    def __init__(self, path: Path) -> None:
        """Name the file; entering the context creates it."""
        self._path = path
        self._offset_by_name: dict[str, int] = {}
        self._end = 0

    def __enter__(self) -> Self:
        """Create the file."""
        self._file = self._path.open("xb")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self._file.close()

    def take(self, graph: ir.Graph) -> None:
        """Move the graph's large initialisers into the file, merging those of equal content."""
        for name in sorted(graph.initializers):
            value = graph.initializers[name]
            tensor = value.const_value
            if tensor is not None and tensor.nbytes >= INLINE_BELOW_BYTES:
                del graph.initializers[name]
                self._place(graph, value, tensor)

    def _place(self, graph: ir.Graph, value: ir.Value, tensor: ir.TensorProtocol) -> None:
        content = tensor.tobytes()
        name = _content_name(tensor, content)
        if name not in self._offset_by_name:
            self._append(name, content)
        present = graph.initializers.get(name)
        if present is not None:
            value.replace_all_uses_with(present)
            return
        value.name = name
        value.const_value = self._reference(name, tensor, len(content))
        graph.register_initializer(value)

    def _append(self, name: str, content: bytes) -> None:
        offset = -(-self._end // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
        self._file.write(bytes(offset - self._end))
        self._file.write(content)
        self._offset_by_name[name] = offset
        self._end = offset + len(content)

    def _reference(self, name: str, tensor: ir.TensorProtocol, size_bytes: int) -> ir.ExternalTensor:
        return ir.ExternalTensor(
            self._path.name,
            self._offset_by_name[name],
            size_bytes,
            tensor.dtype,
            shape=ir.Shape(tensor.shape.numpy()),
            name=name,
            base_dir=self._path.parent,
        )


def _content_name(tensor: ir.TensorProtocol, content: bytes) -> str:
    shape = "x".join(str(size) for size in tensor.shape)
    return f"weight_{shape}_{hashlib.sha256(content).hexdigest()[:16]}"
