"""Owns what an operator may set, with its defaults and units. Nothing else reads the environment."""

from dataclasses import dataclass
from pathlib import Path

MEBIBYTE = 1 << 20
MAX_BETA = 100.0  # these two bounds of m2ib.v1.Settings are the contract's, not the operator's
MAX_LEARNING_RATE = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestLimits:
    """The bounds that a request must keep.

    Attributes:
        max_steps: optimisation steps.
        max_samples: noise rows per step.
        max_image_bytes: an encoded image's size, in bytes.
        max_image_pixels: pixels of one frame.
        max_score_images: images in a ScoreRequest.
        max_score_texts: texts in a ScoreRequest.
        max_text_characters: a text's length, in Unicode code points.
        max_repeats: independent runs of one optimisation.
        max_batch_in_flight: requests of one ExplainBatch that are under way together.
    """

    max_steps: int = 1000
    max_samples: int = 256
    max_image_bytes: int = 48 * MEBIBYTE
    max_image_pixels: int = 40_000_000
    max_score_images: int = 64
    max_score_texts: int = 1024
    max_text_characters: int = 20_000
    max_repeats: int = 16
    max_batch_in_flight: int = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLimits:
    """The bounds that the engine keeps.

    Attributes:
        max_waiting: jobs of one class that may wait; one more is refused.
        max_wait_seconds: how long an interactive job may be estimated to wait for others; a longer wait is refused.
        max_bulk_wait_seconds: the same of a bulk job.
        max_running: jobs of one class that are under way together and hold their features.
        max_large_rows: rows, together, of the steps of those of them that are larger than a round; one alone may be.
        max_rows: rows that one round evaluates and one call of a graph takes.
        bulk_patience_ms: how long the bulk jobs, all of them, may go without a turn while there are interactive ones.
        cache_bytes: memory for head features and target embeddings, in bytes.
    """

    max_waiting: int = 256
    max_wait_seconds: float = 60.0  # the SDK's own timeout: who would wait longer is better told so at once
    max_bulk_wait_seconds: float = 3600.0
    max_running: int = 16  # each holds its mask, Adam's moments and a step's noise between two rounds
    max_large_rows: int = 256  # ViT-B/32 holds half a megabyte for each
    max_rows: int = 20  # measured: bench/rows.py
    bulk_patience_ms: int = 1000
    cache_bytes: int = 256 * MEBIBYTE


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakeLimits:
    """The bounds of what the server holds for requests, outside the engine.

    Attributes:
        max_requests: requests under way, read, waiting or running.
        max_bytes: their messages and decoded images, in bytes.
        upload_bytes: uploaded images, kept or on their way, in bytes.
        upload_seconds: how long an uploaded image is kept after its last use.
        upload_idle_seconds: how long an upload may send nothing.
        image_cache_bytes: decoded images kept for the next request on the same image, in bytes.
        max_caller_requests: requests of one caller under way; those of anonymous callers are bounded together alone.
        max_caller_bytes: their messages and decoded images, and as much again of uploaded images, in bytes.
    """

    max_requests: int = 1024
    max_bytes: int = 1024 * MEBIBYTE
    upload_bytes: int = 512 * MEBIBYTE
    upload_seconds: float = 600.0
    upload_idle_seconds: float = 30.0
    image_cache_bytes: int = 256 * MEBIBYTE
    max_caller_requests: int = 256
    max_caller_bytes: int = 256 * MEBIBYTE


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositorySettings:
    """How models come and go.

    Attributes:
        poll_seconds: how often the folder is looked at for versions that have come or gone, in seconds; 0 is never.
        memory_bytes: what all models together may take, by the estimate of `repository.memory`; 0 is no limit.
        aliases_file: where aliases are kept; None is aliases.json in the models' folder.
    """

    poll_seconds: float = 0.0
    memory_bytes: int = 0
    aliases_file: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditSettings:
    """Where every call is recorded, and what happens when it cannot be.

    Attributes:
        file: the log; None keeps none.
        salt_file: the file with the key of the images' hashes, at least 32 bytes; needed where there is a log.
        refuses: whether no call is answered that could not be recorded; else it is answered, and counted.
        syncs_always: whether an answer waits until its record is on the disk; else the disk is waited for each second.
        max_bytes: the size at which the file is put aside and a new one continues it.
    """

    file: Path | None = None
    salt_file: Path | None = None
    refuses: bool = True
    syncs_always: bool = True
    max_bytes: int = 256 * MEBIBYTE


DEFAULT_AUDIT = AuditSettings()


@dataclass(frozen=True, slots=True, kw_only=True)
class SightSettings:
    """What operators see of the server besides its log.

    Attributes:
        metrics_listen: "host:port" to show Prometheus metrics on, in plaintext; None shows none.
        otlp_endpoint: "http://host:port" or "https://host:port" of the OpenTelemetry collector; None traces nothing.
    """

    metrics_listen: str | None = None
    otlp_endpoint: str | None = None


