"""Calls every method of the model repository, well and badly, with canaries for names."""

from collections.abc import Callable, Mapping
from typing import Any

import grpc

from canary import MODEL, PATIENT, TEXT, Said
from m2ib.v1 import model_repository_pb2 as pb
from m2ib.v1 import model_repository_pb2_grpc

SECONDS = 60
LIKE_A_NAME = f"{TEXT}-{MODEL}".lower()  # passes for a model's name, and is none


def _calls(method: str, good: list[Any], bad: list[Any]) -> Callable[[grpc.Channel, Said], int]:
    def call(channel: grpc.Channel, said: Said) -> int:
        ask = getattr(model_repository_pb2_grpc.ModelRepositoryStub(channel), method)
        before = len(said.refusals)
        for request in good:
            said.take(lambda request=request: ask(request, timeout=SECONDS))
        assert len(said.refusals) == before, said.refusals[before:]
        for request in bad:
            said.take(lambda request=request: ask(request, timeout=SECONDS))
        return len(bad)

    return call


CALLS: Mapping[tuple[str, str], Callable[[grpc.Channel, Said], int]] = {
    ("m2ib.v1.ModelRepository", method): _calls(method, good, bad)
    for method, good, bad in (
        ("ListVersions", [pb.ListVersionsRequest()], [pb.ListVersionsRequest(name=PATIENT)]),
        (
            "LoadModel",
            [pb.LoadModelRequest(name="tiny", version="1")],
            [
                pb.LoadModelRequest(name=PATIENT),
                pb.LoadModelRequest(name=LIKE_A_NAME),
                pb.LoadModelRequest(name="tiny", version=LIKE_A_NAME),
                pb.LoadModelRequest(name=f"../{TEXT}"),
            ],
        ),
        (
            "UnloadModel",
            [pb.UnloadModelRequest(name="tiny", version="1")],  # the swap, which comes next, loads it again
            [
                pb.UnloadModelRequest(name=PATIENT, version="1"),
                pb.UnloadModelRequest(name=LIKE_A_NAME, version="1"),
                pb.UnloadModelRequest(name="tiny", version=PATIENT),
            ],
        ),
        (
            "SwapModel",
            [pb.SwapModelRequest(name="tiny", version="1")],
            [pb.SwapModelRequest(name=LIKE_A_NAME), pb.SwapModelRequest(name="tiny", version=PATIENT)],
        ),
        (
            "SetAlias",
            [pb.SetAliasRequest(name="tiny", alias="steady", version="1")],
            [
                pb.SetAliasRequest(name="tiny", alias=PATIENT, version="1"),
                pb.SetAliasRequest(name="tiny", alias=LIKE_A_NAME, version=LIKE_A_NAME),
                pb.SetAliasRequest(name=LIKE_A_NAME, alias="steady", version="1"),
            ],
        ),
        (
            "DeleteAlias",
            [pb.DeleteAliasRequest(name="tiny", alias="steady"), pb.DeleteAliasRequest(name="tiny", alias=LIKE_A_NAME)],
            [pb.DeleteAliasRequest(name=PATIENT, alias="steady")],
        ),
    )
}
