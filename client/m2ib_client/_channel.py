"""Owns the channel's options: message limits, keepalive, retries, timeouts and the checks of what is given."""

import json
import math
import time

from m2ib_client._errors import InvalidRequestError

MEBIBYTE = 1024 * 1024
MAX_MESSAGE_BYTES = 64 * MEBIBYTE
CEILING_MESSAGE_BYTES = 1024 * MEBIBYTE  # what a server can be told to take
KEEPALIVE_MS = 30_000
KEEPALIVE_TIMEOUT_MS = 20_000
RECONNECT_MAX_MS = 5_000
DEFAULT_TIMEOUT_SECONDS = 60.0

SERVICE = "m2ib.v1.AttributionService"
MAX_ATTEMPTS = 3


def _retry_policy(*codes: str) -> dict[str, object]:
    """Return the policy of calls that may end with these statuses and are then made again.

    The server says when, as a pushback, which replaces the pause below; it says "never" where another attempt cannot
    help or would come after the deadline. Only what reaches no service of ours has no pushback: a message above the
    server's limit, whose two more attempts are in vain, and what proxies refuse.
    """
    return {
        "maxAttempts": MAX_ATTEMPTS,
        "initialBackoff": "0.1s",
        "maxBackoff": "1s",
        "backoffMultiplier": 3,
        "retryableStatusCodes": list(codes),
    }


# Every call may be made again: an answer depends on the request alone, so a second attempt joins the computation that
# the first one began. An answer that has begun is never asked for twice. An upload for which there is no room is not
# tried again, since the image can go with the request instead.
SERVICE_CONFIG = {
    "methodConfig": [
        {"name": [{"service": SERVICE}], "retryPolicy": _retry_policy("UNAVAILABLE", "RESOURCE_EXHAUSTED")},
        {"name": [{"service": SERVICE, "method": "UploadImage"}], "retryPolicy": _retry_policy("UNAVAILABLE")},
    ],
    # The budget of retries of a channel: each failure takes one, each answer gives half a one back, and with half of
    # them gone nothing is tried again.
    "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.5},
}


def channel_options(max_message_bytes: int = MAX_MESSAGE_BYTES) -> list[tuple[str, int | str]]:
    """Return the options of every channel to the service; the limit is that of one message either way."""
    return [
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.max_receive_message_length", max_message_bytes),
        # A request that outgrows this buffer is never retried; the library's own default is 256 KiB.
        ("grpc.per_rpc_retry_buffer_size", max_message_bytes),
        ("grpc.keepalive_time_ms", KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        ("grpc.max_reconnect_backoff_ms", RECONNECT_MAX_MS),
        # Images of patients go to the named server and through no proxy that the environment happens to name.
        ("grpc.enable_http_proxy", 0),
        ("grpc.enable_retries", 1),
        ("grpc.service_config", json.dumps(SERVICE_CONFIG)),
    ]


def checked_address(address: str) -> str:
    """Return the address if it reads as a server's.

    Raises:
        InvalidRequestError: it is empty, has a scheme of the web or has no port.
    """
    is_web = isinstance(address, str) and address.startswith(("http://", "https://"))
    if not isinstance(address, str) or is_web or not _has_port(address):
        raise InvalidRequestError.of("address", seen="something else", allowed="HOST:PORT, such as 127.0.0.1:50051")
    return address


def checked_timeout(timeout: float | None) -> float | None:
    """Return the timeout in seconds; None means none.

    Raises:
        InvalidRequestError: it is not a finite number above 0.
    """
    if timeout is not None and not (isinstance(timeout, int | float) and 0 < timeout < math.inf):
        raise InvalidRequestError.of("timeout", seen=repr(timeout), allowed="a number of seconds above 0")
    return timeout


def checked_message_bytes(max_message_bytes: int) -> int:
    """Return the limit of one message in bytes.

    Raises:
        InvalidRequestError: it is not a whole number from 1 to what a server can be told to take.
    """
    is_whole = isinstance(max_message_bytes, int) and not isinstance(max_message_bytes, bool)
    if not is_whole or not 1 <= max_message_bytes <= CEILING_MESSAGE_BYTES:
        allowed = f"a whole number of bytes from 1 to {CEILING_MESSAGE_BYTES}"
        raise InvalidRequestError.of("max_message_bytes", seen=repr(max_message_bytes), allowed=allowed)
    return max_message_bytes


class TimeLeft:
    """What is left of a timeout that spans several calls."""

    def __init__(self, timeout: float | None) -> None:
        """Begin now; `timeout` is in seconds, None for none."""
        self._until = None if timeout is None else time.monotonic() + timeout

    def seconds(self) -> float | None:
        """Return the seconds left, below 0 once the time is over; None for no end."""
        return None if self._until is None else self._until - time.monotonic()


def _has_port(address: str) -> bool:
    host, _, port = address.rpartition(":")
    return address.startswith("unix:") or (bool(host) and port.isdecimal())
