"""Renders many phantoms into arrays on disk, as the model will see them: letterboxed to its square input."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from m2ib_export.demo.finding import ALL_FINDINGS, Finding
from m2ib_export.demo.phantom import Film, render_film

INPUT_SIDE = 128  # pixels of the model's square input
CELL_SIDE = 4  # pixels of a mask cell: masks are kept as the share covered of each 4 x 4 cell
CELLS = INPUT_SIDE // CELL_SIDE
MAX_FINDINGS = 3
TRAINING_SEED, VALIDATION_SEED, TEST_SEED = 1_000_000, 2_000_000, 3_000_000
OVERSAMPLED_SHARE, OBLONG_SHARE = 0.25, 0.40


@dataclass(frozen=True, slots=True, kw_only=True)
class FilmSet:
    """Films as arrays.

    images: uint8 [films, 128, 128]; covers: uint8 [films, 3, 32, 32], 255 where a cell lies wholly in the
    mask; codes: int8 [films, 3], index into ALL_FINDINGS or -1.
    """

    images: NDArray[np.uint8]
    covers: NDArray[np.uint8]
    codes: NDArray[np.int8]

    def findings(self, row: int) -> tuple[Finding, ...]:
        """The findings of one film, in the order of its covers."""
        return tuple(ALL_FINDINGS[code] for code in self.codes[row] if code >= 0)


Row = tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.int8]]


def film_shape(seed: int) -> tuple[int, int]:
    """Rows and columns at which a film of the corpus is rendered: some finer than the input, some oblong."""
    rng = np.random.default_rng([seed, 9])
    side = INPUT_SIDE * (2 if rng.random() < OVERSAMPLED_SHARE else 1)
    if rng.random() >= OBLONG_SHARE:
        return side, side
    short = round(side * float(rng.uniform(0.78, 0.98)))
    return (short, side) if rng.random() < 0.4 else (side, short)


def letterbox(pixels: NDArray[np.uint8], side: int = INPUT_SIDE) -> NDArray[np.uint8]:
    """Fit an image [rows, columns] into a black square: bicubic with antialiasing, centred."""
    return fit_square(pixels, side, Image.Resampling.BICUBIC)


def fit_square(pixels: NDArray[np.uint8], side: int, resampling: Image.Resampling) -> NDArray[np.uint8]:
    """Scale the longer side to `side` pixels and pad the shorter one evenly with zeros."""
    rows, columns = pixels.shape
    scale = side / max(rows, columns)
    inner = max(1, round(rows * scale)), max(1, round(columns * scale))
    if inner != pixels.shape:
        pixels = np.asarray(Image.fromarray(pixels).resize(inner[::-1], resampling))
    square = np.zeros((side, side), np.uint8)
    top, left = (side - inner[0]) // 2, (side - inner[1]) // 2
    square[top : top + inner[0], left : left + inner[1]] = pixels
    return square


def cover_cells(film: Film) -> NDArray[np.uint8]:
    """Share of each cell that each finding covers: uint8 [3, 32, 32]."""
    covers = np.zeros((MAX_FINDINGS, CELLS, CELLS), np.uint8)
    for position, mask in enumerate(film.masks):
        fitted = fit_square(mask.astype(np.uint8) * 255, INPUT_SIDE, Image.Resampling.BOX).astype(np.float32)
        cells = fitted.reshape(CELLS, CELL_SIDE, CELLS, CELL_SIDE).mean(axis=(1, 3))
        covers[position] = np.ceil(cells).astype(np.uint8)
    return covers


def render_row(seed: int, findings_of: Callable[[int], tuple[Finding, ...] | None] | None = None) -> Row:
    """Render one film. findings_of: maps the seed to its findings; drawn from the seed when None."""
    film = render_film(seed, film_shape(seed), findings_of(seed) if findings_of else None)
    codes = np.full(MAX_FINDINGS, -1, np.int8)
    codes[: len(film.findings)] = [ALL_FINDINGS.index(finding) for finding in film.findings]
    return letterbox(film.pixels_u8), cover_cells(film), codes


def render_films(seeds: Iterable[int], findings_of: Callable[[int], tuple[Finding, ...]] | None = None) -> FilmSet:
    """Render films in this process."""
    images, covers, codes = zip(*(render_row(seed, findings_of) for seed in seeds), strict=True)
    return FilmSet(images=np.stack(images), covers=np.stack(covers), codes=np.stack(codes))


def build_films(folder: Path, first_seed: int, count: int, workers: int) -> FilmSet:
    """Render films with worker processes into memory-mapped arrays, or open those of an earlier call."""
    done = folder / f"{first_seed}-{count}.done"
    if not done.exists():
        folder.mkdir(parents=True, exist_ok=True)
        arrays = open_arrays(folder, first_seed, count, mode="w+")
        with get_context("spawn").Pool(workers) as pool:
            rows = pool.imap(render_row, range(first_seed, first_seed + count), chunksize=64)
            for row, (image, cover, code) in enumerate(rows):
                arrays[0][row], arrays[1][row], arrays[2][row] = image, cover, code
        for array in arrays:
            array.flush()
        done.touch()
    images, covers, codes = open_arrays(folder, first_seed, count, mode="r")
    return FilmSet(images=images, covers=covers, codes=codes)


def open_arrays(folder: Path, first_seed: int, count: int, mode: Any) -> tuple[np.memmap[Any, Any], ...]:
    """Map the three arrays of a film set."""
    shapes = {
        "images": (np.uint8, (count, INPUT_SIDE, INPUT_SIDE)),
        "covers": (np.uint8, (count, MAX_FINDINGS, CELLS, CELLS)),
        "codes": (np.int8, (count, MAX_FINDINGS)),
    }
    return tuple(
        np.memmap(folder / f"{first_seed}-{count}.{name}", dtype=kind, mode=mode, shape=shape)
        for name, (kind, shape) in shapes.items()
    )
