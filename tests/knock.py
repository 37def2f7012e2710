"""Knocks at the methods of the server with raw bytes, as no stub would, and says how each call ended."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from m2ib.v1 import attribution_pb2 as pb
from m2ib.v1 import attribution_pb2_grpc, settings_pb2
from serving import RunningServer
from wire import explain_request

SECONDS = 60  # nothing that is knocked with takes a second: an answer that takes this long is a hang
CANARY = "Canary"  # stands in for whatever a caller sends; it may come back in an answer, never in a refusal
TRANSPORT = (
    "Received message larger than max",
    "received metadata size exceeds",
)  # how gRPC itself refuses, with no reason

# How a method may end, whatever is sent to it in one whole call without a deadline, by a caller who is let in.
# docs/operations/statuses.md tells operators so, and tests/contract/test_statuses.py holds the two together.
OUTRIGHT = frozenset({"OK", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"})
CHANGE = OUTRIGHT | {"FAILED_PRECONDITION"}
STATUSES = {
    "m2ib.v1.AttributionService": {
        "Explain": OUTRIGHT | {"NOT_FOUND"},
        "ExplainStream": OUTRIGHT | {"NOT_FOUND"},
        "ExplainBatch": OUTRIGHT,
        "UploadImage": OUTRIGHT,
        "Score": OUTRIGHT | {"NOT_FOUND"},
        "ListModels": OUTRIGHT,
        "GetModel": OUTRIGHT | {"NOT_FOUND"},
    },
    "m2ib.v1.ModelRepository": {
        "ListVersions": OUTRIGHT,
        "LoadModel": CHANGE | {"NOT_FOUND"},
        "UnloadModel": CHANGE | {"NOT_FOUND"},
        "SwapModel": CHANGE | {"NOT_FOUND"},
        "SetAlias": CHANGE,
        "DeleteAlias": CHANGE,
    },
    "inference.GRPCInferenceService": {
        "ServerLive": OUTRIGHT,
        "ServerReady": OUTRIGHT,
        "ModelReady": OUTRIGHT,
        "ServerMetadata": OUTRIGHT,
        "ModelMetadata": OUTRIGHT | {"NOT_FOUND"},
        "ModelInfer": OUTRIGHT | {"NOT_FOUND", "DEADLINE_EXCEEDED"},  # a request's `timeout` is a deadline
        "ModelStreamInfer": OUTRIGHT,
        "ModelConfig": OUTRIGHT | {"NOT_FOUND"},
        "ModelStatistics": OUTRIGHT | {"NOT_FOUND"},
        "RepositoryIndex": OUTRIGHT,
        **dict.fromkeys(
            (
                "RepositoryModelLoad",
                "RepositoryModelUnload",
                "SystemSharedMemoryStatus",
                "SystemSharedMemoryRegister",
                "SystemSharedMemoryUnregister",
                "CudaSharedMemoryStatus",
                "CudaSharedMemoryRegister",
                "CudaSharedMemoryUnregister",
                "TraceSetting",
                "LogSettings",
            ),
            frozenset({"INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "UNIMPLEMENTED"}),
        ),
    },
}
PAIR_STATUSES = OUTRIGHT | {"NOT_FOUND"}  # of one pair of an ExplainBatch


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a call ended.

    Attributes:
        code: the status's name.
        answers: the messages that came back, serialised.
        said: everything a refusal says, its details and metadata included.
        reason: ErrorInfo's reason, "" without one.
    """

    code: str
    answers: tuple[bytes, ...] = ()
    said: str = ""
    reason: str = ""


def knock(
    channel: grpc.Channel, method: MethodDescriptor, sent: Sequence[bytes], metadata: Sequence[tuple[str, str]] = ()
) -> Ending:
    """Call a method with serialised messages, of which a unary one takes the first."""
    multi_callable = {
        (False, False): channel.unary_unary,
        (False, True): channel.unary_stream,
        (True, False): channel.stream_unary,
        (True, True): channel.stream_stream,
    }[method.client_streaming, method.server_streaming]
    call = multi_callable(f"/{method.containing_service.full_name}/{method.name}")
    try:
        answer = call(iter(sent) if method.client_streaming else sent[0], timeout=SECONDS, metadata=metadata)
        return Ending(code="OK", answers=tuple(answer) if method.server_streaming else (answer,))
    except grpc.RpcError as error:
        return Ending(code=error.code().name, said=_said(error), reason=_reason(error))


def check(ending: Ending, allowed: Collection[str]) -> None:
    """Hold an ending against the law: a documented status with a reason, and nothing of the caller's in it."""
    assert ending.code in allowed, ending
    if ending.code != "OK":
        assert ending.reason or any(text in ending.said for text in TRANSPORT), ending
    assert CANARY.lower() not in ending.said.lower(), ending


def check_pairs(answers: Sequence[bytes]) -> None:
    """Hold the statuses of a batch's pairs against the same law."""
    for answer in map(pb.ExplainBatchResponse.FromString, answers):
        if answer.HasField("status"):
            code = next(each.name for each in grpc.StatusCode if each.value[0] == answer.status.code)
            info = error_details_pb2.ErrorInfo()
            assert any(detail.Unpack(info) for detail in answer.status.details)
            check(Ending(code=code, said=str(answer.status), reason=info.reason), PAIR_STATUSES)


def check_serves_on(running: RunningServer, channel: grpc.Channel) -> None:
    """Hold a server to its life after all that: healthy, answering, and silent of what was sent and of faults."""
    check_answers(running, channel)
    log = running.log()
    assert CANARY.lower() not in log.lower()
    assert '"level": "ERROR"' not in log
    assert not running.events("foreign")


def check_answers(running: RunningServer, channel: grpc.Channel, metadata: Sequence[tuple[str, str]] = ()) -> None:
    """Hold a server to its life: healthy, and a good request of this caller's is answered."""
    health = health_pb2_grpc.HealthStub(channel)
    serving = health_pb2.HealthCheckResponse.SERVING
    assert health.Check(health_pb2.HealthCheckRequest(), timeout=SECONDS).status == serving
    stub = attribution_pb2_grpc.AttributionServiceStub(channel)
    request = explain_request(settings=settings_pb2.Settings(steps=1, samples=2))
    assert stub.Explain(request, timeout=SECONDS, metadata=metadata).explanation.image.grid_bits.data
    assert running.process.poll() is None


def _said(error: grpc.RpcError) -> str:
    return f"{error.details()} {error.trailing_metadata()}"


def _reason(error: grpc.RpcError) -> str:
    status = rpc_status.from_call(error)
    info = error_details_pb2.ErrorInfo()
    for detail in status.details if status else ():
        if detail.Unpack(info):
            return info.reason
    return ""
