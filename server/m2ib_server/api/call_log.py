"""Writes one line of log for every call."""

import logging

import grpc

from m2ib_server.api.call import Call, CallEnd
from m2ib_server.telemetry import log_event, origin_of


class CallLog:
    """The observer that logs."""

    def begun(self, call: Call) -> None:
        """Log nothing: the line of its end says it all."""

    def ended(self, call: Call, end: CallEnd) -> None:
        """Log how a call ended; of a fault where it came from, without a word of its own text."""
        is_ours = end.code in (grpc.StatusCode.INTERNAL.name, grpc.StatusCode.UNKNOWN.name)
        fields = {"reason": end.reason} if end.reason else {}
        fields |= {"trace_id": call.trace_id} if call.trace_id else {}
        if end.error is not None:
            cause = end.error.__cause__ or end.error
            fields |= {"error_type": type(cause).__name__, "origin": origin_of(cause)}
        log_event(
            "call ended",
            level=logging.ERROR if is_ours else logging.INFO,
            request_id=call.request_id,
            method=call.method,
            caller=call.caller,
            model=call.model,
            code=end.code,
            seconds=round(call.seconds, 4),
            **fields,
        )
