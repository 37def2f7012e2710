"""The command line `m2ib-server`: reads settings from flags and variables, builds, serves."""

import asyncio
import logging
import os
import threading
import time
from contextlib import AbstractContextManager, nullcontext
from typing import Annotated

import typer
from rich.console import Console

from m2ib_server import __version__, descriptors, flags
from m2ib_server.access.commands import token_app
from m2ib_server.cores import available_threads
from m2ib_server.errors import ServiceError
from m2ib_server.settings import (
    DEFAULT_AUDIT,
    DEFAULT_ENGINE,
    DEFAULT_INTAKE,
    DEFAULT_MESSAGE_BYTES,
    DEFAULT_REPOSITORY,
    DEFAULT_REQUESTS,
    DEFAULT_TRANSPORT,
    DEFAULT_WATCH,
    MEBIBYTE,
    AccessSettings,
    AuditSettings,
    EngineLimits,
    IntakeLimits,
    RepositorySettings,
    RequestLimits,
    ServerSettings,
    SightSettings,
    TransportSettings,
    WatchLimits,
)
from m2ib_server.sight.audit_command import audit
from m2ib_server.telemetry import configure_log, log_event, origin_of

app = typer.Typer(
    help="Serves M2IB attributions of CLIP-like models over gRPC.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.add_typer(audit, name="audit")
app.add_typer(token_app, name="token")

EXIT_FAILED = 1
EXIT_NOT_READY = 3
OWN_THREADS = ("m2ib-engine", "m2ib-load", "m2ib-decode")  # pools number theirs
LEAVING_SECONDS = 1.0  # how long threads that were told to end may take in all


@app.command()
def serve(
    models: flags.Models,
    listen: flags.Listen = "127.0.0.1:50051",
    poll_seconds: flags.PollSeconds = DEFAULT_REPOSITORY.poll_seconds,
    model_memory_mebibytes: flags.ModelMemoryMebibytes = DEFAULT_REPOSITORY.memory_bytes // MEBIBYTE,
    aliases_file: flags.AliasesFile = DEFAULT_REPOSITORY.aliases_file,
    device: flags.Device = flags.DeviceChoice.CPU,
    threads: flags.Threads = None,
    spin_microseconds: flags.SpinMicroseconds = 0,
    devices: flags.Devices = 1,
    reflection: flags.Reflection = False,
    grace_seconds: flags.GraceSeconds = 30.0,
    stuck_seconds: flags.StuckSeconds = DEFAULT_WATCH.stuck_seconds,
    canary_seconds: flags.CanarySeconds = DEFAULT_WATCH.canary_seconds,
    max_restarts: flags.MaxRestarts = DEFAULT_WATCH.max_restarts,
    cache_mebibytes: flags.CacheMebibytes = DEFAULT_ENGINE.cache_bytes // MEBIBYTE,
    max_waiting: flags.MaxWaiting = DEFAULT_ENGINE.max_waiting,
    max_wait_seconds: flags.MaxWaitSeconds = DEFAULT_ENGINE.max_wait_seconds,
    max_bulk_wait_seconds: flags.MaxBulkWaitSeconds = DEFAULT_ENGINE.max_bulk_wait_seconds,
    max_running: flags.MaxRunning = DEFAULT_ENGINE.max_running,
    max_large_rows: flags.MaxLargeRows = DEFAULT_ENGINE.max_large_rows,
    max_rows: flags.MaxRows = DEFAULT_ENGINE.max_rows,
    bulk_patience_ms: flags.BulkPatienceMs = DEFAULT_ENGINE.bulk_patience_ms,
    upload_mebibytes: flags.UploadMebibytes = DEFAULT_INTAKE.upload_bytes // MEBIBYTE,
    upload_seconds: flags.UploadSeconds = DEFAULT_INTAKE.upload_seconds,
    max_message_mebibytes: flags.MaxMessageMebibytes = DEFAULT_MESSAGE_BYTES // MEBIBYTE,
    max_image_mebibytes: flags.MaxImageMebibytes = DEFAULT_REQUESTS.max_image_bytes // MEBIBYTE,
    max_image_megapixels: flags.MaxImageMegapixels = DEFAULT_REQUESTS.max_image_pixels // 1_000_000,
    max_steps: flags.MaxSteps = DEFAULT_REQUESTS.max_steps,
    max_samples: flags.MaxSamples = DEFAULT_REQUESTS.max_samples,
    max_score_images: flags.MaxScoreImages = DEFAULT_REQUESTS.max_score_images,
    max_score_texts: flags.MaxScoreTexts = DEFAULT_REQUESTS.max_score_texts,
    max_text_characters: flags.MaxTextCharacters = DEFAULT_REQUESTS.max_text_characters,
    audit_log: flags.AuditLog = None,
    audit_salt_file: flags.AuditSaltFile = None,
    audit_on_failure: flags.AuditOnFailure = flags.OnFailureChoice.REFUSE,
    audit_fsync: flags.AuditFsync = flags.FsyncChoice.ALWAYS,
    audit_max_mebibytes: flags.AuditMaxMebibytes = DEFAULT_AUDIT.max_bytes // MEBIBYTE,
    metrics_listen: flags.MetricsListen = None,
    otlp_endpoint: flags.OtlpEndpoint = None,
    tls_certificate: flags.TlsCertificate = None,
    tls_key: flags.TlsKey = None,
    tls_client_ca: flags.TlsClientCa = None,
    certificate_scopes: flags.CertificateScopes = "explain",
    certificate_admins: flags.CertificateAdmins = "",
    insecure: flags.Insecure = False,
    tokens: flags.Tokens = None,
    jwt_issuer: flags.JwtIssuer = "",
    jwt_audience: flags.JwtAudience = "",
    jwt_keys: flags.JwtKeys = None,
    anonymous_admin: flags.AnonymousAdmin = False,
    max_caller_requests: flags.MaxCallerRequests = DEFAULT_INTAKE.max_caller_requests,
    max_caller_mebibytes: flags.MaxCallerMebibytes = DEFAULT_INTAKE.max_caller_bytes // MEBIBYTE,
    max_connection_age_seconds: flags.MaxConnectionAgeSeconds = DEFAULT_TRANSPORT.max_connection_age_seconds,
    connection_age_grace_seconds: flags.ConnectionAgeGraceSeconds = DEFAULT_TRANSPORT.connection_age_grace_seconds,
    channelz: flags.Channelz = False,
    health_listen: flags.HealthListen = None,
    ready_file: flags.ReadyFile = None,
    exit_with_stdin: flags.ExitWithStdin = False,
) -> None:
    """Load every model package below a folder and serve them.

    Serves only after every graph of every model has run once. SIGTERM or Ctrl-C stops taking requests, lets the
    running ones finish and ends with exit code 0; a second one ends the server at once, with 143 or 130. Exit code 1:
    an engine hangs or dies again and again. Exit code 3: a package, the device or the address cannot be used.
    """
    threads = threads or available_threads()
    flags.check_sizes(max_image_mebibytes, max_message_mebibytes)
    flags.check_devices(devices, threads, device)
    flags.check_audit(audit_log, audit_salt_file)
    flags.check_transport(listen, tls_certificate, tls_key, tls_client_ca, insecure=insecure)
    flags.check_provider(jwt_keys, jwt_issuer, jwt_audience)
    settings = ServerSettings(
        models=models,
        listen=listen,
        device=device.value,
        threads=threads,
        spin_microseconds=spin_microseconds,
        devices=devices,
        reflection=reflection,
        grace_seconds=grace_seconds,
        max_message_bytes=max_message_mebibytes * MEBIBYTE,
        ready_file=ready_file,
        exit_with_stdin=exit_with_stdin,
        requests=RequestLimits(
            max_steps=max_steps,
            max_samples=max_samples,
            max_image_bytes=max_image_mebibytes * MEBIBYTE,
            max_image_pixels=max_image_megapixels * 1_000_000,
            max_score_images=max_score_images,
            max_score_texts=max_score_texts,
            max_text_characters=max_text_characters,
        ),
        engine=EngineLimits(
            max_waiting=max_waiting,
            max_wait_seconds=max_wait_seconds,
            max_bulk_wait_seconds=max_bulk_wait_seconds,
            max_running=max_running,
            max_large_rows=max_large_rows,
            max_rows=max_rows,
            bulk_patience_ms=bulk_patience_ms,
            cache_bytes=cache_mebibytes * MEBIBYTE,
        ),
        repository=RepositorySettings(
            poll_seconds=poll_seconds,
            memory_bytes=model_memory_mebibytes * MEBIBYTE,
            aliases_file=aliases_file,
        ),
        watch=WatchLimits(stuck_seconds=stuck_seconds, canary_seconds=canary_seconds, max_restarts=max_restarts),
        audit=AuditSettings(
            file=audit_log,
            salt_file=audit_salt_file,
            refuses=audit_on_failure is flags.OnFailureChoice.REFUSE,
            syncs_always=audit_fsync is flags.FsyncChoice.ALWAYS,
            max_bytes=audit_max_mebibytes * MEBIBYTE,
        ),
        sight=SightSettings(metrics_listen=metrics_listen, otlp_endpoint=otlp_endpoint),
        intake=IntakeLimits(
            upload_bytes=upload_mebibytes * MEBIBYTE,
            upload_seconds=upload_seconds,
            max_caller_requests=max_caller_requests,
            max_caller_bytes=max_caller_mebibytes * MEBIBYTE,
        ),
        access=AccessSettings(
            certificate=tls_certificate,
            key=tls_key,
            client_ca=tls_client_ca,
            certificate_scopes=flags.entries(certificate_scopes),
            certificate_admins=flags.entries(certificate_admins),
            tokens=tokens,
            jwt_keys=jwt_keys,
            jwt_issuer=jwt_issuer,
            jwt_audience=jwt_audience,
            anonymous_admin=anonymous_admin,
        ),
        transport=TransportSettings(
            max_connection_age_seconds=max_connection_age_seconds,
            connection_age_grace_seconds=connection_age_grace_seconds,
            channelz=channelz,
            health_listen=health_listen,
        ),
    )
    configure_log()
    code = _run(settings)
    _leave(code)
    raise typer.Exit(code)


@app.command()
def health(
    address: flags.Address = "127.0.0.1:50051",
    service: Annotated[str, typer.Option(help="Service to ask about; empty for the whole server.")] = "",
    timeout_seconds: flags.TimeoutSeconds = 3.0,
    tls_ca: flags.ProbeCa = None,
    tls_certificate: flags.ProbeCertificate = None,
    tls_key: flags.ProbeKey = None,
    tls_server_name: flags.ProbeServerName = "",
) -> None:
    """Ask a running server for its health; exit code 0 means it serves. For container health checks.

    Takes the address that the server listens on: of 0.0.0.0 and [::] it asks the loopback.
    """
    from m2ib_server.probe import ProbeTls, dialled, is_serving

    flags.check_probe(tls_ca, tls_certificate, tls_key)
    tls = None
    if tls_ca is not None:
        tls = ProbeTls(ca=tls_ca, certificate=tls_certificate, key=tls_key, server_name=tls_server_name)
    if not is_serving(dialled(address), service, timeout_seconds, tls):
        typer.echo("not serving", err=True)
        raise typer.Exit(EXIT_FAILED)
    typer.echo("serving")


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


def _run(settings: ServerSettings) -> int:
    """Build and serve; return the exit code.

    Of a fault that nobody foresaw the log has type and origin: its text may be a caller's.
    """
    try:
        return _served(settings)
    except Exception as error:
        fields = {"error_type": type(error).__name__, "origin": origin_of(error)}
        log_event("ended by a fault", level=logging.CRITICAL, **fields)
        return EXIT_FAILED


def _served(settings: ServerSettings) -> int:
    descriptors.raise_limit()
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # gRPC's own lines are neither JSON nor on the allow-list
    from m2ib_server.access.opening import open_access

    try:
        access = open_access(settings.access, settings.listen)
    except ServiceError as error:
        return _refuse(error.reason, error)
    # torch and ONNX Runtime take seconds to import: not for --help, and not before the flags are known to be right.
    from m2ib_server.bootstrap import ENGINE_SECONDS, build
    from m2ib_server.bootstrap import serve as serve_rooms

    try:
        rooms = build(settings)
    except ServiceError as error:
        return _refuse(error.reason, error)
    try:
        is_drained = asyncio.run(serve_rooms(rooms, settings, access, _loading))
    except ServiceError as error:
        return _refuse(error.reason, error)
    except OSError as error:
        return _refuse("ADDRESS_UNAVAILABLE", error)
    finally:
        rooms.fleet.close(ENGINE_SECONDS)
    return 0 if is_drained else EXIT_FAILED


def _leave(code: int) -> None:
    """End the process at once where a thread is left that hangs in a runtime: an orderly end may hang too.

    Such are those that the interpreter would wait for, whoever began them, and ours that touch a runtime; each may
    still end by itself, within `LEAVING_SECONDS` in all.
    """
    give_up = time.monotonic() + LEAVING_SECONDS
    left = [thread for thread in threading.enumerate() if _is_waited_for(thread)]
    for thread in left:
        thread.join(max(0.0, give_up - time.monotonic()))
    count = sum(thread.is_alive() for thread in left)
    if count:
        log_event("threads left behind", threads=count)
        os._exit(code)


def _is_waited_for(thread: threading.Thread) -> bool:
    """Whether a thread must have ended before the process can end in an orderly way."""
    is_own = thread.name.startswith(OWN_THREADS)
    return thread is not threading.main_thread() and (is_own or not thread.daemon)


def _loading() -> AbstractContextManager[object]:
    """Show on a terminal, and nowhere else, that models are being loaded; a log of JSON lines stays one."""
    console = Console(stderr=True)
    return console.status("loading models and running each graph once") if console.is_terminal else nullcontext()


def _refuse(reason: str, error: Exception) -> int:
    """Tell the operator why the server does not start: boot has seen no patient's data."""
    log_event("not ready", reason=reason, error_type=type(error).__name__)
    typer.echo(f"m2ib-server: {error}", err=True)
    return EXIT_NOT_READY


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
