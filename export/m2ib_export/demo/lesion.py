"""Paints findings over a healthy scene and returns the pixels each one covers."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from m2ib_export.demo.anatomy import Anatomy, Field, Side, Zone, as_field, soft_step
from m2ib_export.demo.finding import Finding, Kind
from m2ib_export.demo.scene import Scene, clouds

Mask = NDArray[np.bool_]
Painter = Callable[[Scene, Finding, np.random.Generator], Mask]
COVERED = 0.45  # share of a finding's own strength above which a pixel counts as covered


def paint_finding(scene: Scene, finding: Finding, rng: np.random.Generator) -> Mask:
    """Paint one finding into the scene and return its mask [rows, columns]."""
    return PAINTERS[finding.kind](scene, finding, rng)


def side_of(finding: Finding) -> Side:
    """The finding's side.

    Raises:
        ValueError: the finding names none.
    """
    if finding.side is None:
        raise ValueError(f"a finding of kind {finding.kind.value} needs a side")
    return finding.side


def lung_spot(anatomy: Anatomy, side: Side, zone: Zone, margin: float, rng: np.random.Generator) -> tuple[float, float]:
    """Draw a point inside one zone of a lung, `margin` away from its border where the zone is roomy enough."""
    top, bottom = anatomy.zone_bounds(zone)
    for attempt in range(60):
        y = rng.uniform(top + 0.3 * margin, bottom - 0.3 * margin)
        x = side.sign * rng.uniform(anatomy.mediastinum_half_width + 0.05, anatomy.cage_half_width)
        clearance = margin * (1.0 - attempt / 60)
        if is_clear(anatomy, side, float(x), float(y), clearance):
            return float(x), float(y)
    return side.sign * 0.42, (top + bottom) / 2


def is_clear(anatomy: Anatomy, side: Side, x: float, y: float, clearance: float) -> bool:
    """Whether a point lies in the lung, `clearance` from its border and off the heart's shadow."""
    px, py = np.full((1, 1), x, np.float32), np.full((1, 1), y, np.float32)
    inside = float(anatomy.lung_distance(side, px, py)[0, 0]) > clearance
    return inside and float(anatomy.heart_distance(px, py)[0, 0]) < -0.6 * clearance


def zone_of(finding: Finding) -> Zone:
    """The finding's zone.

    Raises:
        ValueError: the finding names none.
    """
    if finding.zone is None:
        raise ValueError(f"a finding of kind {finding.kind.value} needs a zone")
    return finding.zone


def paint_round(
    scene: Scene, finding: Finding, rng: np.random.Generator, radii: tuple[float, float], density: tuple[float, float]
) -> Mask:
    """A rounded lesion, slightly oval, with a lobulated border."""
    radius = float(rng.uniform(*radii))
    cx, cy = lung_spot(scene.anatomy, side_of(finding), zone_of(finding), radius, rng)
    oval, lobes, turn = rng.uniform(0.85, 1.18), int(rng.integers(2, 5)), rng.uniform(0, 2 * np.pi, 2)
    dx, dy = scene.x - np.float32(cx), (scene.y - np.float32(cy)) * np.float32(oval)
    angle = np.arctan2(dy, dx)
    border = 1.0 + 0.04 * np.sin(lobes * angle + turn[0]) + 0.03 * np.sin((lobes + 3) * angle + turn[1])
    shape = soft_step(as_field(border - np.sqrt(dx**2 + dy**2) / np.float32(radius)), 0.14)
    scene.attenuation += np.float32(rng.uniform(*density)) * shape
    return shape > COVERED


def paint_nodule(scene: Scene, finding: Finding, rng: np.random.Generator) -> Mask:
    """A dense spot of 1 to 2 cm."""
    return paint_round(scene, finding, rng, (0.046, 0.068), (0.24, 0.34))


def paint_mass(scene: Scene, finding: Finding, rng: np.random.Generator) -> Mask:
    """A dense rounded lesion of 4 to 6 cm."""
    return paint_round(scene, finding, rng, (0.115, 0.165), (0.30, 0.42))


