"""The wire: gRPC servicers, proto to domain and back, faults to statuses."""

from m2ib_server.api.call_log import CallLog
from m2ib_server.api.desk import Desk
from m2ib_server.api.lifecycle import Lifecycle
from m2ib_server.api.parsing import Parsing
from m2ib_server.api.reception import OpenGate, Reception
from m2ib_server.api.servicer import AttributionServicer

__all__ = ["AttributionServicer", "CallLog", "Desk", "Lifecycle", "OpenGate", "Parsing", "Reception"]
