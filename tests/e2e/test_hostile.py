"""The hostile inputs that servers of this kind are known to fall over, by name, each with what must come of it."""

import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from knock import check, knock

SECONDS = 60

# A field of length 5 of which 2 bytes came; a tag of field 0; a group that never ends; a varint without an end.
NO_MESSAGES = {
    "short": b"\x0a\x05ab",
    "field zero": b"\x00\x00",
    "open group": b"\x0b",
    "endless": b"\x08" + b"\xff" * 11,
}
LIBRARY_METHODS = [
    health_pb2.DESCRIPTOR.services_by_name["Health"].methods_by_name["Check"],
    health_pb2.DESCRIPTOR.services_by_name["Health"].methods_by_name["Watch"],
    reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"].methods_by_name["ServerReflectionInfo"],
]


@pytest.mark.parametrize("method", LIBRARY_METHODS, ids=lambda method: method.name)
@pytest.mark.parametrize("raw", NO_MESSAGES.values(), ids=NO_MESSAGES)
def test_bytes_that_are_no_message_are_refused_by_the_methods_of_libraries_too(channel, server, method, raw):
    ending = knock(channel, method, [raw])
    check(ending, {"INVALID_ARGUMENT"})
    assert ending.reason == "MESSAGE_MALFORMED"
    assert not server.events("foreign")
