"""Decides what a pulse means, whether to restart once more, when a canary is due and what serves. Pure."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

from m2ib_server.engine import Pulse
from m2ib_server.engine.engine import IDLE_SECONDS
from m2ib_server.settings import WatchLimits


class Condition(StrEnum):
    """How a compute thread is."""

    WELL = "well"
    STUCK = "stuck"
    DEAD = "dead"


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What is known of one model on one engine.

    Attributes:
        is_proven: whether its last canary went well; a model that has passed its warm-up begins so.
        since_ns: when its last canary ended, or when it was first seen, on the monotonic clock.
        failures: canaries that went wrong, in a row.
    """

    is_proven: bool
    since_ns: int
    failures: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineHealth:
    """What is known of one engine.

    Attributes:
        condition: how its compute thread is.
        unproven: the digests of the models whose last canary there went wrong, or is still to come after a restart.
    """

    condition: Condition
    unproven: frozenset[str] = frozenset()


def diagnose(pulse: Pulse, now_ns: int, limits: WatchLimits) -> Condition:
    """Tell how a compute thread is.

    It is stuck when a round takes too long, when no job advances although there are some, or when it does not look for
    work as often as it should.
    """
    if not pulse.is_alive:
        return Condition.DEAD
    longest_ns, rest_ns = int(limits.stuck_seconds * 1e9), int(IDLE_SECONDS * 1e9)
    is_in_a_round = pulse.busy_since_ns is not None and now_ns - pulse.busy_since_ns > longest_ns
    is_standing = pulse.has_work and now_ns - pulse.step_ns > longest_ns + rest_ns
    is_silent = now_ns - pulse.beat_ns > longest_ns + rest_ns
    return Condition.STUCK if is_in_a_round or is_standing or is_silent else Condition.WELL


def may_restart(faults_ns: Sequence[int], now_ns: int, limits: WatchLimits) -> bool:
    """Tell whether an engine may be restarted or aborted once more after what it had before."""
    window_ns = int(limits.restart_window_seconds * 1e9)
    return sum(now_ns - fault_ns < window_ns for fault_ns in faults_ns) < limits.max_restarts


def is_canary_due(proof: Proof, now_ns: int, limits: WatchLimits, *, is_idle: bool) -> bool:
    """Tell whether a model is to explain a canary now.

    One that is proven does so while the engine is idle: answers are proof enough. One that is not does so also while
    the engine works, or else nobody would be sent to it again before it has nothing to do.
    """
    if not limits.canary_seconds:
        return False
    if not proof.is_proven:
        return not proof.failures or now_ns - proof.since_ns >= limits.canary_retry_seconds * 1e9
    return is_idle and now_ns - proof.since_ns >= limits.canary_seconds * 1e9


def is_engine_broken(proofs: Collection[Proof], limits: WatchLimits) -> bool:
    """Tell whether an engine is at fault, and not a model: every model of it fails, again and again."""
    return bool(proofs) and all(proof.failures >= limits.max_canary_failures for proof in proofs)


def serves_model(digest: str, engines: Collection[EngineHealth]) -> bool:
    """Tell whether a model serves: an image's digest decides on which engine, so it must on all."""
    return all(engine.condition is Condition.WELL and digest not in engine.unproven for engine in engines)


def serves_any(digests: Collection[str], engines: Collection[EngineHealth]) -> bool:
    """Tell whether the server serves: all engines are well, and at least one model serves."""
    return any(serves_model(digest, engines) for digest in digests)
