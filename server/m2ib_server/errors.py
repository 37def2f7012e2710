"""Owns the faults that a request or a package can have: who is at fault, what was seen and what is allowed.

No fault carries a caller's text, pixels or DICOM identifiers; `seen` is a size, a count, a type or a name of ours.
"""

from enum import Enum, auto


class Code(Enum):
    """Who is at fault, in words that know nothing of gRPC."""

    INVALID = auto()
    NOT_FOUND = auto()
    BUSY = auto()
    UNAVAILABLE = auto()
    EXPIRED = auto()
    UNIDENTIFIED = auto()
    FORBIDDEN = auto()
    PRECONDITION = auto()
    INTERNAL = auto()
    UNSUPPORTED = auto()


class ServiceError(Exception):
    """A fault with a code, a stable reason and a text that is safe to send.

    `retry_seconds` is the estimate of when the same request may pass; None where nobody can tell.
    """

    code = Code.INTERNAL
    reason = "INTERNAL"
    retry_seconds: float | None = None


class InvalidField(ServiceError):
    """A field of the request is not what is allowed."""

    code = Code.INVALID
    reason = "INVALID_FIELD"

    def __init__(self, field: str, *, seen: str, allowed: str) -> None:
        """Name the field in proto notation (`settings.beta`), what was seen in it and what is allowed."""
        super().__init__(f"{field}: seen {seen}; allowed: {allowed}")
        self.field = field
        self.seen = seen
        self.allowed = allowed

    def in_list(self, name: str, entry: str) -> "InvalidField":
        """Return the same fault where the field is an entry of a list: `image.frame` in `images[3]`, say."""
        return type(self)(self.field.replace(name, entry, 1), seen=self.seen, allowed=self.allowed)


class MessageMalformed(InvalidField):
    """The bytes are no message of the kind that the method takes."""

    reason = "MESSAGE_MALFORMED"


class ImageEmpty(InvalidField):
    """The request holds no image."""

    reason = "IMAGE_EMPTY"


class ImageUndecodable(InvalidField):
    """The bytes are no image of a known format, or a broken one."""

    reason = "IMAGE_UNDECODABLE"


class ImageTooLarge(InvalidField):
    """The image has more bytes or pixels than the server takes."""

    reason = "IMAGE_TOO_LARGE"


class TransferSyntaxUnsupported(InvalidField):
    """The DICOM object is encoded in a way that no installed decoder reads."""

    reason = "TRANSFER_SYNTAX_UNSUPPORTED"


class TensorInvalid(InvalidField):
    """The tensor has a wrong shape, a wrong size, or values that are not finite or that no image has."""

    reason = "TENSOR_INVALID"


class EmbeddingUndefined(InvalidField):
    """The embedding of this image or text has no direction; every model has given one before it serves."""

    reason = "EMBEDDING_UNDEFINED"


class TextEmpty(InvalidField):
    """The text has no token of its own."""

    reason = "TEXT_EMPTY"


class TextTooLong(InvalidField):
    """The text has more tokens than the model takes, and truncation was not asked for."""

    reason = "TEXT_TOO_LONG"


class SettingOutOfRange(InvalidField):
    """A setting lies outside its range."""

    reason = "SETTING_OUT_OF_RANGE"


class ModelUnknown(ServiceError):
    """No loaded model has that name, or no name was given and several are loaded."""

    code = Code.NOT_FOUND
    reason = "MODEL_UNKNOWN"

    def __init__(self, *, loaded: list[str], opening: str = "model") -> None:
        """Tell which names would have been right; the name asked for is the caller's and is not repeated.

        Args:
            loaded: the names.
            opening: the words that come first; some clients look for those of their protocol.
        """
        super().__init__(
            f"{opening}: no such model is loaded; allowed: {', '.join(loaded) or 'none, no model is loaded'}"
        )
        self.loaded = loaded


class VersionAbsent(ServiceError):
    """The models' folder holds no package of that name and version, and none such is loaded."""

    code = Code.NOT_FOUND
    reason = "VERSION_ABSENT"

    def __init__(self, *, known: list[str]) -> None:
        """Tell which versions there are; what was asked for is the caller's and is not repeated."""
        super().__init__(f"version: no such version of a model; allowed: {', '.join(known) or 'none, there is none'}")


