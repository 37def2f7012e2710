"""Owns what every benchmark measures on: one checkpoint with random weights, its package, one image and one text."""

import argparse
import functools
import hashlib
import io
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import m2ib_export
from checkpoints import PRESETS, write_checkpoint
from report import DEFAULT_OUT

DEFAULT_PACKAGES = DEFAULT_OUT / "packages"
TEXT = "a chest radiograph with a small pleural effusion on the left"
TESTS = Path(__file__).resolve().parents[1] / "tests"
IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)  # as in the checkpoint's preprocessor_config.json
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A model on disk, as its checkpoint and as a package.

    Attributes:
        preset: its shape, a name of `checkpoints.PRESETS`.
        checkpoint: the Hugging Face folder.
        models: the folder that a server is given; `package` is the only one in it.
        package: the exported package.
    """

    preset: str
    checkpoint: Path
    models: Path
    package: Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a benchmark the flags that all of them have."""
    parser.add_argument("--preset", choices=sorted(PRESETS), default="vit-b-32")
    parser.add_argument("--packages", type=Path, default=DEFAULT_PACKAGES, help="where the exported model is kept")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="where the report goes")
    parser.add_argument("--threads", type=int, default=2, help="compute threads of every contender")


def prepare(packages: Path, preset: str) -> Subject:
    """Return the model of a preset, made by the real exporter unless it is there and the exporter is unchanged."""
    folder = packages / preset
    subject = Subject(
        preset=preset,
        checkpoint=folder / "checkpoint",
        models=folder / "models",
        package=folder / "models" / preset,
    )
    stamp, digest = folder / "made_by", _exporter_digest()
    if stamp.is_file() and stamp.read_text(encoding="ascii") == digest:
        return subject
    if folder.exists():
        shutil.rmtree(folder)
    write_checkpoint(subject.checkpoint, preset)
    subject.models.mkdir()
    command = [sys.executable, "-m", "m2ib_export", str(subject.checkpoint), str(subject.package), "--name", preset]
    subprocess.run(command, check=True)
    stamp.write_text(digest, encoding="ascii")
    return subject


@functools.cache
def picture(preset: str) -> NDArray[np.uint8]:
    """Return a smooth picture at the model's own size, uint8 [size, size, 3], read-only; no fit changes it."""
    size = PRESETS[preset].image_size
    generator = np.random.default_rng(0)
    y, x = np.mgrid[0:size, 0:size] / size
    waves = [
        np.sin(2 * np.pi * (generator.uniform(0.5, 4) * x + generator.uniform(0.5, 4) * y + generator.uniform()))
        for _ in range(9)
    ]
    colours = np.stack([sum(waves[channel::3]) for channel in range(3)], axis=-1) / 6 + 0.5
    image = np.round(255 * colours).astype(np.uint8)
    image.setflags(write=False)
    return image


def numbered_picture(preset: str, number: int) -> NDArray[np.uint8]:
    """Return the picture with a number, below 2^24, in its first pixel: to caches, each is a picture of its own."""
    image = picture(preset).copy()
    image[0, 0] = number >> 16, number >> 8 & 255, number & 255
    return image


def png(preset: str, number: int) -> bytes:
    """Return a numbered picture as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(numbered_picture(preset, number)).save(buffer, "PNG")
    return buffer.getvalue()


def pixel_values(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Normalise a picture [size, size, 3] as CLIP does: float32 [1, 3, size, size]."""
    scaled = (image / 255 - np.asarray(IMAGE_MEAN)) / np.asarray(IMAGE_STD)
    return np.ascontiguousarray(scaled.transpose(2, 0, 1)[None], dtype=np.float32)


def _exporter_digest() -> str:
    """Digest everything that decides what a package holds."""
    sources = [*Path(m2ib_export.__file__).parent.rglob("*.py"), TESTS / "checkpoints.py"]
    digest = hashlib.sha256()
    for source in sorted(sources):
        digest.update(source.read_bytes())
    return digest.hexdigest()
