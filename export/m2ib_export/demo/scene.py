"""Paints a healthy phantom chest as X-ray attenuation on a pixel grid. Findings are painted over it elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from m2ib_export.demo.anatomy import Anatomy, Field, Side, as_field, soft_step

AIR_CONTRAST = 0.44  # attenuation that a fully aerated lung takes away from soft tissue
VESSELS_PER_LUNG = 11


@dataclass(slots=True, kw_only=True)
class Scene:
    """A chest under construction.

    x: [1, columns] and y: [rows, 1] in scene units; the other fields are [rows, columns]. `attenuation` holds
    tissue and bone, `air` the lungs' aeration in 0..1, `vessels` their markings; painters change these three.
    """

    anatomy: Anatomy
    x: Field
    y: Field
    attenuation: Field
    air: Field
    vessels: Field
    lungs: Mapping[Side, Field]

    def total(self) -> Field:
        """Attenuation of everything, in units where soft tissue of full depth is about 0.65."""
        return as_field(self.attenuation - AIR_CONTRAST * self.air + self.vessels * self.air)


def paint_chest(anatomy: Anatomy, x: Field, y: Field, rng: np.random.Generator) -> Scene:
    """Paint torso, skeleton, mediastinum, heart and lungs. x: [1, columns], y: [rows, 1]."""
    lungs = {side: soft_step(anatomy.lung_distance(side, x, y), 0.014) for side in Side}
    heart = soft_step(anatomy.heart_distance(x, y), 0.05)
    solid = np.maximum(heart, mediastinum(anatomy, x, y))
    air = (lungs[Side.RIGHT] + lungs[Side.LEFT]) * (1.0 - 0.90 * solid)
    body = torso(anatomy, x, y)
    depth = np.sqrt(np.clip(anatomy.heart_distance(x, y), 0, 1))
    attenuation = body * (0.60 + 0.13 * soft_step(y - 0.40, 0.22)) + body * skeleton(anatomy, x, y)
    attenuation += body * (0.10 * solid + 0.09 * depth + soft_parts(anatomy, x, y))
    attenuation += 0.05 * body * clouds(rng, x, y, cells=7)
    return Scene(
        anatomy=anatomy,
        x=x,
        y=y,
        attenuation=attenuation.astype(np.float32),
        air=air.astype(np.float32),
        vessels=vessel_tree(anatomy, x, y, rng) + 0.04 * clouds(rng, x, y, cells=28),
        lungs=lungs,
    )


def torso(anatomy: Anatomy, x: Field, y: Field) -> Field:
    """Soft tissue depth in 0..1: neck, sloping shoulders, flanks; thinner towards the skin."""
    shoulder = np.clip((y - (anatomy.shoulder_height - 0.10)) / 0.32, 0, 1) ** 0.6
    half_width = 0.24 + (anatomy.torso_half_width + 0.06 - 0.24) * shoulder - 0.05 * np.clip(y + 0.2, 0, 1)
    depth = (half_width - np.abs(x)) / np.float32(anatomy.torso_half_width)
    return as_field(soft_step(depth, 0.012) * (0.55 + 0.45 * np.clip(depth * 3.2, 0, 1) ** 0.6))


def mediastinum(anatomy: Anatomy, x: Field, y: Field) -> Field:
    """Great vessels, aortic knob and hila, 0..1."""
    half_width = anatomy.mediastinum_half_width * (0.95 + 0.25 * soft_step(y - 0.1, 0.3))
    column = soft_step(half_width - np.abs(x - 0.01), 0.02) * soft_step(y + 0.95, 0.1)
    knob = blob(x, y, 0.12, -0.27, anatomy.aortic_knob, 0.10, edge=0.12)
    hila = blob(x, y, -0.17, -0.02, 0.09, 0.14, edge=0.5) + blob(x, y, 0.18, -0.06, 0.08, 0.13, edge=0.5)
    return as_field(np.clip(np.maximum(column, knob) + 0.45 * hila, 0, 1))


def blob(x: Field, y: Field, cx: float, cy: float, rx: float, ry: float, *, edge: float) -> Field:
    """Soft ellipse, 0..1; `edge` is the border's half-width as a share of the radius."""
    radius = np.sqrt(((x - np.float32(cx)) / np.float32(rx)) ** 2 + ((y - np.float32(cy)) / np.float32(ry)) ** 2)
    return soft_step(as_field(1.0 - radius), edge)


def skeleton(anatomy: Anatomy, x: Field, y: Field) -> Field:
    """Extra attenuation of spine, ribs, clavicles and scapulae."""
    return as_field(spine(x, y) + ribs(anatomy, x, y) + clavicles(anatomy, x, y) + scapulae(anatomy, x, y))


def spine(x: Field, y: Field) -> Field:
    """Column of vertebral bodies with fainter discs, and the trachea's air in front of it."""
    column = soft_step(0.075 - np.abs(x), 0.012)
    bodies = 0.07 + 0.045 * soft_step(np.sin(y * np.float32(2 * np.pi / 0.155)) + 0.35, 0.3)
    trachea = soft_step(0.035 - np.abs(x + 0.008), 0.010) * soft_step(-0.20 - y, 0.05)
    return as_field(column * bodies - 0.17 * trachea)


def band(phase: Field, half_width: float) -> Field:
    """Periodic bone band, one per unit of phase, with brighter rims as cortical bone has."""
    offset = np.abs(phase - np.round(phase))
    inside = soft_step(half_width - offset, 0.035)
    rim = np.exp(-(((offset - half_width + 0.04) / 0.045) ** 2))
    return as_field(0.62 * inside + 0.38 * rim)