class VersionNotLoaded(ServiceError):
    """An alias leads to a version that is loaded, and this one is not."""

    code = Code.PRECONDITION
    reason = "VERSION_NOT_LOADED"

    def __init__(self, *, loaded: list[str]) -> None:
        """Tell which versions are loaded."""
        super().__init__(f"version: it is not loaded; allowed: {', '.join(loaded) or 'none, no version is loaded'}")


class VersionAliased(ServiceError):
    """Aliases lead to the version, so it stays in service."""

    code = Code.PRECONDITION
    reason = "VERSION_ALIASED"

    def __init__(self, *, aliases: list[str]) -> None:
        """Name the aliases, which an operator has set."""
        super().__init__(f"version: seen aliases that lead to it: {', '.join(aliases)}; allowed: one without aliases")


class ModelMemoryExceeded(ServiceError):
    """The model does not fit into the memory that models may take."""

    code = Code.PRECONDITION
    reason = "MODEL_MEMORY_EXCEEDED"

    def __init__(self, *, needed: int, used: int, limit: int) -> None:
        """Tell the bytes that the model needs, those that loaded and draining ones take, and those that may be."""
        super().__init__(
            f"the model needs {needed} bytes and those loaded or draining take {used} of {limit}; unload another, "
            "wait for one that drains, or allow more with --model-memory-mebibytes"
        )


class AliasesUnwritable(ServiceError):
    """The aliases' file cannot be written, so a change of them would not outlive the server."""

    code = Code.PRECONDITION
    reason = "ALIASES_UNWRITABLE"

    def __init__(self) -> None:
        """Say what an operator can do."""
        super().__init__("the file of aliases cannot be written; name one in a writable folder with --aliases-file")


class AliasesCorrupt(ServiceError):
    """The aliases' file is none, or leads to a version that is not loaded."""

    code = Code.PRECONDITION
    reason = "ALIASES_CORRUPT"

    def __init__(self, file: str, *, seen: str, allowed: str) -> None:
        """Name the file, what was seen in it and what is allowed."""
        super().__init__(f"{file}: seen {seen}; allowed: {allowed}")


class ModelsStalled(ServiceError):
    """The models' folder or the aliases' file does not answer, as on a mount whose server has gone."""

    code = Code.UNAVAILABLE
    reason = "MODELS_STALLED"

    def __init__(self, *, seconds: float) -> None:
        """Tell how long it was waited for."""
        super().__init__(
            f"the folder of models or the file of aliases has not answered within {seconds:g} s; a change of the file "
            "that had begun may still come about; retry later"
        )


class ModelGone(ServiceError):
    """The model was unloaded before the work on it was done; another version may serve in its place."""

    code = Code.UNAVAILABLE
    reason = "MODEL_GONE"

    def __init__(self) -> None:
        """Say so."""
        super().__init__("model: it was unloaded meanwhile; retry")


class QueueFull(ServiceError):
    """More requests wait than the server admits."""

    code = Code.BUSY
    reason = "QUEUE_FULL"

    def __init__(self, *, depth: int, limit: int, retry_seconds: float | None = None) -> None:
        """Tell how many jobs wait and how many may."""
        super().__init__(f"the queue holds {depth} of {limit} jobs; retry later")
        self.retry_seconds = retry_seconds


class WaitTooLong(ServiceError):
    """What is admitted already would keep the request waiting for longer than the server lets any wait."""

    code = Code.BUSY
    reason = "WAIT_TOO_LONG"

    def __init__(self, *, wait: float, limit: float) -> None:
        """Tell the seconds that the wait is estimated to take and those that it may take."""
        super().__init__(f"the wait is estimated to take {wait:.1f} of at most {limit:g} s; retry later")
        self.retry_seconds = wait - limit  # the wait shrinks by a second each second


class Draining(ServiceError):
    """The server is shutting down and takes no new request."""

    code = Code.UNAVAILABLE
    reason = "DRAINING"
    retry_seconds = 1.0  # by then the connection has been told to end, so that the next attempt goes elsewhere

    def __init__(self) -> None:
        """Say so."""
        super().__init__("the server is shutting down; retry elsewhere or later")


