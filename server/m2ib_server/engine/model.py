"""Owns what a loaded model is: its package, graphs, tokeniser and reference texts."""

import hashlib
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from m2ib_server.engine.ranking import ReferenceTexts
from m2ib_server.errors import PackageCorrupt
from m2ib_server.imaging import ModelInput, Resampling
from m2ib_server.methods import EncoderInput, Side
from m2ib_server.package import ModelPackage, Role
from m2ib_server.runtime import Device, open_graphs
from m2ib_server.text import EncodedText, Tokeniser

VISION_ROLES = frozenset({Role.VISION_HEAD, Role.VISION_TAIL, Role.VISION_TAIL_GRAD})


class DeviceModel:
    """A package's graphs on one device."""

    def __init__(self, package: ModelPackage, device: Device) -> None:
        """Load the graphs.

        Raises:
            PackageCorrupt: a graph is not usable.
            DeviceUnavailable: the device's provider was not taken.
        """
        self._manifest = package.manifest
        self._graphs = open_graphs(package, device)

    def run(self, role: Role, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Evaluate one graph."""
        return self._graphs[role].run(inputs)

    def abort(self) -> None:
        """Let the evaluation that is under way, if one is, end at its next node; any thread may call this."""
        for graph in self._graphs.values():
            graph.abort()

    def trim(self) -> None:
        """Give back the memory that large batches took."""
        for graph in self._graphs.values():
            graph.trim()

    def layer(self, role: Role) -> int:
        """Return the bottleneck's block in the encoder that the graph is a part of."""
        return self._manifest.vision.layer if role in VISION_ROLES else self._manifest.text.layer


class LoadedModel:
    """What a package says besides its graphs, ready to be asked."""

    def __init__(self, package: ModelPackage) -> None:
        """Read the package's tokeniser, preprocessing and reference texts.

        Raises:
            PackageCorrupt: the tokeniser or the preprocessing is not usable.
        """
        self.package = package
        self.manifest = package.manifest
        self.digest = package.digest
        self.model_input = _model_input(package)
        self.tokeniser = _tokeniser(package)
        self.references = ReferenceTexts(package)

    def image_input(self, pixel_values: NDArray[np.float32]) -> EncoderInput:
        """Take pixel values, float32 [channels, height, width]; the digest covers every one of them."""
        rows = torch.from_numpy(pixel_values)[None]
        digest = hashlib.sha256(pixel_values.tobytes()).hexdigest()
        return EncoderInput(side=Side.IMAGE, inputs={"pixel_values": rows}, digest=digest)

    def text_input(self, text: EncodedText) -> EncoderInput:
        """Take token ids; the digest covers them and the pooled position."""
        token_ids = torch.tensor([text.token_ids], dtype=torch.int64)
        mask = torch.ones_like(token_ids)
        pooled = torch.tensor([text.pooled_position], dtype=torch.int64)
        content = np.asarray([text.pooled_position, *text.token_ids], dtype="<i8")
        return EncoderInput(
            side=Side.TEXT,
            inputs={"token_ids": token_ids, "attention_mask": mask},
            context={"attention_mask": mask, "pooled_position": pooled},
            digest=hashlib.sha256(content.tobytes()).hexdigest(),
        )


def _model_input(package: ModelPackage) -> ModelInput:
    preprocessing = package.manifest.preprocessing
    try:
        model_input = ModelInput(
            size=package.manifest.vision.image_size,
            mean=tuple(preprocessing.mean),
            std=tuple(preprocessing.std),
            resampling=Resampling(preprocessing.resampling),
        )
        _check_channels(model_input, package.manifest.vision.channels)
    except ValueError as error:
        path = str(package.folder / "manifest.json")
        raise PackageCorrupt(path, seen="preprocessing that is not usable", allowed="mean, std, resampling") from error
    return model_input


def _check_channels(model_input: ModelInput, channels: int) -> None:
    if len(model_input.mean) != channels:
        raise ValueError("a mean and a std for every channel")


def _tokeniser(package: ModelPackage) -> Tokeniser:
    path, text = package.path(package.manifest.tokenizer_file), package.manifest.text
    try:
        return Tokeniser(
            path.read_bytes(),
            context_length=text.context_length,
            start_token_id=text.start_token_id,
            end_token_id=text.end_token_id,
        )
    except Exception as error:  # the tokenizers library raises plain Exception
        raise PackageCorrupt(str(path), seen="no usable tokeniser", allowed="a tokenizer.json") from error
