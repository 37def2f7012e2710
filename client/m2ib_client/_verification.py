"""Compares a kept result with the one that its provenance leads to when it is asked for again."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast

import numpy as np

from m2ib_client._errors import InvalidRequestError
from m2ib_client._plain import PlainValue, plain
from m2ib_client._recorded import Recorded, check_package, origin_of
from m2ib_client._results import Explanation
from m2ib_client._tensor import FloatArray

VerdictName: TypeAlias = Literal["exact", "within_tolerance", "differs"]

DEFAULT_TOLERANCE = 0.01
SIMILARITY_TOLERANCE = 1e-3  # of the cosine: what half precision on another device may make of it


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """How far bits that came out now are from those that were kept.

    `max_abs_difference` is in bits, infinite where there are not as many now as then; `relative_difference` is it
    relative to the largest of those kept. `rank_correlation` is Spearman's, in [-1, 1]; None where either are all
    equal.
    """

    max_abs_difference: float
    relative_difference: float
    rank_correlation: float | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Verification:
    """Whether a kept result comes out again.

    `verdict` is "exact" where image, text, similarity and all bits are the same, "within_tolerance" where image and
    text are and the numbers are close, "differs" otherwise. `same_image` compares the SHA-256 of what was sent;
    `same_text` that of the text, and its tokens where they were explained. It is None where the result tells neither.
    `grid` and `tokens` are None for a side that was not explained, `tokens` also where the tokens are others.
    `provenance_differences` has the device and the software that are not the same, as (then, now): another device or
    version may well round otherwise, and then only "within_tolerance" can be expected. `replayed` is the result now.
    """

    verdict: VerdictName
    same_image: bool
    same_text: bool | None
    similarity_difference: float
    grid: Comparison | None
    tokens: Comparison | None
    provenance_differences: Mapping[str, tuple[str, str]]
    tolerance: float
    replayed: Explanation

    def to_dict(self) -> dict[str, PlainValue]:
        """Return JSON-safe values; what is infinite becomes None."""
        return cast("dict[str, PlainValue]", plain(self))


def checked_tolerance(tolerance: float) -> float:
    """Return the tolerance.

    Raises:
        InvalidRequestError: it cannot be meant.
    """
    if not 0 <= tolerance < 1:  # false for NaN too
        raise InvalidRequestError.of("tolerance", seen=f"{tolerance:g}", allowed="0 to less than 1")
    return tolerance


def compare(recorded: Recorded, replayed: Explanation, text: str, *, tolerance: float) -> Verification:
    """Hold what came out now against what was kept.

    Raises:
        NotFoundError: it came from another package.
    """
    check_package(recorded, replayed)
    provenance = replayed.provenance
    same_image = provenance.image_sha256 == recorded.image_sha256
    same_text = _is_same_text(recorded, replayed, text)
    grid = None
    if recorded.grid_bits is not None and replayed.image is not None:
        grid = _compare(recorded.grid_bits, replayed.image.grid_bits)
    tokens = None
    if recorded.token_bits is not None and _token_ids(replayed) == recorded.token_ids:
        tokens = _compare(recorded.token_bits, _token_bits(replayed))
    difference = abs(replayed.similarity - recorded.similarity)
    verdict: VerdictName = "differs"
    compared = [each for each in (grid, tokens) if each is not None]
    sides = (recorded.grid_bits is not None) + (recorded.token_bits is not None)
    if same_image and same_text is not False and len(compared) == sides > 0:  # nothing kept proves nothing
        verdict = _verdict(compared, difference, tolerance)
    return Verification(
        verdict=verdict,
        same_image=same_image,
        same_text=same_text,
        similarity_difference=difference,
        grid=grid,
        tokens=tokens,
        provenance_differences=_differences(recorded.origin, origin_of(_plain_provenance(replayed))),
        tolerance=tolerance,
        replayed=replayed,
    )


def _verdict(compared: list[Comparison], similarity_difference: float, tolerance: float) -> VerdictName:
    if not similarity_difference and not any(each.max_abs_difference for each in compared):
        return "exact"
    is_close = similarity_difference <= SIMILARITY_TOLERANCE
    if is_close and all(each.relative_difference <= tolerance for each in compared):
        return "within_tolerance"
    return "differs"


def _is_same_text(recorded: Recorded, replayed: Explanation, text: str) -> bool | None:
    has_digest, has_tokens = bool(recorded.text_sha256), recorded.token_ids is not None
    if not has_digest and not has_tokens:
        return None
    is_same = not has_digest or hashlib.sha256(text.encode()).hexdigest() == recorded.text_sha256
    return is_same and (not has_tokens or _token_ids(replayed) == recorded.token_ids)


def _compare(then: FloatArray, now: FloatArray) -> Comparison:
    if then.shape != now.shape or not np.isfinite(then).all():
        return Comparison(max_abs_difference=math.inf, relative_difference=math.inf, rank_correlation=None)
    largest = float(np.abs(np.subtract(now, then, dtype=np.float64)).max(initial=0.0))
    scale = float(np.abs(then).max(initial=0.0))
    relative = largest / scale if scale else (math.inf if largest else 0.0)
    return Comparison(
        max_abs_difference=largest, relative_difference=relative, rank_correlation=_rank_correlation(then, now)
    )


def _rank_correlation(then: FloatArray, now: FloatArray) -> float | None:
    """Return Spearman's correlation: Pearson's of the ranks, equal values sharing their mean rank."""
    ranks = [_ranks(each.ravel()) for each in (then, now)]
    if not all(each.std() for each in ranks):
        return None
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _ranks(values: FloatArray) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return cast("np.ndarray[tuple[int], np.dtype[np.float64]]", (ends - (counts - 1) / 2)[places])


def _token_ids(explanation: Explanation) -> tuple[int, ...]:
    return tuple(token.token_id for token in explanation.tokens)


def _token_bits(explanation: Explanation) -> FloatArray:
    return np.asarray([token.bits for token in explanation.tokens], np.float32)


def _plain_provenance(explanation: Explanation) -> Mapping[str, object]:
    return {"device": explanation.provenance.device, "software": explanation.provenance.software}


def _differences(then: Mapping[str, str], now: Mapping[str, str]) -> Mapping[str, tuple[str, str]]:
    return {
        name: (then.get(name, ""), now.get(name, ""))
        for name in sorted(then.keys() | now.keys())
        if then.get(name) != now.get(name)
    }
