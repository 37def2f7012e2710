"""A client that a test kills: it begins an upload or a stream, says so, and never goes on."""

import sys
import threading
from collections.abc import Iterator

import grpc

from m2ib.v1 import attribution_pb2 as pb
from m2ib.v1 import attribution_pb2_grpc, settings_pb2
from wire import explain_request


def upload(stub: attribution_pb2_grpc.AttributionServiceStub, size_bytes: int) -> None:
    """Announce a file, send half of it, and stop in the middle."""

    def parts() -> Iterator[pb.UploadImageRequest]:
        yield pb.UploadImageRequest(header=pb.UploadHeader(size_bytes=size_bytes, sha256="0" * 64))
        yield pb.UploadImageRequest(chunk=bytes(size_bytes // 2))
        _say_begun()
        threading.Event().wait()

    stub.UploadImage(parts())


def stream(stub: attribution_pb2_grpc.AttributionServiceStub, steps: int) -> None:
    """Read the first step of a long explanation and no more."""
    request = explain_request(settings=settings_pb2.Settings(steps=steps, samples=256))
    next(iter(stub.ExplainStream(pb.ExplainStreamRequest(request=request, partial_maps=True))))
    _say_begun()
    threading.Event().wait()


def _say_begun() -> None:
    print("begun", flush=True)


if __name__ == "__main__":
    _, address, what, count = sys.argv
    with grpc.insecure_channel(address) as channel:
        {"upload": upload, "stream": stream}[what](attribution_pb2_grpc.AttributionServiceStub(channel), int(count))
