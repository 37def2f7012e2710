"""Owns the command line's flags: name, environment variable, range and help of each. Their defaults are settings'."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from m2ib_server.access.address import UNIX, is_loopback
from m2ib_server.access.identity import SCOPES

MOST_SECONDS = 7 * 24 * 3600  # a week; more is a mistake, and no clock or message holds infinity


class DeviceChoice(StrEnum):
    """The devices that can be asked for."""

    CPU = "cpu"
    CUDA = "cuda"
    TENSORRT = "tensorrt"


class OnFailureChoice(StrEnum):
    """What happens to calls that the audit log cannot record."""

    REFUSE = "refuse"
    CONTINUE = "continue"


class FsyncChoice(StrEnum):
    """When the audit log waits for the disk."""

    ALWAYS = "always"
    INTERVAL = "interval"


def _listen_address(value: str) -> str:
    host, separator, port = value.rpartition(":")
    if not separator or not host or not port.isdigit() or int(port) > 65535:
        raise typer.BadParameter(f"seen {value!r}; allowed: host:port with a port from 0 to 65535")
    return value


def _server_address(value: str) -> str:
    return value if value.startswith(UNIX) and value != UNIX else _listen_address(value)


def _optional_listen_address(value: str | None) -> str | None:
    return None if value is None else _listen_address(value)


def _collector(value: str | None) -> str | None:
    if value is None:
        return None
    scheme, separator, address = value.partition("://")
    if not separator or scheme not in ("http", "https"):
        raise typer.BadParameter(f"seen {value!r}; allowed: http://host:port or https://host:port")
    return f"{scheme}://{_listen_address(address)}"


def _scopes(value: str) -> str:
    if unknown := set(_listed(value)) - SCOPES:
        raise typer.BadParameter(f"seen {', '.join(sorted(unknown))}; allowed: of {', '.join(sorted(SCOPES))}")
    return value


def _listed(value: str) -> list[str]:
    return [entry for entry in value.split(",") if entry]


def _file(variable: str, meaning: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(envvar=variable, dir_okay=False, help=meaning)
    return option


def entries(value: str) -> frozenset[str]:
    """Return the entries of a list with commas."""
    return frozenset(_listed(value))


def _count(variable: str, meaning: str, *, least: int = 1, most: int | None = None) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(envvar=variable, min=least, max=most, help=meaning)
    return option


def _seconds(meaning: str, *, variable: str | None = None, least: float = 0) -> typer.models.OptionInfo:
    """Return a flag for a time, whose refusal names flag and variable; NaN lies in no range."""

    def checked(value: float) -> float:
        if not least <= value <= MOST_SECONDS:
            raise typer.BadParameter(f"seen {value}; allowed: {least:g} to {MOST_SECONDS} seconds")
        return value

    option: typer.models.OptionInfo = typer.Option(envvar=variable, callback=checked, help=meaning)
    return option


Models = Annotated[
    Path,
    typer.Option(envvar="M2IB_MODELS", exists=True, file_okay=False, help="Folder with the model packages to load."),
]
PollSeconds = Annotated[
    float,
    _seconds("How often to look for models that have come or gone; 0 is never.", variable="M2IB_POLL_SECONDS"),
]
ModelMemoryMebibytes = Annotated[
    int,
    _count(
        "M2IB_MODEL_MEMORY_MEBIBYTES", "Memory for all models together, in MiB, by estimate; 0 is no limit.", least=0
    ),
]
AliasesFile = Annotated[
    Path | None,
    typer.Option(
        envvar="M2IB_ALIASES_FILE",
        dir_okay=False,
        help="File that keeps aliases such as champion.",
        show_default="aliases.json in the models' folder",
    ),
]
Listen = Annotated[
    str,
    typer.Option(
        envvar="M2IB_LISTEN", callback=_server_address, help="host:port or unix:path; port 0 takes a free one."
    ),
]
Address = Annotated[
    str,
    typer.Option(envvar=["M2IB_HEALTH_LISTEN", "M2IB_LISTEN"], callback=_server_address, help="Address of the server."),
]
Device = Annotated[
    DeviceChoice, typer.Option(envvar="M2IB_DEVICE", help="What evaluates the graphs; never falls back.")
]
Threads = Annotated[
    int | None,
    typer.Option(envvar="M2IB_THREADS", min=1, help="Compute threads.", show_default="what the machine allows"),
]
SpinMicroseconds = Annotated[
    int,
    _count(
        "M2IB_SPIN_MICROSECONDS",
        "How long compute threads look out for more work before they sleep; 20 suits cores of the server's own.",
        least=0,
        most=1000,
    ),
]
Devices = Annotated[int, _count("M2IB_DEVICES", "Engines: GPUs 0 to N - 1, or N equal shares of the CPU's threads.")]
Reflection = Annotated[bool, typer.Option(envvar="M2IB_REFLECTION", help="Describe the services to whoever asks.")]
GraceSeconds = Annotated[
    float, _seconds("Time for running requests to finish after SIGTERM.", variable="M2IB_GRACE_SECONDS")
]
StuckSeconds = Annotated[
    float,
    _seconds(
        "How long a round of a compute thread may take before it counts as stuck.",
        variable="M2IB_STUCK_SECONDS",
        least=1,
    ),
]
CanarySeconds = Annotated[
    float,
    _seconds(
        "How often an idle engine explains a canary with each model, for health; 0 for never.",
        variable="M2IB_CANARY_SECONDS",
    ),
]
MaxRestarts = Annotated[
    int,
    _count("M2IB_MAX_RESTARTS", "Restarts of an engine within ten minutes; with one more the server ends.", least=0),
]
CacheMebibytes = Annotated[int, _count("M2IB_CACHE_MEBIBYTES", "Memory for head features, in MiB.", least=0)]
MaxWaiting = Annotated[int, _count("M2IB_MAX_WAITING", "Requests that may wait; one more is refused.")]
MaxWaitSeconds = Annotated[
    float,
    _seconds(
        "Longest estimated wait of an interactive request; a longer one is refused.", variable="M2IB_MAX_WAIT_SECONDS"
    ),
]
MaxBulkWaitSeconds = Annotated[
    float, _seconds("Longest estimated wait of a bulk request.", variable="M2IB_MAX_BULK_WAIT_SECONDS")
]
MaxRunning = Annotated[int, _count("M2IB_MAX_RUNNING", "Requests of one class under way together, per device.")]
MaxLargeRows = Annotated[
    int,
    _count(
        "M2IB_MAX_LARGE_ROWS",
        "Noise rows of the requests of one class that have more than --max-rows, under way together, per device.",
    ),
]
MaxRows = Annotated[int, _count("M2IB_MAX_ROWS", "Noise rows evaluated in one call of a graph, per device.")]
BulkPatienceMs = Annotated[
    int,
    _count("M2IB_BULK_PATIENCE_MS", "How long bulk requests may go without a turn beside interactive ones, in ms."),
]
UploadMebibytes = Annotated[int, _count("M2IB_UPLOAD_MEBIBYTES", "Memory for uploaded images, in MiB.", least=0)]
UploadSeconds = Annotated[
    float, _seconds("How long an uploaded image is kept unused.", variable="M2IB_UPLOAD_SECONDS", least=0.1)
]
TimeoutSeconds = Annotated[float, _seconds("How long to wait for an answer.", least=0.1)]
MaxMessageMebibytes = Annotated[
    int, _count("M2IB_MAX_MESSAGE_MEBIBYTES", "Largest gRPC message, in MiB.", least=4, most=1024)
]
MaxImageMebibytes = Annotated[
    int, _count("M2IB_MAX_IMAGE_MEBIBYTES", "Largest encoded image, in MiB; less than the largest message.")
]
MaxImageMegapixels = Annotated[int, _count("M2IB_MAX_IMAGE_MEGAPIXELS", "Largest image, in megapixels.")]
MaxSteps = Annotated[int, _count("M2IB_MAX_STEPS", "Most optimisation steps of a request.")]
MaxSamples = Annotated[int, _count("M2IB_MAX_SAMPLES", "Most noise rows per step of a request.")]
MaxScoreImages = Annotated[int, _count("M2IB_MAX_SCORE_IMAGES", "Most images that one request may score.")]
MaxScoreTexts = Annotated[int, _count("M2IB_MAX_SCORE_TEXTS", "Most texts that one request may score.")]
MaxTextCharacters = Annotated[int, _count("M2IB_MAX_TEXT_CHARACTERS", "Longest text, in Unicode code points.")]
AuditLog = Annotated[
    Path | None,
    typer.Option(envvar="M2IB_AUDIT_LOG", dir_okay=False, help="File that every call is recorded in; none by default."),
]
AuditSaltFile = Annotated[
    Path | None,
    typer.Option(
        envvar="M2IB_AUDIT_SALT_FILE", dir_okay=False, help="File with the key of the images' hashes, 32 bytes or more."
    ),
]
AuditOnFailure = Annotated[
    OnFailureChoice,
    typer.Option(envvar="M2IB_AUDIT_ON_FAILURE", help="What to do with calls that cannot be recorded."),
]
AuditFsync = Annotated[
    FsyncChoice,
    typer.Option(envvar="M2IB_AUDIT_FSYNC", help="Wait for the disk before each answer, or about each second."),
]
AuditMaxMebibytes = Annotated[
    int, _count("M2IB_AUDIT_MAX_MEBIBYTES", "Size at which the audit log is continued in a new file, in MiB.")
]
MetricsListen = Annotated[
    str | None,
    typer.Option(
        envvar="M2IB_METRICS_LISTEN",
        callback=_optional_listen_address,
        help="Address to show Prometheus metrics on, in plaintext; none by default.",
    ),
]
OtlpEndpoint = Annotated[
    str | None,
    typer.Option(
        envvar="M2IB_OTLP_ENDPOINT",
        callback=_collector,
        help="OpenTelemetry collector to send traces to, such as http://127.0.0.1:4317; none by default.",
    ),
]
ReadyFile = Annotated[
    Path | None,
    typer.Option(envvar="M2IB_READY_FILE", dir_okay=False, help="File to write host:port to once ready."),
]
ExitWithStdin = Annotated[bool, typer.Option(envvar="M2IB_EXIT_WITH_STDIN", help="Stop when standard input ends.")]

TlsCertificate = Annotated[
    Path | None, _file("M2IB_TLS_CERTIFICATE", "PEM file of the server's certificate; read again when it changes.")
]
TlsKey = Annotated[Path | None, _file("M2IB_TLS_KEY", "PEM file of the certificate's key, without a passphrase.")]
TlsClientCa = Annotated[
    Path | None,
    _file("M2IB_TLS_CLIENT_CA", "PEM file of clients' authorities; every client then needs a certificate of theirs."),
]
CertificateScopes = Annotated[
    str,
    typer.Option(
        envvar="M2IB_CERTIFICATE_SCOPES",
        callback=_scopes,
        help='What any client certificate allows, such as "explain,admin"; "" wants a token as well.',
    ),
]
CertificateAdmins = Annotated[
    str,
    typer.Option(envvar="M2IB_CERTIFICATE_ADMINS", help="Names in client certificates that may administer, by commas."),
]
Insecure = Annotated[
    bool, typer.Option(envvar="M2IB_INSECURE", help="Listen beyond loopback in plaintext, images of patients included.")
]
Tokens = Annotated[
    Path | None, _file("M2IB_TOKENS", "File of static tokens, kept by `m2ib-server token`; read again when it changes.")
]
JwtIssuer = Annotated[str, typer.Option(envvar="M2IB_JWT_ISSUER", help="Whose JSON Web Tokens are taken (`iss`).")]
JwtAudience = Annotated[str, typer.Option(envvar="M2IB_JWT_AUDIENCE", help="For whom they must be made out (`aud`).")]
JwtKeys = Annotated[
    Path | None, _file("M2IB_JWT_KEYS", "JWKS file of the keys that sign them; read again when it changes.")
]
AnonymousAdmin = Annotated[
    bool,
    typer.Option(
        envvar="M2IB_ANONYMOUS_ADMIN", help="Without tokens and client certificates: let everybody administer."
    ),
]
MaxCallerRequests = Annotated[
    int, _count("M2IB_MAX_CALLER_REQUESTS", "Requests of one caller under way; anonymous ones have no such limit.")
]
MaxCallerMebibytes = Annotated[
    int,
    _count("M2IB_MAX_CALLER_MEBIBYTES", "Memory for one caller's requests, and as much again for its uploads, in MiB."),
]
MaxConnectionAgeSeconds = Annotated[
    float,
    _seconds(
        "Age at which a connection is replaced, so that clients find new servers; 0 is never.",
        variable="M2IB_MAX_CONNECTION_AGE_SECONDS",
    ),
]
ConnectionAgeGraceSeconds = Annotated[
    float,
    _seconds("Time for the calls of such a connection to end.", variable="M2IB_CONNECTION_AGE_GRACE_SECONDS"),
]
Channelz = Annotated[bool, typer.Option(envvar="M2IB_CHANNELZ", help="Describe the connections to administrators.")]
HealthListen = Annotated[
    str | None,
    typer.Option(
        envvar="M2IB_HEALTH_LISTEN",
        callback=_optional_listen_address,
        help="A second address, in plaintext, that tells of health and nothing else, for probes.",
    ),
]
ProbeCa = Annotated[
    Path | None,
    _file("M2IB_TLS_CA", "PEM file of the server's authority; without it the server is asked in plaintext."),
]
ProbeCertificate = Annotated[Path | None, _file("M2IB_CLIENT_CERTIFICATE", "PEM file of a client certificate.")]
ProbeKey = Annotated[Path | None, _file("M2IB_CLIENT_KEY", "PEM file of its key.")]
ProbeServerName = Annotated[
    str, typer.Option(envvar="M2IB_TLS_SERVER_NAME", help="Name in the server's certificate, if not its address.")
]


def check_transport(
    listen: str, certificate: Path | None, key: Path | None, client_ca: Path | None, *, insecure: bool
) -> None:
    """Refuse to listen beyond loopback in plaintext, unless that was asked for, and half a certificate.

    Raises:
        typer.BadParameter: naming the flags.
    """
    if (certificate is None) != (key is None):
        raise typer.BadParameter(
            "--tls-certificate (M2IB_TLS_CERTIFICATE) and --tls-key (M2IB_TLS_KEY) need each other"
        )
    if client_ca is not None and certificate is None:
        raise typer.BadParameter("--tls-client-ca (M2IB_TLS_CLIENT_CA) needs --tls-certificate and --tls-key")
    if certificate is None and not insecure and not is_loopback(listen):
        raise typer.BadParameter(
            f"seen --listen {listen}, which others than this machine reach, in plaintext; allowed: "
            "--tls-certificate (M2IB_TLS_CERTIFICATE) with --tls-key, or --insecure (M2IB_INSECURE)"
        )


def check_provider(keys: Path | None, issuer: str, audience: str) -> None:
    """Refuse part of what JSON Web Tokens need.

    Raises:
        typer.BadParameter: naming the flags.
    """
    given = (keys is not None, bool(issuer), bool(audience))
    if any(given) and not all(given):
        needed = "--jwt-keys (M2IB_JWT_KEYS), --jwt-issuer (M2IB_JWT_ISSUER) and --jwt-audience (M2IB_JWT_AUDIENCE)"
        raise typer.BadParameter(f"{needed} need one another")


def check_probe(ca: Path | None, certificate: Path | None, key: Path | None) -> None:
    """Refuse part of what a client certificate needs.

    Raises:
        typer.BadParameter: naming the flags.
    """
    if (certificate is None) != (key is None) or (certificate is not None and ca is None):
        raise typer.BadParameter("--tls-certificate and --tls-key need each other, and --tls-ca")


def check_devices(devices: int, threads: int, device: DeviceChoice) -> None:
    """Refuse more devices on a CPU than it has threads for.

    Raises:
        typer.BadParameter: naming both flags and both variables.
    """
    if device is DeviceChoice.CPU and devices > threads:
        seen, allowed = f"--devices (M2IB_DEVICES) {devices}", f"at most --threads (M2IB_THREADS) {threads} on a CPU"
        raise typer.BadParameter(f"seen {seen}; allowed: {allowed}")


def check_audit(log: Path | None, salt_file: Path | None) -> None:
    """Refuse an audit log without a key, and a key without a log.

    Raises:
        typer.BadParameter: naming both flags and both variables.
    """
    if (log is None) != (salt_file is None):
        seen = "one of --audit-log (M2IB_AUDIT_LOG) and --audit-salt-file (M2IB_AUDIT_SALT_FILE) alone"
        raise typer.BadParameter(f"seen {seen}; allowed: both or neither")


def check_sizes(max_image_mebibytes: int, max_message_mebibytes: int) -> None:
    """Refuse a largest image that no message holds, for such a limit would be told to callers.

    Raises:
        typer.BadParameter: naming both flags and both variables.
    """
    if max_image_mebibytes >= max_message_mebibytes:
        seen = f"--max-image-mebibytes (M2IB_MAX_IMAGE_MEBIBYTES) {max_image_mebibytes}"
        allowed = f"less than --max-message-mebibytes (M2IB_MAX_MESSAGE_MEBIBYTES) {max_message_mebibytes}"
        raise typer.BadParameter(f"seen {seen}; allowed: {allowed}")
