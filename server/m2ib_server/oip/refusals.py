"""The calls of the contract that this server does not offer: each is refused with its reason."""

from collections.abc import Awaitable, Callable
from typing import Any

from m2ib.oip import inference_pb2 as oip
from m2ib.oip import inference_pb2_grpc
from m2ib_server.api.call import Call
from m2ib_server.api.reception import Reception, answered
from m2ib_server.errors import CallNotOffered

_MEMORY = "a caller must not name memory of the host; send tensors within the message"
_LOADING = "models are loaded and unloaded through m2ib.v1.ModelRepository"
_OPERATOR = "the operator sets it when the server starts"


def _refusal(rpc: str, why: str) -> Callable[..., Awaitable[Any]]:
    async def refuse(servicer: "Refusals", wire: object, call: Call) -> oip.UnimplementedResponse:
        raise CallNotOffered(why)

    refuse.__name__ = rpc
    refuse.__doc__ = f"Refuse: {why}."
    return answered(refuse)


class Refusals(inference_pb2_grpc.GRPCInferenceServiceServicer):
    """That part of the service."""

    name = oip.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
    scope = "explain"
    reception: Reception

    RepositoryModelLoad = _refusal("RepositoryModelLoad", _LOADING)
    RepositoryModelUnload = _refusal("RepositoryModelUnload", _LOADING)
    SystemSharedMemoryStatus = _refusal("SystemSharedMemoryStatus", _MEMORY)
    SystemSharedMemoryRegister = _refusal("SystemSharedMemoryRegister", _MEMORY)
    SystemSharedMemoryUnregister = _refusal("SystemSharedMemoryUnregister", _MEMORY)
    CudaSharedMemoryStatus = _refusal("CudaSharedMemoryStatus", _MEMORY)
    CudaSharedMemoryRegister = _refusal("CudaSharedMemoryRegister", _MEMORY)
    CudaSharedMemoryUnregister = _refusal("CudaSharedMemoryUnregister", _MEMORY)
    TraceSetting = _refusal("TraceSetting", _OPERATOR)
    LogSettings = _refusal("LogSettings", _OPERATOR)
