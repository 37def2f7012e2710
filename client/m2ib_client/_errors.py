"""Owns the exceptions that the client raises; no type of gRPC is among them.

M2IBError                     everything below
|-- InvalidRequestError       the request is wrong: which field, what was seen in it, what is allowed
|-- NotFoundError             no loaded model has that name, or an uploaded image is gone
|-- AccessError               the server does not admit this caller
|-- TransientError            nothing is wrong with the request: the same one may pass later
|   |-- BusyError             the server's queue is full
|   `-- UnavailableError      the server cannot be reached, is starting or is shutting down
|-- DeadlineError             the timeout passed before the answer came
|-- CallCancelledError        the call was cancelled, for instance because the client was closed meanwhile
|-- ServerError               a fault of the server; its log has more under the request's id
|-- IncompatibleServerError   the server does not know the call, or its answer is malformed
|-- LocalServerError          the private server of `Client.local` did not start
|-- MissingPackageError       an optional package is needed; the text names what to install
|-- OutputMissingError        the answer lacks what was read from it; the text names the option to ask for it
`-- ClosedError               the client was used after it was closed

No text holds a patient's data: what the server says is a size, a count, a type or a name of the service's
own.
"""


class M2IBError(Exception):
    """Any fault of the service or of its use.

    `request_id` is the server's id of the call, under which its log speaks of it; empty where there is none.
    """

    def __init__(self, message: str, *, request_id: str = "") -> None:
        """Say what happened."""
        super().__init__(message)
        self.request_id = request_id


class InvalidRequestError(M2IBError):
    """The request is wrong; sending it again cannot help.

    `field` is the field at fault in the protocol's notation (`settings.beta`), `seen` what it held, `allowed`
    what it may hold and `reason` a stable upper-case name (`TEXT_TOO_LONG`).
    """

    def __init__(
        self,
        message: str,
        *,
        field: str = "",
        seen: str = "",
        allowed: str = "",
        reason: str = "",
        request_id: str = "",
    ) -> None:
        """Say what is wrong with which field."""
        super().__init__(message, request_id=request_id)
        self.field = field
        self.seen = seen
        self.allowed = allowed
        self.reason = reason

    @classmethod
    def of(cls, field: str, *, seen: str, allowed: str, reason: str = "INVALID_FIELD") -> "InvalidRequestError":
        """Word a fault that the client itself found."""
        message = f"{field}: seen {seen}; allowed: {allowed}"
        return cls(message, field=field, seen=seen, allowed=allowed, reason=reason)


class NotFoundError(M2IBError):
    """No loaded model has that name, none was named and several are loaded, or an uploaded image is gone.

    `allowed` lists the names that would be right, as the server words it, and `reason` is a stable upper-case
    name (`IMAGE_HANDLE_UNKNOWN`).
    """

    def __init__(self, message: str, *, allowed: str = "", reason: str = "", request_id: str = "") -> None:
        """Say what was not found."""
        super().__init__(message, request_id=request_id)
        self.allowed = allowed
        self.reason = reason


class AccessError(M2IBError):
    """The server does not admit this caller.

    `reason` is a stable upper-case name: `CREDENTIALS_MISSING`, `CREDENTIALS_INVALID`, `CREDENTIALS_EXPIRED` or
    `SCOPE_MISSING`.
    """

    def __init__(self, message: str, *, reason: str = "", request_id: str = "") -> None:
        """Say what keeps the caller out."""
        super().__init__(message, request_id=request_id)
        self.reason = reason


class TransientError(M2IBError):
    """Nothing is wrong with the request: the same one may pass later.

    `retry_after_seconds` is the pause that the server asks for; None where it asks for none.
    """

    def __init__(self, message: str, *, retry_after_seconds: float | None = None, request_id: str = "") -> None:
        """Say what stands in the way, and for how long if that is known."""
        super().__init__(message, request_id=request_id)
        self.retry_after_seconds = retry_after_seconds


class BusyError(TransientError):
    """More requests wait than the server admits."""


class UnavailableError(TransientError):
    """The server cannot be reached, is starting or is shutting down."""


class DeadlineError(M2IBError):
    """The timeout passed before the answer came."""


class CallCancelledError(M2IBError):
    """The call was cancelled by the server, or by closing the client while it ran."""


class ServerError(M2IBError):
    """A fault of the server; quote `request_id` to whoever runs it."""


class IncompatibleServerError(M2IBError):
    """The server does not know the call, or its answer is malformed: the versions do not fit together."""


class LocalServerError(M2IBError):
    """The private server of `Client.local` did not start; the text ends with its last words."""


class MissingPackageError(M2IBError):
    """An optional package is needed; the text names what to install."""


class OutputMissingError(M2IBError):
    """The answer lacks what was read from it because the request did not ask for it."""


class ClosedError(M2IBError):
    """The client was used after it was closed."""
