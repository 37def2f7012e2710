"""Describes one phantom chest in scene units and says where its organs lie. Paints nothing, knows no finding.

Scene units: x runs from the image's left to its right, y downwards, the chest's centre is (0, 0) and the
torso is about 1.8 wide. The patient faces the viewer, so the patient's right side has negative x.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Field = NDArray[np.floating[Any]]  # float32; one value per pixel, or broadcastable to [rows, columns]


def as_field(values: ArrayLike) -> Field:
    """The values as float32."""
    return np.asarray(values, np.float32)


class Side(Enum):
    """The patient's side, not the viewer's."""

    RIGHT = "right"
    LEFT = "left"

    @property
    def sign(self) -> int:
        """Sign of x on this side: the patient's right is the image's left."""
        return -1 if self is Side.RIGHT else 1


class Zone(Enum):
    """A third of the lung's height."""

    UPPER = "upper"
    MID = "mid"
    LOWER = "lower"

    @property
    def index(self) -> int:
        """0 for the upper, 1 for the mid, 2 for the lower third."""
        return list(Zone).index(self)


def soft_step(distance: Field, width: float) -> Field:
    """Soft edge: 0 well below zero, 1 well above; `width` is its half-width in the distance's unit."""
    return as_field(0.5 + 0.5 * np.tanh(distance * np.float32(1.0 / width)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Anatomy:
    """One patient's measures, all in scene units unless said otherwise."""

    torso_half_width: float
    shoulder_height: float
    cage_half_width: float
    apex_height: float
    base_height: float
    apex_offset: float
    dome_height: float
    right_dome_lift: float
    mediastinum_half_width: float
    heart_x: float
    heart_y: float
    heart_half_width: float
    heart_half_height: float
    heart_tilt: float  # radians
    aortic_knob: float
    rib_spacing: float
    rib_phase: float  # fraction of a spacing
    rib_slope: float
    rib_contrast: float
    clavicle_tilt: float
    scapula_offset: float
    breast_density: float
    gastric_bubble: float

    @classmethod
    def sample(cls, rng: np.random.Generator) -> Anatomy:
        """Draw a patient within the plausible ranges of `RANGES`."""
        return cls(**{field.name: float(rng.uniform(*RANGES[field.name])) for field in fields(cls)})

    def diaphragm(self, side: Side, x: Field) -> Field:
        """Height of the lung's lower border at each x: a dome that falls to the costophrenic angle."""
        lift = self.right_dome_lift if side is Side.RIGHT else 0.0
        across = (np.abs(x) - 0.30) / np.float32(self.cage_half_width - 0.30)
        fall = np.where(across > 0, 0.75 * across**2 + 0.30 * across**6, 0.25 * across**2)
        return as_field(self.base_height - self.dome_height - lift + self.dome_height * fall)

    def cage_edge(self, y: Field) -> Field:
        """Inner half-width of the rib cage at each height; zero above the apices."""
        height = np.float32(self.base_height - self.apex_height)
        below_apex = np.clip((y - self.apex_height) / height, 0.0, 1.1)
        rise = np.clip(1.0 - np.clip(1.0 - below_apex, 0, 1) ** 2.6, 0.0, 1.0) ** np.float32(0.52)
        return as_field(self.cage_half_width * rise * (1.0 - 0.05 * below_apex))

    def lung_distance(self, side: Side, x: Field, y: Field) -> Field:
        """Distance-like field [rows, columns]: positive inside the lung of `side`, about 0 on its border."""
        lateral = x * np.float32(side.sign)
        outer = self.cage_edge(y) - lateral
        near_apex = np.clip((self.apex_height + 0.45 - y) / 0.45, 0, 1)
        inner = lateral - (self.mediastinum_half_width + self.apex_offset * near_apex**2)
        floor = self.diaphragm(side, x) - y
        rounding = np.float32(0.022)  # soft minimum: no sharp corner at the apex
        corner = -rounding * np.log(np.exp(-outer / rounding) + np.exp(-inner / rounding))
        return as_field(np.minimum(corner, floor))

    def heart_distance(self, x: Field, y: Field) -> Field:
        """Positive inside the heart's shadow, in units of its radius. Shape [rows, columns]."""
        cos, sin = np.float32(np.cos(self.heart_tilt)), np.float32(np.sin(self.heart_tilt))
        dx, dy = x - np.float32(self.heart_x), y - np.float32(self.heart_y)
        along = (dx * cos + dy * sin) / np.float32(self.heart_half_width)
        across = (dy * cos - dx * sin) / np.float32(self.heart_half_height)
        return as_field(1.0 - np.sqrt(along**2 + across**2))

    def zone_bounds(self, zone: Zone) -> tuple[float, float]:
        """Upper and lower height of a zone: equal thirds between apex and mean lung floor."""
        top = self.apex_height
        third = (self.base_height - 0.5 * self.dome_height - top) / 3
        return top + zone.index * third, top + (zone.index + 1) * third


RANGES: dict[str, tuple[float, float]] = {
    "torso_half_width": (0.86, 0.96),
    "shoulder_height": (-0.80, -0.70),
    "cage_half_width": (0.66, 0.76),
    "apex_height": (-0.82, -0.74),
    "base_height": (0.58, 0.72),
    "apex_offset": (0.03, 0.07),
    "dome_height": (0.20, 0.28),
    "right_dome_lift": (0.01, 0.06),
    "mediastinum_half_width": (0.11, 0.15),
    "heart_x": (0.08, 0.14),
    "heart_y": (0.22, 0.30),
    "heart_half_width": (0.27, 0.33),
    "heart_half_height": (0.24, 0.29),
    "heart_tilt": (0.25, 0.55),
    "aortic_knob": (0.08, 0.11),
    "rib_spacing": (0.145, 0.175),
    "rib_phase": (0.0, 1.0),
    "rib_slope": (0.30, 0.48),
    "rib_contrast": (0.09, 0.14),
    "clavicle_tilt": (-0.34, -0.18),
    "scapula_offset": (-0.04, 0.05),
    "breast_density": (0.0, 0.08),
    "gastric_bubble": (0.0, 0.35),
}