def paint_opacity(scene: Scene, finding: Finding, rng: np.random.Generator) -> Mask:
    """An ill-defined, patchy airspace opacity that stays within the lung."""
    side = side_of(finding)
    cx, cy = lung_spot(scene.anatomy, side, zone_of(finding), 0.13, rng)
    rx, ry = rng.uniform(0.14, 0.21), rng.uniform(0.12, 0.17)
    texture = clouds(rng, scene.x, scene.y, cells=16)
    radius = np.sqrt(
        ((scene.x - np.float32(cx)) / np.float32(rx)) ** 2 + ((scene.y - np.float32(cy)) / np.float32(ry)) ** 2
    )
    shape = soft_step(as_field(1.0 - radius + 0.16 * texture), 0.30) * scene.lungs[side]
    patchy = shape * (0.80 + 0.30 * np.clip(texture, -1.4, 1.4))
    scene.attenuation += np.float32(rng.uniform(0.24, 0.34)) * patchy
    return shape > COVERED


def paint_effusion(scene: Scene, finding: Finding, rng: np.random.Generator) -> Mask:
    """Fluid that hides the diaphragm and climbs the side wall with a meniscus."""
    side, anatomy = side_of(finding), scene.anatomy
    floor = float(anatomy.diaphragm(side, np.full((1, 1), side.sign * 0.45, np.float32))[0, 0])
    level = floor - rng.uniform(0.03, 0.17)
    lateral = np.clip(scene.x * np.float32(side.sign) / np.float32(anatomy.cage_half_width), 0, 1.05)
    surface = level + 0.07 * (1 - lateral) - rng.uniform(0.16, 0.30) * np.clip((lateral - 0.45) / 0.55, 0, 1.1) ** 2.4
    under = soft_step(as_field(scene.y - surface), 0.022) * scene.lungs[side]
    below_dome = cage_below(scene, side)
    fluid = np.maximum(under, soft_step(as_field(scene.y - surface), 0.022) * below_dome)
    scene.air *= 1.0 - 0.95 * under
    scene.attenuation += 0.09 * fluid
    return fluid > COVERED


def cage_below(scene: Scene, side: Side) -> Field:
    """The costophrenic gutter: inside the cage, just below the lung's floor on one side."""
    anatomy, lateral = scene.anatomy, scene.x * np.float32(side.sign)
    depth = scene.y - anatomy.diaphragm(side, scene.x)
    inside = soft_step(anatomy.cage_edge(scene.y) - lateral, 0.014) * soft_step(lateral - 0.22, 0.03)
    return as_field(inside * soft_step(depth + 0.02, 0.01) * soft_step(0.08 - depth, 0.02))


def paint_pneumothorax(scene: Scene, finding: Finding, rng: np.random.Generator) -> Mask:
    """Free air round the apex: darker than lung, without markings, bounded by a thin pleural line."""
    side, anatomy = side_of(finding), scene.anatomy
    gap, reach = rng.uniform(0.13, 0.21), rng.uniform(-0.10, 0.15)
    lateral = scene.x * np.float32(side.sign)
    wane = np.clip((reach - scene.y) / np.float32(reach - anatomy.apex_height), 0, 1) ** 0.55
    lowered = scene.y - np.float32(0.95 * gap) * wane
    edge = anatomy.cage_edge(lowered) - np.float32(0.55 * gap) * wane - lateral
    free = soft_step(as_field(-edge), 0.010) * scene.lungs[side] * soft_step(reach - scene.y, 0.03)
    line = np.exp(-((edge / 0.011) ** 2)) * scene.lungs[side] * soft_step(reach - scene.y, 0.03)
    scene.vessels *= 1.0 - free
    scene.attenuation += 0.13 * line - 0.10 * free
    return free > COVERED


def paint_enlarged_heart(scene: Scene, finding: Finding, rng: np.random.Generator) -> Mask:
    """Mark the heart's shadow; the enlargement itself is in the anatomy, see `enlarge_heart`."""
    heart = soft_step(scene.anatomy.heart_distance(scene.x, scene.y), 0.05)
    above = np.maximum(
        soft_step(scene.anatomy.diaphragm(Side.RIGHT, scene.x) + 0.05 - scene.y, 0.02),
        soft_step(scene.anatomy.diaphragm(Side.LEFT, scene.x) + 0.05 - scene.y, 0.02),
    )
    return heart * above > COVERED


