"""Words the findings of a film as a report would, and decides which films a phrase is true of."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from itertools import product

import numpy as np

from m2ib_export.demo.anatomy import Zone
from m2ib_export.demo.finding import ALL_FINDINGS, HABITS, Finding, Kind

NAMES: dict[Kind, tuple[str, ...]] = {
    Kind.NODULE: ("nodule", "pulmonary nodule", "small nodule", "coin lesion"),
    Kind.MASS: ("mass", "lung mass", "large mass", "rounded mass"),
    Kind.OPACITY: ("opacity", "consolidation", "airspace opacity", "patchy opacity"),
    Kind.EFFUSION: ("pleural effusion", "effusion", "pleural fluid"),
    Kind.PNEUMOTHORAX: ("pneumothorax", "apical pneumothorax"),
    Kind.ENLARGED_HEART: ("enlarged heart", "cardiomegaly", "enlarged cardiac silhouette"),
    Kind.PACEMAKER: ("pacemaker", "cardiac pacemaker", "pacemaker generator"),
    Kind.ATELECTASIS: ("plate atelectasis", "linear atelectasis", "plate-like atelectasis", "atelectatic band"),
    Kind.CENTRAL_LINE: ("central line", "central venous catheter", "central venous line"),
}
WITHOUT_ARTICLE = frozenset(
    {
        "consolidation",
        "cardiomegaly",
        "pleural fluid",
        "plate atelectasis",
        "linear atelectasis",
        "plate-like atelectasis",
    }
)
PLACES: dict[Zone, tuple[str, ...]] = {
    Zone.UPPER: ("{side} upper zone", "{side} upper lobe", "{side} upper lung"),
    Zone.MID: ("{side} mid zone", "{side} mid lung", "{side} middle zone"),
    Zone.LOWER: ("{side} lower zone", "{side} lower lobe", "{side} lower lung"),
}
ZONED_FORMS = (
    "{place} {name}",
    "{name} in the {place}",
    "there is {a_name} in the {place}",
    "{a_name} is seen in the {place}",
)
SIDED_FORMS = ("{side} {name}", "{side}-sided {name}", "there is {a_side_name}", "{name} on the {side}")
CENTRAL_FORMS = ("{name}", "there is {a_name}", "{a_name} is seen")
NORMAL_PHRASES = (
    "normal chest radiograph",
    "normal chest",
    "no acute finding",
    "clear lungs and normal heart size",
    "the lungs are clear",
    "no abnormality is seen",
)
JOINS = (" and ", ", ", " with ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Caption:
    """A phrase and what it claims. Without claims it says that the film is normal.

    A claim is a finding whose side or zone may be None although its kind has one: the phrase leaves it open.
    """

    text: str
    claims: tuple[Finding, ...]


def is_true(caption: Caption, findings: tuple[Finding, ...]) -> bool:
    """Whether every claim holds in a film with these findings, and a claim-free phrase only in a normal film."""
    if not caption.claims:
        return not findings
    return all(any(matches(claim, finding) for finding in findings) for claim in caption.claims)


def matches(claim: Finding, finding: Finding) -> bool:
    """Whether a finding is what the claim says; an open side or zone fits any."""
    if claim.kind is not finding.kind:
        return False
    return claim.side in (None, finding.side) and claim.zone in (None, finding.zone)


def with_article(name: str) -> str:
    """The name with 'a' or 'an', unless it is one that takes none."""
    if name.removeprefix("right ").removeprefix("left ") in WITHOUT_ARTICLE:
        return name
    return f"an {name}" if name[0] in "aeo" else f"a {name}"


@cache
def wordings(claim: Finding) -> tuple[str, ...]:
    """Every phrase for one claim, the plainest first."""
    names, side = NAMES[claim.kind], claim.side.value if claim.side else None
    if side is None:
        return tuple(form.format(name=n, a_name=with_article(n)) for form, n in product(CENTRAL_FORMS, names))
    if claim.zone is None:
        return tuple(
            form.format(side=side, name=n, a_side_name=with_article(f"{side} {n}"))
            for form, n in product(SIDED_FORMS, names)
        )
    places = [place.format(side=side) for place in PLACES[claim.zone]]
    return tuple(
        form.format(place=place, name=n, a_name=with_article(n))
        for form, n, place in product(ZONED_FORMS, names, places)
    )


def plain_phrase(finding: Finding) -> str:
    """The shortest full phrase of a finding, such as 'right upper zone nodule'."""
    return wordings(finding)[0]


def pick(choices: tuple[str, ...], rng: np.random.Generator) -> str:
    """One of the choices, each as likely."""
    return choices[int(rng.integers(len(choices)))]


def sample_caption(findings: tuple[Finding, ...], rng: np.random.Generator) -> Caption:
    """Word one finding of the film, some of the time vaguely, or all of them in one sentence."""
    if not findings:
        return Caption(text=pick(NORMAL_PHRASES, rng), claims=())
    if len(findings) > 1 and rng.random() < 0.35:
        return combined_caption(findings, rng)
    return single_caption(findings[int(rng.integers(len(findings)))], rng)


def single_caption(finding: Finding, rng: np.random.Generator) -> Caption:
    """Word one finding; one phrase in five leaves the zone open, one in twenty the side too."""
    looseness = rng.random()
    claim = finding
    if looseness < 0.20:
        claim = replace(claim, zone=None)
    if looseness < 0.05:
        claim = replace(claim, side=None)
    return Caption(text=pick(wordings(claim), rng), claims=(claim,))


def combined_caption(findings: tuple[Finding, ...], rng: np.random.Generator) -> Caption:
    """Name every finding once, in random order and short forms."""
    ordered = [findings[int(position)] for position in rng.permutation(len(findings))]
    words = [pick(short_wordings(finding), rng) for finding in ordered]
    return Caption(text=pick(JOINS, rng).join(words), claims=tuple(ordered))


def short_wordings(finding: Finding) -> tuple[str, ...]:
    """The wordings of the first form: no verb, fit to be joined."""
    phrases = wordings(finding)
    forms = ZONED_FORMS if finding.zone else SIDED_FORMS if finding.side else CENTRAL_FORMS
    return phrases[: len(phrases) // len(forms)]


def all_claims() -> tuple[Finding, ...]:
    """Every claim a single phrase can make: the findings, and the same with zone or side left open."""
    open_zone = [replace(finding, zone=None) for finding in ALL_FINDINGS]
    open_side = [Finding(kind=kind) for kind in HABITS]
    return tuple(dict.fromkeys([*ALL_FINDINGS, *open_zone, *open_side]))


def all_phrases() -> tuple[str, ...]:
    """Every phrase for a single claim, and those for a normal film; combinations are not listed."""
    phrases = [phrase for claim in all_claims() for phrase in wordings(claim)]
    return tuple(dict.fromkeys([*phrases, *NORMAL_PHRASES]))


def decoy_of(finding: Finding, findings: tuple[Finding, ...], rng: np.random.Generator) -> Finding:
    """A near miss that the film does not show: another side or zone of the kind, or another kind in the place."""
    others = [other for other in ALL_FINDINGS if other not in findings]
    near = [o for o in others if o.kind is finding.kind or (o.side, o.zone) == (finding.side, finding.zone)]
    pool = near or others
    return pool[int(rng.integers(len(pool)))]