class Loading(ServiceError):
    """The server has not loaded its models yet."""

    code = Code.UNAVAILABLE
    reason = "LOADING"
    retry_seconds = 2.0  # loading takes seconds to minutes, and nobody knows which

    def __init__(self) -> None:
        """Say so."""
        super().__init__("the server is loading its models; retry later")


class EngineRestarting(ServiceError):
    """The engine that the request waited for has ended by a fault and is being restarted."""

    code = Code.UNAVAILABLE
    reason = "ENGINE_RESTARTING"
    retry_seconds = 1.0

    def __init__(self) -> None:
        """Say so."""
        super().__init__("the engine is being restarted; retry later")


class EngineFailed(ServiceError):
    """The engine ended by a fault while it worked on the request, which may be what caused it: not to be repeated."""

    code = Code.INTERNAL
    reason = "ENGINE_FAILED"

    def __init__(self) -> None:
        """Say so."""
        super().__init__("the engine ended by a fault while it worked on this request")


class DeadlineExpired(ServiceError):
    """The caller's deadline passed before the answer was ready."""

    code = Code.EXPIRED
    reason = "DEADLINE_EXPIRED"

    def __init__(self) -> None:
        """Say so."""
        super().__init__("the deadline passed before the answer was ready")


class DeadlineTooShort(ServiceError):
    """The caller's deadline leaves less time than the answer is estimated to take."""

    code = Code.EXPIRED
    reason = "DEADLINE_TOO_SHORT"

    def __init__(self, *, left: float, estimate: float) -> None:
        """Tell the seconds that the deadline leaves and those that the answer is estimated to take."""
        super().__init__(
            f"the deadline leaves {left:.2f} s and the answer is estimated to take {estimate:.2f} s; allow more time, "
            "ask for fewer steps or samples, or take a partial answer (on_deadline)"
        )


class HandleUnknown(ServiceError):
    """No image is kept under that handle: it never was, or its time to live has passed."""

    code = Code.NOT_FOUND
    reason = "IMAGE_HANDLE_UNKNOWN"

    def __init__(self) -> None:
        """Say so; the handle itself is a secret of the caller's."""
        super().__init__("image.handle: no image is kept under this handle; upload it again")


class UploadStoreFull(ServiceError):
    """The images kept leave no room for another."""

    code = Code.BUSY
    reason = "UPLOAD_STORE_FULL"

    def __init__(self, *, kept: int, limit: int, retry_seconds: float | None = None) -> None:
        """Tell how many bytes are kept or on their way and how many may be."""
        super().__init__(
            f"uploaded images take {kept} of {limit} bytes; retry later, or send the image with the request"
        )
        self.retry_seconds = retry_seconds


class UploadStalled(ServiceError):
    """An upload sent nothing for too long."""

    code = Code.EXPIRED
    reason = "UPLOAD_STALLED"

    def __init__(self, *, idle_seconds: float) -> None:
        """Tell how long the server waited."""
        super().__init__(f"the upload sent nothing for {idle_seconds:g} s, or next to nothing for long; start it again")


class ServerFull(ServiceError):
    """The requests under way leave no room for another."""

    code = Code.BUSY
    reason = "SERVER_FULL"

    def __init__(self, *, what: str, used: int, limit: int, retry_seconds: float | None = None) -> None:
        """Tell what there is too much of, how much is in use and how much may be."""
        super().__init__(f"the requests under way take {used} of {limit} {what}; retry later")
        self.retry_seconds = retry_seconds


class CallerFull(ServiceError):
    """One caller's requests under way, or its uploads, leave no room for another of its own; others have theirs."""

    code = Code.BUSY
    reason = "CALLER_FULL"

    def __init__(self, *, what: str, used: int, limit: int, retry_seconds: float | None = None) -> None:
        """Tell what there is too much of, how much this caller has in use and how much it may."""
        super().__init__(f"this caller takes {used} of its {limit} {what}; retry when some of its calls have ended")
        self.retry_seconds = retry_seconds


