"""Owns the reading of a checkpoint's image preprocessing and its check against the vision encoder's shape."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m2ib.v1 import manifest_pb2
from m2ib_export.checkpoint import read_json
from m2ib_export.errors import CheckpointInvalid
from m2ib_export.geometry import VisionGeometry
from m2ib_export.recipe import FITS

RESAMPLING = {2: "bilinear", 3: "bicubic"}
"""The supported filters by Pillow's number, which is how checkpoints name them."""
FILE = "preprocessor_config.json"
COMBINED_FILE = "processor_config.json"
BYTE_SCALE = 1 / 255
SCALE_TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """From an image rescaled to [0, 1] to pixel values: a filter's name, then (value - mean) / std by channel."""

    resampling: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def to_proto(self, fit: str) -> manifest_pb2.Preprocessing:
        """Write the preprocessing as the manifest has it, with the fit that requests get by default."""
        return manifest_pb2.Preprocessing(
            resampling=self.resampling, mean=self.mean, std=self.std, default_fit=FITS[fit]
        )


def read_preprocessing(directory: Path, vision: VisionGeometry) -> Preprocessing:
    """Read preprocessor_config.json, or the image processor's part of processor_config.json.

    Raises:
        CheckpointInvalid: a value is missing, is not supported or contradicts the vision encoder.
    """
    document = _read(directory)
    _check_size(document, vision)
    _check_scale(document)
    return Preprocessing(
        resampling=_resampling(document),
        mean=_by_channel(document, "image_mean", 0.0, vision.channels),
        std=_by_channel(document, "image_std", 1.0, vision.channels),
    )


def _read(directory: Path) -> dict[str, Any]:
    if (directory / FILE).exists() or not (directory / COMBINED_FILE).exists():
        return read_json(directory, FILE)
    document = read_json(directory, COMBINED_FILE).get("image_processor")
    if not isinstance(document, dict):
        raise CheckpointInvalid(COMBINED_FILE, seen="no image_processor", allowed="an image processor's settings")
    return document


def _check_size(document: dict[str, Any], vision: VisionGeometry) -> None:
    """The crop, or without one the size, is what the encoder gets."""
    is_cropped = document.get("do_center_crop", True) and "crop_size" in document
    label = "crop_size" if is_cropped else "size"
    size = document.get(label)
    sides = set(size.values()) if isinstance(size, dict) else {size}
    if sides != {vision.image_size}:
        allowed = f"{vision.image_size}, the encoder's image_size"
        raise CheckpointInvalid(f"{FILE}, {label}", seen=repr(size), allowed=allowed)


def _check_scale(document: dict[str, Any]) -> None:
    scale = document.get("rescale_factor", BYTE_SCALE) if document.get("do_rescale", True) else None
    if not isinstance(scale, int | float) or abs(scale / BYTE_SCALE - 1) > SCALE_TOLERANCE:
        raise CheckpointInvalid(f"{FILE}, rescale_factor", seen=repr(scale), allowed="1/255")


def _resampling(document: dict[str, Any]) -> str:
    resample = document.get("resample", 3)
    if resample not in RESAMPLING:
        allowed = ", ".join(f"{number} ({name})" for number, name in RESAMPLING.items())
        raise CheckpointInvalid(f"{FILE}, resample", seen=repr(resample), allowed=allowed)
    return RESAMPLING[resample]


def _by_channel(document: dict[str, Any], label: str, neutral: float, channels: int) -> tuple[float, ...]:
    if not document.get("do_normalize", True):
        return (neutral,) * channels
    values = document.get(label)
    given = values if isinstance(values, list) else []
    is_list = bool(given) and all(isinstance(value, int | float) for value in given)
    if not is_list or len(given) != channels or (label == "image_std" and min(given) <= 0):
        above = " above 0" if label == "image_std" else ""
        raise CheckpointInvalid(f"{FILE}, {label}", seen=repr(values), allowed=f"{channels} numbers{above}")
    return tuple(float(value) for value in given)