DEFAULT_SIGHT = SightSettings()


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessSettings:
    """Who may call, and the encryption of the wire.

    Attributes:
        certificate: PEM file of the server's certificate and those between it and its authority; None is plaintext.
        key: PEM file of its key.
        client_ca: PEM file of the authorities of clients, each of which then needs a certificate.
        certificate_scopes: what any such certificate allows.
        certificate_admins: names in certificates that are allowed `admin` beyond that.
        tokens: file of static tokens' hashes.
        jwt_keys: JWKS file of the provider of JSON Web Tokens.
        jwt_issuer: the provider's name, the claim `iss`.
        jwt_audience: this service's name with the provider, in the claim `aud`.
        anonymous_admin: whether nobody in particular may administer a server that others than this machine reach.
    """

    certificate: Path | None = None
    key: Path | None = None
    client_ca: Path | None = None
    certificate_scopes: frozenset[str] = frozenset({"explain"})
    certificate_admins: frozenset[str] = frozenset()
    tokens: Path | None = None
    jwt_keys: Path | None = None
    jwt_issuer: str = ""
    jwt_audience: str = ""
    anonymous_admin: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportSettings:
    """The connections.

    Attributes:
        max_connection_age_seconds: after which a client is asked to connect anew, give or take a tenth; 0 never asks.
        connection_age_grace_seconds: how long calls on such a connection may go on.
        channelz: whether the connections are described to administrators.
        health_listen: a second "host:port", in plaintext, that tells of health and nothing else; None has none.
    """

    max_connection_age_seconds: float = 1800.0
    connection_age_grace_seconds: float = 3600.0
    channelz: bool = False
    health_listen: str | None = None


DEFAULT_ACCESS = AccessSettings()
DEFAULT_TRANSPORT = TransportSettings()


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchLimits:
    """When a compute thread counts as stuck, and what is done about it.

    Attributes:
        stuck_seconds: how long a round, or work without progress, may take.
        abort_seconds: how long a stuck thread may take to come back once its evaluation was aborted.
        max_restarts: restarts and aborts of one engine within the window; with one more the server gives up.
        restart_window_seconds: that window.
        canary_seconds: how long an idle engine goes without explaining a canary with each model; 0 explains none.
        canary_retry_seconds: the same, after one that went wrong.
        max_canary_failures: of every model of an engine, in a row; with so many the engine is restarted.
        tick_seconds: how often the compute threads are looked at.
    """

    stuck_seconds: float = 60.0
    abort_seconds: float = 10.0
    max_restarts: int = 3
    restart_window_seconds: float = 600.0
    canary_seconds: float = 60.0
    canary_retry_seconds: float = 5.0
    max_canary_failures: int = 3
    tick_seconds: float = 0.5


DEFAULT_REQUESTS = RequestLimits()
DEFAULT_INTAKE = IntakeLimits()
DEFAULT_ENGINE = EngineLimits()
DEFAULT_REPOSITORY = RepositorySettings()
DEFAULT_WATCH = WatchLimits()
DEFAULT_MESSAGE_BYTES = 64 * MEBIBYTE


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """Everything an operator may set.

    Attributes:
        models: the folder with the model packages.
        listen: "host:port"; port 0 takes a free one. Or "unix:path".
        device: "cpu", "cuda" or "tensorrt".
        threads: compute threads, at least 1.
        spin_microseconds: how long ONNX Runtime's threads look out for more work before they sleep, 0 to 1000.
        devices: devices, each with an engine of its own: GPUs 0 to devices - 1, or shares of a CPU's threads.
        reflection: whether the server describes its services to whoever asks.
        grace_seconds: how long running requests may take to finish after SIGTERM.
        max_message_bytes: the largest gRPC message in either direction, in bytes.
        ready_file: written with "host:port" once the server is ready; None writes nothing.
        exit_with_stdin: whether the end of standard input ends the server, as SIGTERM does.
        requests: the bounds of a request.
        engine: the bounds of each device's engine.
        intake: the bounds of what is held outside the engine.
        audit: the audit log.
        sight: metrics and traces.
        access: who may call, and the encryption of the wire.
        transport: the connections.
        repository: how models come and go.
        watch: how the compute threads are watched.
    """

    models: Path
    listen: str
    device: str
    threads: int
    spin_microseconds: int = 0
    devices: int = 1
    reflection: bool = False
    grace_seconds: float = 30.0
    max_message_bytes: int = DEFAULT_MESSAGE_BYTES
    ready_file: Path | None = None
    exit_with_stdin: bool = False
    requests: RequestLimits = DEFAULT_REQUESTS
    engine: EngineLimits = DEFAULT_ENGINE
    intake: IntakeLimits = DEFAULT_INTAKE
    audit: AuditSettings = DEFAULT_AUDIT
    sight: SightSettings = DEFAULT_SIGHT
    access: AccessSettings = DEFAULT_ACCESS
    transport: TransportSettings = DEFAULT_TRANSPORT
    repository: RepositorySettings = DEFAULT_REPOSITORY
    watch: WatchLimits = DEFAULT_WATCH
