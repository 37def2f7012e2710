"""One engine under watch: what its thread was found to be, what was done about it, and what its canaries proved."""

import logging
from collections.abc import Iterable

from m2ib_server.engine import Engine, LoadedModel
from m2ib_server.errors import ServiceError
from m2ib_server.settings import WatchLimits
from m2ib_server.telemetry import log_event, origin_of
from m2ib_server.watch.canary import Canary, is_as_before
from m2ib_server.watch.policy import (
    Condition,
    EngineHealth,
    Proof,
    diagnose,
    is_canary_due,
    is_engine_broken,
    may_restart,
)


class Ward:
    """One engine under watch. One thread's alone."""

    def __init__(self, engine: Engine, limits: WatchLimits) -> None:
        """Begin with an engine of which nothing bad is known."""
        self.is_given_up = False
        self._engine = engine
        self._limits = limits
        self._condition = Condition.WELL
        self._faults_ns: list[int] = []
        self._aborted_ns: int | None = None
        self._proofs: dict[str, Proof] = {}
        self._canaries: dict[str, Canary] = {}
        self._first: dict[str, float] = {}

    @property
    def health(self) -> EngineHealth:
        """What was found when the engine was looked at last."""
        unproven = frozenset(digest for digest, proof in self._proofs.items() if not proof.is_proven)
        return EngineHealth(condition=self._condition, unproven=unproven)

    def look(self, now_ns: int, models: Iterable[LoadedModel]) -> None:
        """Find out how the engine is and do what helps; where nothing does, it is given up."""
        self._condition = diagnose(self._engine.pulse, now_ns, self._limits)
        if self._condition is Condition.DEAD:
            self._restart(now_ns)
        elif self._condition is Condition.STUCK:
            self._abort(now_ns)
        else:
            if self._aborted_ns is not None:
                self._aborted_ns = None
                self._doubt(now_ns)
            self._follow(models, now_ns)
            if is_engine_broken(self._proofs.values(), self._limits):
                log_event("engine retired", level=logging.CRITICAL, reason="canaries failed")
                self._engine.retire()  # it is found dead when it is looked at next

    def _restart(self, now_ns: int) -> None:
        if not self._is_forgiven("engine died", now_ns):
            return
        self._engine.restart()
        self._doubt(now_ns)
        log_event("engine restarted", level=logging.WARNING)

    def _abort(self, now_ns: int) -> None:
        """End the evaluation that is under way, and the next one should the round go on with it."""
        if self._aborted_ns is None:
            if not self._is_forgiven("engine stuck", now_ns):
                return
            self._aborted_ns = now_ns
            log_event("engine stuck", level=logging.CRITICAL)
        elif now_ns - self._aborted_ns > self._limits.abort_seconds * 1e9:
            self._give_up("engine stuck for good")
            return
        self._engine.abort()

    def _is_forgiven(self, reason: str, now_ns: int) -> bool:
        """Note a fault; return whether there have been so few lately that the engine goes on."""
        if not may_restart(self._faults_ns, now_ns, self._limits):
            self._give_up(reason)
            return False
        self._faults_ns.append(now_ns)
        return True

    def _give_up(self, reason: str) -> None:
        self.is_given_up = True
        log_event("engine given up", level=logging.CRITICAL, reason=reason)

    def _doubt(self, now_ns: int) -> None:
        """Believe in no model before its next canary."""
        is_proven = not self._limits.canary_seconds
        self._proofs = {digest: Proof(is_proven=is_proven, since_ns=now_ns) for digest in self._proofs}
        self._canaries.clear()

    def _follow(self, models: Iterable[LoadedModel], now_ns: int) -> None:
        """Judge canaries that are over, send those that are due, forget models that have gone."""
        by_digest = {model.digest: model for model in models}
        for known in (self._proofs, self._canaries, self._first):
            for gone in known.keys() - by_digest.keys():
                del known[gone]
        for digest, model in by_digest.items():
            proof = self._proofs.setdefault(digest, Proof(is_proven=True, since_ns=now_ns))
            canary = self._canaries.get(digest)
            if canary is not None and canary.is_over:
                del self._canaries[digest]
                self._proofs[digest] = self._judged(model, canary, proof, now_ns)
            elif canary is None and is_canary_due(
                proof, now_ns, self._limits, is_idle=not self._engine.roster.has_work
            ):
                self._send(model)

    def _send(self, model: LoadedModel) -> None:
        canary = Canary(model)
        try:
            self._engine.submit(canary.job, canary.caller)
        except ServiceError:  # full, or ending: that proves nothing, and another one is due at the next look
            return
        self._canaries[model.digest] = canary

    def _judged(self, model: LoadedModel, canary: Canary, proof: Proof, now_ns: int) -> Proof:
        try:
            similarity = canary.similarity()
            if not is_as_before(similarity, self._first.setdefault(model.digest, similarity)):
                raise ArithmeticError("a canary whose similarity is another than the first one's")
        except Exception as error:  # whatever it ended in, callers would have met it too
            cause = error.__cause__ or error
            fields = {"error_type": type(cause).__name__, "origin": origin_of(cause)}
            log_event("canary failed", level=logging.ERROR, model=model.manifest.name, **fields)
            return Proof(is_proven=False, since_ns=now_ns, failures=proof.failures + 1)
        return Proof(is_proven=True, since_ns=now_ns)