def ribs(anatomy: Anatomy, x: Field, y: Field) -> Field:
    """Posterior ribs arching outwards and fainter anterior ribs falling inwards."""
    lateral = np.abs(x)
    cage = soft_step(anatomy.cage_edge(y) + 0.035 - lateral, 0.02) * soft_step(lateral - 0.07, 0.02)
    cage = cage * soft_step(anatomy.base_height + 0.02 - y, 0.10)
    arch = anatomy.rib_slope * lateral**2 * 1.5 - 0.22 * lateral
    posterior = band((y - arch) / np.float32(anatomy.rib_spacing) + np.float32(anatomy.rib_phase), 0.24)
    rise = 0.75 * anatomy.rib_slope * (0.75 - lateral) ** 1 * 2.0
    anterior = band((y - rise) / np.float32(anatomy.rib_spacing * 1.12) + np.float32(anatomy.rib_phase), 0.20)
    reach = soft_step(lateral - 0.36, 0.06) * soft_step(y + 0.45, 0.15)
    return as_field(anatomy.rib_contrast * cage * (posterior + 0.62 * anterior * reach))


def clavicles(anatomy: Anatomy, x: Field, y: Field) -> Field:
    """A shallow S-shaped bar on each side below the apex."""
    lateral = np.abs(x)
    centre = -0.54 + anatomy.clavicle_tilt * (lateral - 0.08) + 0.03 * np.sin(lateral * np.float32(6.5))
    offset = np.abs(y - centre)
    bar = 0.6 * soft_step(0.030 - offset, 0.008) + 0.4 * np.exp(-(((offset - 0.026) / 0.008) ** 2))
    return as_field(0.13 * bar * soft_step(lateral - 0.075, 0.012) * soft_step(0.80 - lateral, 0.03))


def scapulae(anatomy: Anatomy, x: Field, y: Field) -> Field:
    """The medial border of each shoulder blade, a faint oblique sheet over the outer lung."""
    lateral = np.abs(x)
    border = lateral - (0.66 + anatomy.scapula_offset + 0.18 * (y + 0.35))
    height = soft_step(y + 0.68, 0.04) * soft_step(0.02 - y, 0.10)
    return as_field(height * soft_step(border, 0.015) * (0.035 + 0.05 * np.exp(-((border / 0.03) ** 2))))


def soft_parts(anatomy: Anatomy, x: Field, y: Field) -> Field:
    """Breast shadows, and the stomach's gas under the left dome."""
    breasts = blob(x, y, -0.42, 0.36, 0.30, 0.26, edge=0.12) + blob(x, y, 0.44, 0.36, 0.30, 0.26, edge=0.12)
    floor = float(anatomy.diaphragm(Side.LEFT, np.full((1, 1), 0.34, np.float32))[0, 0])
    bubble = blob(x, y, 0.34, floor + 0.13, 0.13, 0.075, edge=0.3)
    return as_field(anatomy.breast_density * breasts - anatomy.gastric_bubble * bubble)


def vessel_tree(anatomy: Anatomy, x: Field, y: Field, rng: np.random.Generator) -> Field:
    """Lung markings: tapering curves that leave each hilum and thin out towards the periphery."""
    markings = np.zeros(np.broadcast_shapes(x.shape, y.shape), np.float32)
    for side in Side:
        angles = np.linspace(-1.35, 1.25, VESSELS_PER_LUNG) + rng.uniform(-0.12, 0.12, VESSELS_PER_LUNG)
        lengths = rng.uniform(0.38, 0.68, VESSELS_PER_LUNG)
        bends = rng.uniform(-0.9, 0.9, VESSELS_PER_LUNG)
        dx = x * np.float32(side.sign) - np.float32(anatomy.mediastinum_half_width)
        for angle, length, bend in zip(angles, lengths, bends, strict=True):
            markings += vessel(dx, y + np.float32(0.02), float(angle), float(length), float(bend))
    return as_field(0.18 * np.tanh(markings / 0.18))  # no bright point where all meet at the hilum


def vessel(dx: Field, dy: Field, angle: float, length: float, bend: float) -> Field:
    """One tapering, bent line that starts at the origin."""
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    along = dx * cos + dy * sin
    share = np.clip(along / np.float32(length), 0, 1)
    across = dy * cos - dx * sin - np.float32(bend) * along * along
    width = 0.020 - 0.014 * share
    reach = (1.0 - share) * (along > 0)
    return as_field(0.16 * reach * np.exp(-((across / width) ** 2)))


def clouds(rng: np.random.Generator, x: Field, y: Field, *, cells: int) -> Field:
    """Smooth random field about 0 with standard deviation near 1, the same at every resolution."""
    grid = rng.standard_normal((cells + 3, cells + 3)).astype(np.float32)
    return as_field(interpolation(y.ravel(), cells) @ grid @ interpolation(x.ravel(), cells).T * 1.5)


def interpolation(positions: Field, cells: int) -> Field:
    """Quadratic B-spline weights [positions, cells + 3] of a grid that spans -1.3..1.3."""
    place = np.clip((positions + 1.3) / 2.6, 0, 1) * cells + 1.0
    offset = np.abs(place[:, None] - np.arange(cells + 3, dtype=np.float32)[None, :])
    inner = 0.75 - offset**2
    outer = 0.5 * np.clip(1.5 - offset, 0, None) ** 2
    return as_field(np.where(offset < 0.5, inner, outer))