class CredentialsMissing(ServiceError):
    """The call names no caller, and this server serves nobody anonymous."""

    code = Code.UNIDENTIFIED
    reason = "CREDENTIALS_MISSING"

    def __init__(self) -> None:
        """Tell how a caller says who it is."""
        super().__init__(
            "this call names no caller; send a bearer token, or a client certificate where those are taken"
        )


class CredentialsInvalid(ServiceError):
    """The token or certificate is not one that this server takes; which check failed is not told to who may guess."""

    code = Code.UNIDENTIFIED
    reason = "CREDENTIALS_INVALID"

    def __init__(self) -> None:
        """Say so without repeating any of it."""
        super().__init__("the credentials are not valid here")


class CredentialsExpired(ServiceError):
    """The token was valid once; a fresh one helps."""

    code = Code.UNIDENTIFIED
    reason = "CREDENTIALS_EXPIRED"

    def __init__(self) -> None:
        """Say so."""
        super().__init__("the token has expired; get a fresh one")


class ScopeMissing(ServiceError):
    """The caller is known and may not do this."""

    code = Code.FORBIDDEN
    reason = "SCOPE_MISSING"

    def __init__(self, scope: str) -> None:
        """Name the scope that the call needs."""
        super().__init__(f"this call needs the scope {scope}, which this caller does not have")
        self.scope = scope


class AccessFileUnusable(ServiceError):
    """A file that says who may call, or that encryption needs, cannot be used."""

    code = Code.UNAVAILABLE
    reason = "ACCESS_FILE_UNUSABLE"

    def __init__(self, file: str, *, seen: str, allowed: str) -> None:
        """Name the file, what was seen in it and what is allowed; never what a secret file holds."""
        super().__init__(f"{file}: seen {seen}; allowed: {allowed}")
        self.file = file


class EvaluationFailed(ServiceError):
    """A graph could not be evaluated; the cause is in the server's log under the request's id."""

    code = Code.INTERNAL
    reason = "EVALUATION_FAILED"

    def __init__(self) -> None:
        """Say so without repeating the runtime's own text, which may hold values."""
        super().__init__("the model could not be evaluated on this input")


class EvaluationAborted(ServiceError):
    """An evaluation took far longer than any should, and was ended."""

    code = Code.INTERNAL
    reason = "EVALUATION_ABORTED"

    def __init__(self) -> None:
        """Say so."""
        super().__init__("the evaluation took far longer than any should, and was ended")


class AuditUnavailable(ServiceError):
    """The audit log cannot be written, and the operator wants no call without a record."""

    code = Code.UNAVAILABLE
    reason = "AUDIT_UNAVAILABLE"

    def __init__(self) -> None:
        """Say so."""
        super().__init__("the audit log cannot be written, and no call is answered without a record; retry later")


class AuditUnusable(ServiceError):
    """The audit log or its key cannot be used; the server does not start."""

    code = Code.UNAVAILABLE
    reason = "AUDIT_UNUSABLE"

    def __init__(self, file: str, *, seen: str, allowed: str) -> None:
        """Name the file, what was seen and what is allowed."""
        super().__init__(f"{file}: seen {seen}; allowed: {allowed}")


class PackageCorrupt(ServiceError):
    """A model package is not what its manifest says, or has no manifest that this server reads."""

    code = Code.PRECONDITION
    reason = "PACKAGE_CORRUPT"

    def __init__(self, file: str, *, seen: str, allowed: str) -> None:
        """Name the package's file, what was seen in it and what is allowed."""
        super().__init__(f"{file}: seen {seen}; allowed: {allowed}")
        self.file = file


class DeviceUnavailable(ServiceError):
    """The device that was asked for cannot be had; there is no silent fallback."""

    code = Code.UNAVAILABLE
    reason = "DEVICE_UNAVAILABLE"

    def __init__(self, device: str, *, seen: str, allowed: str) -> None:
        """Name the device, the execution providers that this build has, and the one it needs."""
        super().__init__(f"device {device}: seen {seen}; allowed: {allowed}")


class CallNotOffered(ServiceError):
    """The service's contract has this call, and this server does not offer it."""

    code = Code.UNSUPPORTED
    reason = "CALL_NOT_OFFERED"

    def __init__(self, why: str) -> None:
        """Say why, in words of ours."""
        super().__init__(f"this server does not offer this call: {why}")
