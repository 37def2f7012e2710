"""The Open Inference Protocol on the same port: its tensors to our requests, our explanations to its tensors."""

from m2ib_server.oip.servicer import InferenceServicer
from m2ib_server.oip.statistics import InferenceStatistics

__all__ = ["InferenceServicer", "InferenceStatistics"]
