"""Names the kinds of finding, says where each may lie, and draws the findings of one film."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from itertools import product

import numpy as np

from m2ib_export.demo.anatomy import Side, Zone


class Kind(Enum):
    """A kind of finding."""

    NODULE = "nodule"
    MASS = "mass"
    OPACITY = "opacity"
    EFFUSION = "effusion"
    PNEUMOTHORAX = "pneumothorax"
    ENLARGED_HEART = "enlarged-heart"
    PACEMAKER = "pacemaker"
    ATELECTASIS = "atelectasis"
    CENTRAL_LINE = "central-line"


@dataclass(frozen=True, slots=True, kw_only=True)
class Habit:
    """Where findings of one kind lie.

    zones: the zones a phrase may name; empty if the kind has a fixed place. place: the zone it takes up where it
    has no choice, so that no second finding is put there; None for the heart and lines, which share no lung zone.
    """

    zones: tuple[Zone, ...]
    has_side: bool
    place: Zone | None


HABITS: dict[Kind, Habit] = {
    Kind.NODULE: Habit(zones=tuple(Zone), has_side=True, place=None),
    Kind.MASS: Habit(zones=tuple(Zone), has_side=True, place=None),
    Kind.OPACITY: Habit(zones=tuple(Zone), has_side=True, place=None),
    Kind.EFFUSION: Habit(zones=(), has_side=True, place=Zone.LOWER),
    Kind.PNEUMOTHORAX: Habit(zones=(), has_side=True, place=Zone.UPPER),
    Kind.ENLARGED_HEART: Habit(zones=(), has_side=False, place=None),
    Kind.PACEMAKER: Habit(zones=(), has_side=True, place=Zone.UPPER),
    Kind.ATELECTASIS: Habit(zones=(Zone.MID, Zone.LOWER), has_side=True, place=None),
    Kind.CENTRAL_LINE: Habit(zones=(), has_side=True, place=None),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a finding is and where. `side` and `zone` are None for kinds whose habit has none."""

    kind: Kind
    side: Side | None = None
    zone: Zone | None = None

    @property
    def territory(self) -> tuple[object, ...]:
        """The part of the chest it takes up; two findings of one film never share it."""
        zone = self.zone or HABITS[self.kind].place
        return (self.side, zone) if zone else (self.kind,)


def all_findings() -> tuple[Finding, ...]:
    """Every finding there can be, in a fixed order: kind, then side, then zone."""
    found = []
    for kind, habit in HABITS.items():
        sides = tuple(Side) if habit.has_side else (None,)
        found += [Finding(kind=kind, side=side, zone=zone) for side, zone in product(sides, habit.zones or (None,))]
    return tuple(found)


ALL_FINDINGS = all_findings()
COUNT_SHARES = (0.08, 0.44, 0.34, 0.14)  # of films with no, one, two and three findings


def sample_finding(kind: Kind, rng: np.random.Generator) -> Finding:
    """Draw side and zone of a finding of one kind."""
    choices = [finding for finding in ALL_FINDINGS if finding.kind is kind]
    return choices[int(rng.integers(len(choices)))]


def sample_findings(rng: np.random.Generator, count: int | None = None) -> tuple[Finding, ...]:
    """Draw a film's findings: distinct kinds in distinct territories. `count`: 0..3, drawn when None.

    Raises:
        ValueError: `count` is negative or above three.
    """
    wanted = int(rng.choice(len(COUNT_SHARES), p=COUNT_SHARES)) if count is None else count
    if not 0 <= wanted < len(COUNT_SHARES):
        raise ValueError(f"a film has 0 to {len(COUNT_SHARES) - 1} findings, not {wanted}")
    found: list[Finding] = []
    for position in rng.permutation(len(Kind)):
        if len(found) == wanted:
            break
        finding = sample_finding(list(Kind)[int(position)], rng)
        if finding.territory not in {other.territory for other in found}:
            found.append(finding)
    return tuple(found)
