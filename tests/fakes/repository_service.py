"""A model repository's service that says what it is told to, and notes what it is asked."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
from google.protobuf.any_pb2 import Any
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from m2ib.v1 import model_repository_pb2 as pb
from m2ib.v1 import model_repository_pb2_grpc

VERSIONS = (
    pb.ModelVersion(
        name="tiny",
        version="1",
        digest="1" * 64,
        state=pb.VERSION_STATE_READY,
        aliases=["champion"],
        is_default=True,
        memory_bytes=3 << 20,
    ),
    pb.ModelVersion(
        name="tiny", version="2", digest="2" * 64, state=pb.VERSION_STATE_UNUSABLE, on_disk=True, fault="half of it"
    ),
)


class FakeRepository(model_repository_pb2_grpc.ModelRepositoryServicer):
    """The service; `refuse_next` makes the next call fail as a server of ours does."""

    def __init__(self):
        self.address = ""
        self.requests = []
        self.metadata = {}  # of the last call
        self.listed = list(VERSIONS)
        self._refusal = None

    def refuse_next(self, code, reason, message):
        info = error_details_pb2.ErrorInfo(reason=reason, domain="m2ib.v1", metadata={"request_id": "some-id"})
        detail = Any()
        detail.Pack(info)
        self._refusal = status_pb2.Status(code=code.value[0], message=message, details=[detail])

    def ListVersions(self, request, context):
        self._note(request, context)
        return pb.ListVersionsResponse(versions=self.listed, used_memory_bytes=3 << 20, allowed_memory_bytes=8 << 20)

    def LoadModel(self, request, context):
        self._note(request, context)
        return pb.LoadModelResponse(version=VERSIONS[0])

    def UnloadModel(self, request, context):
        self._note(request, context)
        return pb.UnloadModelResponse(was_loaded=request.version == "1")

    def SwapModel(self, request, context):
        self._note(request, context)
        return pb.SwapModelResponse(version=VERSIONS[0], retired=["0.9"])

    def SetAlias(self, request, context):
        self._note(request, context)
        return pb.SetAliasResponse(previous="0.9")

    def DeleteAlias(self, request, context):
        self._note(request, context)
        return pb.DeleteAliasResponse(previous="1")

    def _note(self, request, context):
        self.requests.append(request)
        self.metadata = dict(context.invocation_metadata())
        if self._refusal is not None:
            refusal, self._refusal = self._refusal, None
            context.abort_with_status(rpc_status.to_status(refusal))


@contextmanager
def serve_repository():
    server = grpc.server(ThreadPoolExecutor(max_workers=2))
    service = FakeRepository()
    model_repository_pb2_grpc.add_ModelRepositoryServicer_to_server(service, server)
    service.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield service
    finally:
        server.stop(None).wait()
