"""Words the figures of a load test as lines of text. Without I/O."""

from collections.abc import Iterator, Mapping
from typing import Any

from m2ib_client._bench.outcome import NOT_SENT

LAG_WORTH_A_WARNING = 0.1
STATISTICS = ("p50", "p90", "p95", "p99", "max")


def report_lines(report: Mapping[str, Any]) -> Iterator[str]:
    """Yield the report, line by line; `report` is what `--json` prints."""
    plan, figures = report["plan"], report["figures"]
    yield f"{report['server']}: {_models(figures['models'])}"
    yield f"about {report['material']}; settings {_options(report['options'])}"
    yield (
        f"{plan['arrivals']} arrivals at {plan['rate']:g}/s for {plan['duration']:g} s after {plan['warm_up']:g} s of "
        f"warm-up, deadline {report['deadline']:g} s, seed {plan['seed']}"
    )
    yield (
        f"shares: {plan['cancel']:.0%} cancelled under way, {plan['stream']:.0%} streamed, {plan['bulk']:.0%} bulk; "
        f"at most {report['peak_open']} open at once"
    )
    yield ""
    yield f"offered {figures['offered_rate']:.2f}/s, answered {figures['achieved_rate']:.2f}/s"
    yield from _outcomes(figures)
    yield ""
    yield "seconds".ljust(24) + "".join(name.rjust(9) for name in STATISTICS)
    yield from _spreads(figures)
    yield ""
    yield from _cache(figures["cache_share"])
    yield from _warnings(report)


def _models(models: list[dict[str, str]]) -> str:
    return ", ".join(f"{one['model']} {one['version']} on {one['device']}" for one in models) or "no answer"


def _options(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in options.items()) or "the model's own"


def _outcomes(figures: Mapping[str, Any]) -> Iterator[str]:
    for one in figures["outcomes"]:
        reason = f" {one['reason']}" if one["reason"] else ""
        yield f"  {one['count']:>7}  {one['count'] / figures['calls']:>6.1%}  {one['status']}{reason}"
    if figures["partial"]:
        yield f"  {figures['partial']:>7} of the answers are partial: the deadline ended them early"


def _spreads(figures: Mapping[str, Any]) -> Iterator[str]:
    rows = {
        "latency of answers": figures["latency_seconds"]["answered"],
        "latency of refusals": figures["latency_seconds"]["refused"],
        **{f"server: {name}": spread for name, spread in figures["server_seconds"].items()},
        "lag of this program": figures["lag_seconds"],
    }
    for name, spread in rows.items():
        if spread["count"]:
            yield name.ljust(24) + "".join(f"{spread[one]:>9.3f}" for one in STATISTICS)


def _cache(shares: Mapping[str, float | None]) -> Iterator[str]:
    told = [f"{name.removesuffix('_cached').replace('_', ' ')} {share:.0%}" for name, share in shares.items() if share]
    yield f"not computed again: {', '.join(told) or 'nothing'}"


def _warnings(report: Mapping[str, Any]) -> Iterator[str]:
    figures = report["figures"]
    unsent = sum(one["count"] for one in figures["outcomes"] if one["status"] == NOT_SENT)
    if unsent:
        yield f"WARNING: {unsent} calls were not made, as {report['cap']} were open: the true latencies are higher"
    if figures["lag_seconds"].get("p99", 0.0) > LAG_WORTH_A_WARNING:
        yield "WARNING: this program made calls late: it is the bottleneck, so use a lower rate or several machines"
    if report["broken_off"]:
        yield "WARNING: broken off; what was under way is not counted"