def paint_pacemaker(scene: Scene, finding: Finding, rng: np.random.Generator) -> Mask:
    """A generator can below the clavicle with a lead to the right ventricle; the mask is the can."""
    sign = side_of(finding).sign
    cx, cy = sign * rng.uniform(0.46, 0.58), rng.uniform(-0.50, -0.40)
    turn = np.float32(rng.uniform(-0.35, 0.35))
    dx, dy = scene.x - np.float32(cx), scene.y - np.float32(cy)
    u, v = dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)
    radius = (np.abs(u / np.float32(0.105)) ** 3 + np.abs(v / np.float32(0.085)) ** 3) ** np.float32(1 / 3)
    can = soft_step(as_field(1.0 - radius), 0.05)
    header = soft_step(as_field(1.0 - np.maximum(np.abs(u / 0.05), np.abs((v + 0.095) / 0.025))), 0.15)
    tip = (0.16 + rng.uniform(-0.03, 0.05), 0.40 + rng.uniform(-0.05, 0.05))
    path = np.array([(cx, cy - 0.11), (sign * 0.30, cy - 0.17), (-0.07, -0.36), (-0.10, 0.12), tip])
    scene.attenuation += 0.75 * can + 0.45 * header + 0.13 * stroke(scene, path, 0.006)
    return np.maximum(can, header) > COVERED


def paint_atelectasis(scene: Scene, finding: Finding, rng: np.random.Generator) -> Mask:
    """A plate of collapsed lung: a thin, nearly level, gently bowed line."""
    side, zone = side_of(finding), zone_of(finding)
    cx, cy = lung_spot(scene.anatomy, side, zone, 0.11, rng)
    half_length, half_width = rng.uniform(0.15, 0.22), rng.uniform(0.013, 0.020)
    turn, bow = np.float32(rng.uniform(-0.35, 0.35)), np.float32(rng.uniform(-0.5, 0.5))
    dx, dy = scene.x - np.float32(cx), scene.y - np.float32(cy)
    u, v = dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)
    across = np.exp(-(((v - bow * u * u) / np.float32(half_width)) ** 2))
    plate = across * soft_step(as_field(half_length - np.abs(u)), 0.02) * scene.lungs[side]
    scene.attenuation += np.float32(rng.uniform(0.30, 0.40)) * plate
    return np.asarray(plate > 0.30)


def paint_central_line(scene: Scene, finding: Finding, rng: np.random.Generator) -> Mask:
    """A catheter from the neck down to the superior vena cava."""
    sign = side_of(finding).sign
    end = (-0.10 + rng.uniform(-0.02, 0.02), rng.uniform(-0.12, 0.10))
    neck = (sign * rng.uniform(0.20, 0.27), -0.93)
    path = np.array([neck, (sign * rng.uniform(0.17, 0.22), -0.66), (-0.06 + 0.03 * sign, -0.44), (-0.10, -0.30), end])
    catheter = stroke(scene, path, 0.010)
    scene.attenuation += np.float32(rng.uniform(0.24, 0.32)) * catheter
    return stroke(scene, path, 0.016) > 0.35


def stroke(scene: Scene, path: NDArray[np.float64], half_width: float) -> Field:
    """A line of Gaussian profile along a smoothed polyline. path: [points, 2] as (x, y) in scene units."""
    nearest = np.full(np.broadcast_shapes(scene.x.shape, scene.y.shape), np.inf, np.float32)
    points = as_field(rounded(path))
    for (ax, ay), (bx, by) in pairwise(points):
        dx, dy = bx - ax, by - ay
        share = np.clip(((scene.x - ax) * dx + (scene.y - ay) * dy) / (dx * dx + dy * dy), 0, 1)
        np.minimum(nearest, (scene.x - ax - share * dx) ** 2 + (scene.y - ay - share * dy) ** 2, out=nearest)
    return as_field(np.exp(-nearest / np.float32(half_width**2)))


def rounded(path: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cut the corners of a polyline once (Chaikin), keeping its ends."""
    near, far = 0.75 * path[:-1] + 0.25 * path[1:], 0.25 * path[:-1] + 0.75 * path[1:]
    inner = np.stack([near, far], axis=1).reshape(-1, 2)
    return np.concatenate([path[:1], inner[1:-1], path[-1:]])


PAINTERS: dict[Kind, Painter] = {
    Kind.NODULE: paint_nodule,
    Kind.MASS: paint_mass,
    Kind.OPACITY: paint_opacity,
    Kind.EFFUSION: paint_effusion,
    Kind.PNEUMOTHORAX: paint_pneumothorax,
    Kind.ENLARGED_HEART: paint_enlarged_heart,
    Kind.PACEMAKER: paint_pacemaker,
    Kind.ATELECTASIS: paint_atelectasis,
    Kind.CENTRAL_LINE: paint_central_line,
}
