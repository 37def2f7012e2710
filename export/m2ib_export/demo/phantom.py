"""Renders one phantom chest film from a seed: pixels, findings and the pixels that each finding covers."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from m2ib_export.demo.anatomy import Anatomy, Field, as_field
from m2ib_export.demo.finding import Finding, Kind, sample_findings
from m2ib_export.demo.lesion import Mask, paint_finding
from m2ib_export.demo.scene import paint_chest

SMALLEST_SIDE = 32  # below this many pixels no finding can be told


@dataclass(frozen=True, slots=True, kw_only=True)
class Film:
    """A rendered phantom.

    pixels: float32 [rows, columns] in 0..1, bones bright. masks: one bool [rows, columns] per finding.
    """

    seed: int
    pixels: Field
    findings: tuple[Finding, ...]
    masks: tuple[Mask, ...]

    @property
    def pixels_u8(self) -> NDArray[np.uint8]:
        """The pixels as 8-bit grey levels."""
        return np.round(self.pixels * 255).astype(np.uint8)


def render_film(seed: int, shape: tuple[int, int] = (1024, 1024), findings: tuple[Finding, ...] | None = None) -> Film:
    """Render the film of one seed. The same seed and findings give the same chest at every resolution.

    shape: rows and columns. findings: drawn from the seed when None; empty for a normal film.

    Raises:
        ValueError: a side is below `SMALLEST_SIDE` pixels.
    """
    if min(shape) < SMALLEST_SIDE:
        raise ValueError(f"a film needs at least {SMALLEST_SIDE} pixels a side, not {min(shape)}")
    choice, patient, lesions, exposure = (np.random.default_rng([seed, stream]) for stream in range(4))
    chosen = sample_findings(choice) if findings is None else findings
    anatomy = Anatomy.sample(patient)
    if any(finding.kind is Kind.ENLARGED_HEART for finding in chosen):
        anatomy = enlarge_heart(anatomy, lesions)
    x, y = pixel_grid(shape, patient)
    scene = paint_chest(anatomy, x, y, patient)
    masks = tuple(paint_finding(scene, finding, lesions) for finding in chosen)
    return Film(seed=seed, pixels=expose(scene.total(), exposure), findings=chosen, masks=masks)


def pixel_grid(shape: tuple[int, int], rng: np.random.Generator) -> tuple[Field, Field]:
    """Scene coordinates of pixel centres, x [1, columns] and y [rows, 1], for a slightly off-centre patient."""
    rows, columns = shape
    half = 0.5 * max(rows, columns) / float(rng.uniform(0.96, 1.10))
    shift_x, shift_y = rng.uniform(-0.05, 0.05), rng.uniform(-0.04, 0.06)
    x = (np.arange(columns, dtype=np.float32) + 0.5 - columns / 2) / np.float32(half) + np.float32(shift_x)
    y = (np.arange(rows, dtype=np.float32) + 0.5 - rows / 2) / np.float32(half) - np.float32(shift_y)
    return x[None, :].astype(np.float32), y[:, None].astype(np.float32)


def enlarge_heart(anatomy: Anatomy, rng: np.random.Generator) -> Anatomy:
    """Widen the heart to a cardiothoracic ratio well above one half."""
    return replace(
        anatomy,
        heart_half_width=float(rng.uniform(0.45, 0.53)),
        heart_half_height=float(rng.uniform(0.33, 0.38)),
        heart_x=anatomy.heart_x + 0.04,
        heart_y=anatomy.heart_y - 0.02,
    )


def expose(attenuation: Field, rng: np.random.Generator) -> Field:
    """Turn attenuation into grey levels 0..1: film curve of random exposure and contrast, then grain."""
    gamma, gain = rng.uniform(0.85, 1.2), rng.uniform(0.92, 1.06)
    level = np.clip((attenuation - 0.02) * np.float32(gain / 0.98), 0, None)
    toe = level / (1.0 + np.clip(level - 0.80, 0, None) * 0.6)
    grain = rng.standard_normal(attenuation.shape, dtype=np.float32) * np.float32(rng.uniform(0.008, 0.022))
    return as_field(np.clip(toe ** np.float32(gamma) + grain, 0, 1))
