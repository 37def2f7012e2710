"""The wire: gRPC servicers, proto to domain and back, faults to statuses."""

from m2ib_server.api.servicer import AttributionServicer

__all__ = ["AttributionServicer"]
