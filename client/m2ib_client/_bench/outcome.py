"""Owns what came of one call of a load test."""

from dataclasses import dataclass
from typing import cast

import grpc

from m2ib_client._bench.schedule import Arrival
from m2ib_client._errors import M2IBError
from m2ib_client._results import Explanation
from m2ib_client._status import FailedCall, read_details

OK = "OK"
CANCELLED_HERE = "CANCELLED (as planned)"
NOT_SENT = "NOT SENT (cap)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a planned call, with times in seconds after the test's beginning.

    `began_at` is when it was made, which is after `arrival.at` where this program could not keep up; `ended_at` when
    its answer or its refusal was there. `explanation` is there where `status` is OK. `reason` is the service's name
    for a refusal, empty where it gives none.
    """

    arrival: Arrival
    began_at: float
    ended_at: float
    status: str
    reason: str = ""
    explanation: Explanation | None = None

    @property
    def latency(self) -> float:
        """How long the answer was waited for since the call was due, which no slow answer before it delays."""
        return self.ended_at - self.arrival.at

    @property
    def lag(self) -> float:
        """How late the call was made."""
        return self.began_at - self.arrival.at


def status_of(error: M2IBError) -> tuple[str, str]:
    """Return a failure's status and reason; of one that no call ended with, the name of its kind."""
    cause = error.__cause__
    if not isinstance(cause, grpc.RpcError):
        return type(error).__name__, str(getattr(error, "reason", ""))
    call = cast(FailedCall, cause)
    return call.code().name, read_details(call.trailing_metadata() or ()).reason
