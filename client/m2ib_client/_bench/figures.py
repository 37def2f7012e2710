"""Turns the outcomes of a load test into figures. Without I/O."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import fields

from m2ib_client._bench.outcome import CANCELLED_HERE, NOT_SENT, OK, Outcome
from m2ib_client._bench.schedule import Plan
from m2ib_client._plain import PlainValue
from m2ib_client._results import Explanation, Provenance, Timings

QUANTILES = (("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99))
CACHED = (
    "image_features_cached",
    "text_features_cached",
    "image_embedding_cached",
    "text_embedding_cached",
    "shared",
)
OURS = (OK, CANCELLED_HERE, NOT_SENT)


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return the smallest value that at least this share of the ordered values does not exceed (nearest rank)."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def spread(values: Sequence[float]) -> dict[str, PlainValue]:
    """Return the percentiles, the mean and the largest of the values; how many alone where there are none."""
    if not values:
        return {"count": 0}
    ordered = sorted(values)
    quantiles = {name: quantile(ordered, share) for name, share in QUANTILES}
    return {"count": len(ordered), **quantiles, "max": ordered[-1], "mean": math.fsum(ordered) / len(ordered)}


def failed_share(outcomes: Sequence[Outcome]) -> float:
    """Return the share of the measured calls that failed, those that were never sent among them, in [0, 1].

    What was cancelled as planned neither failed nor counts.
    """
    counted = [one for one in _measured(outcomes) if one.status != CANCELLED_HERE]
    return sum(one.status != OK for one in counted) / len(counted) if counted else 0.0


def figures(plan: Plan, outcomes: Sequence[Outcome], *, broken_off_at: float | None = None) -> dict[str, PlainValue]:
    """Return all figures of the measured calls, JSON-safe; times are in seconds and rates in calls a second.

    `broken_off_at` is when the test was broken off, in seconds after its beginning: rates are of the time that was
    measured until then, and 0 where none was.
    """
    planned_end = plan.warm_up + plan.duration
    end = planned_end if broken_off_at is None else min(broken_off_at, planned_end)
    measured = _measured(outcomes)
    answered = [one for one in measured if one.status == OK]
    refused = [one for one in measured if one.status not in OURS]
    explanations = [one.explanation for one in answered if one.explanation is not None]
    return {
        "calls": len(measured),
        "warm_up_calls": len(outcomes) - len(measured),
        "offered_rate": _rate(len(measured), end - plan.warm_up),
        "achieved_rate": _achieved_rate(plan, answered, end),
        "outcomes": _counts(measured),
        "partial": sum(explanation.partial for explanation in explanations),
        "latency_seconds": {
            "answered": spread([one.latency for one in answered]),
            "refused": spread([one.latency for one in refused]),
        },
        "lag_seconds": spread([one.lag for one in measured if one.status != NOT_SENT]),
        "server_seconds": {name: spread(values) for name, values in _stages(explanations).items()},
        "cache_share": {name: _share(explanations, _is_cached(name)) for name in CACHED},
        "models": _models(explanations),
    }


def _measured(outcomes: Sequence[Outcome]) -> list[Outcome]:
    return [one for one in outcomes if one.arrival.is_measured]


def _achieved_rate(plan: Plan, answered: Sequence[Outcome], end: float) -> float:
    """Return the answers a second until the last one came, or until the test's end if that is later."""
    last = max((one.ended_at for one in answered), default=0.0)
    return _rate(len(answered), max(last, end) - plan.warm_up)


def _rate(count: int, seconds: float) -> float:
    return count / seconds if seconds > 0 else 0.0


def _counts(outcomes: Sequence[Outcome]) -> list[PlainValue]:
    counts = Counter((one.status, one.reason) for one in outcomes)
    return [{"status": status, "reason": reason, "count": count} for (status, reason), count in counts.most_common()]


def _stages(explanations: Sequence[Explanation]) -> dict[str, list[float]]:
    return {
        field.name.removesuffix("_seconds"): [getattr(one.timings, field.name) for one in explanations]
        for field in fields(Timings)
    }


def _is_cached(name: str) -> Callable[[Provenance], bool]:
    return lambda provenance: bool(getattr(provenance, name))


def _share(explanations: Sequence[Explanation], holds: Callable[[Provenance], bool]) -> float | None:
    return sum(holds(one.provenance) for one in explanations) / len(explanations) if explanations else None


def _models(explanations: Sequence[Explanation]) -> list[PlainValue]:
    """Return which packages answered: several where the server swapped one meanwhile."""
    origins = {(one.provenance.model, one.provenance.version, one.provenance.device) for one in explanations}
    return [{"model": model, "version": version, "device": device} for model, version, device in sorted(origins)]
