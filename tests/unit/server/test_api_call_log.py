import logging

import pytest

from m2ib_server.api import CallLog
from m2ib_server.api.call import Call, CallEnd, trace_context_of


@pytest.mark.parametrize("is_traced", [True, False])
def test_a_calls_line_names_its_trace_where_there_is_one(caplog, is_traced):
    metadata = {"traceparent": f"00-{'1' * 32}-{'2' * 16}-01"} if is_traced else {}
    call = Call(service="s", method="Explain", deadline_ns=None, trace_context=trace_context_of(metadata))
    with caplog.at_level(logging.INFO, logger="m2ib_server"):
        CallLog().ended(call, CallEnd(code="OK"))
    (record,) = caplog.records
    assert record.m2ib_fields.get("trace_id") == ("1" * 32 if is_traced else None)
    assert record.m2ib_fields["request_id"] == call.request_id
