"""The command line `m2ib-server`: reads settings from flags and variables, builds, serves."""

import asyncio
import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from m2ib_server import __version__
from m2ib_server.errors import ServiceError
from m2ib_server.settings import (
    DEFAULT_ENGINE,
    DEFAULT_INTAKE,
    DEFAULT_MESSAGE_BYTES,
    DEFAULT_REQUESTS,
    MEBIBYTE,
    EngineLimits,
    IntakeLimits,
    RequestLimits,
    ServerSettings,
)
from m2ib_server.telemetry import configure_log, log_event

app = typer.Typer(
    help="Serves M2IB attributions of CLIP-like models over gRPC.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

EXIT_FAILED = 1
EXIT_NOT_READY = 3


class DeviceChoice(StrEnum):
    """The devices that can be asked for."""

    CPU = "cpu"
    CUDA = "cuda"
    TENSORRT = "tensorrt"


def _listen_address(value: str) -> str:
    host, separator, port = value.rpartition(":")
    if not separator or not host or not port.isdigit() or int(port) > 65535:
        raise typer.BadParameter(f"seen {value!r}; allowed: host:port with a port from 0 to 65535")
    return value


def available_threads() -> int:
    """Return how many threads this process may run at once: its affinity, bounded by a cgroup's quota."""
    return max(1, min(len(os.sched_getaffinity(0)), _cgroup_threads(Path("/sys/fs/cgroup/cpu.max"))))


def _cgroup_threads(path: Path) -> int:
    """Return the whole processors that a cgroup v2 quota allows, or a number that bounds nothing without one."""
    try:
        quota, period = path.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return os.cpu_count() or 1
    return (os.cpu_count() or 1) if quota == "max" else max(1, int(quota) // int(period))


@app.command()
def serve(
    models: Annotated[
        Path,
        typer.Option(
            envvar="M2IB_MODELS", exists=True, file_okay=False, help="Folder with the model packages to load."
        ),
    ],
    listen: Annotated[
        str,
        typer.Option(
            envvar="M2IB_LISTEN",
            callback=_listen_address,
            help="Address to listen on; port 0 takes a free port.",
        ),
    ] = "127.0.0.1:50051",
    device: Annotated[
        DeviceChoice, typer.Option(envvar="M2IB_DEVICE", help="What evaluates the graphs; never falls back.")
    ] = DeviceChoice.CPU,
    threads: Annotated[
        int | None,
        typer.Option(envvar="M2IB_THREADS", min=1, help="Compute threads.", show_default="what the machine allows"),
    ] = None,
    devices: Annotated[
        int,
        typer.Option(
            envvar="M2IB_DEVICES", min=1, help="Engines: GPUs 0 to N - 1, or N equal shares of the CPU's threads."
        ),
    ] = 1,
    reflection: Annotated[
        bool, typer.Option(envvar="M2IB_REFLECTION", help="Describe the services to whoever asks.")
    ] = False,
    grace_seconds: Annotated[
        float,
        typer.Option(envvar="M2IB_GRACE_SECONDS", min=0, help="Time for running requests to finish after SIGTERM."),
    ] = 30.0,
    cache_mebibytes: Annotated[
        int, typer.Option(envvar="M2IB_CACHE_MEBIBYTES", min=0, help="Memory for head features, in MiB.")
    ] = DEFAULT_ENGINE.cache_bytes // MEBIBYTE,
    max_waiting: Annotated[
        int,
        typer.Option(envvar="M2IB_MAX_WAITING", min=1, help="Requests that may wait; one more is refused."),
    ] = DEFAULT_ENGINE.max_waiting,
    max_running: Annotated[
        int,
        typer.Option(envvar="M2IB_MAX_RUNNING", min=1, help="Requests of one class under way together, per device."),
    ] = DEFAULT_ENGINE.max_running,
    max_rows: Annotated[
        int,
        typer.Option(envvar="M2IB_MAX_ROWS", min=1, help="Noise rows evaluated in one call of a graph, per device."),
    ] = DEFAULT_ENGINE.max_rows,
    upload_mebibytes: Annotated[
        int, typer.Option(envvar="M2IB_UPLOAD_MEBIBYTES", min=0, help="Memory for uploaded images, in MiB.")
    ] = DEFAULT_INTAKE.upload_bytes // MEBIBYTE,
    upload_seconds: Annotated[
        float,
        typer.Option(envvar="M2IB_UPLOAD_SECONDS", min=0.1, help="How long an uploaded image is kept unused."),
    ] = DEFAULT_INTAKE.upload_seconds,
    max_message_mebibytes: Annotated[
        int,
        typer.Option(envvar="M2IB_MAX_MESSAGE_MEBIBYTES", min=4, max=1024, help="Largest gRPC message, in MiB."),
    ] = DEFAULT_MESSAGE_BYTES // MEBIBYTE,
    max_image_mebibytes: Annotated[
        int, typer.Option(envvar="M2IB_MAX_IMAGE_MEBIBYTES", min=1, help="Largest encoded image, in MiB.")
    ] = DEFAULT_REQUESTS.max_image_bytes // MEBIBYTE,
    max_image_megapixels: Annotated[
        int, typer.Option(envvar="M2IB_MAX_IMAGE_MEGAPIXELS", min=1, help="Largest image, in megapixels.")
    ] = DEFAULT_REQUESTS.max_image_pixels // 1_000_000,
    max_steps: Annotated[
        int, typer.Option(envvar="M2IB_MAX_STEPS", min=1, help="Most optimisation steps of a request.")
    ] = DEFAULT_REQUESTS.max_steps,
    max_samples: Annotated[
        int, typer.Option(envvar="M2IB_MAX_SAMPLES", min=1, help="Most noise rows per step of a request.")
    ] = DEFAULT_REQUESTS.max_samples,
    ready_file: Annotated[
        Path | None,
        typer.Option(envvar="M2IB_READY_FILE", dir_okay=False, help="File to write host:port to once ready."),
    ] = None,
    exit_with_stdin: Annotated[
        bool, typer.Option(envvar="M2IB_EXIT_WITH_STDIN", help="Stop when standard input ends.")
    ] = False,
) -> None:
    """Load every model package below a folder and serve them.

    Serves only after every graph of every model has run once. SIGTERM or Ctrl-C stops taking requests, lets the
    running ones finish and ends with exit code 0. Exit code 3: a package, the device or the address cannot be used.
    """
    settings = ServerSettings(
        models=models,
        listen=listen,
        device=device.value,
        threads=threads or available_threads(),
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
        ),
        engine=EngineLimits(
            max_waiting=max_waiting,
            max_running=max_running,
            max_rows=max_rows,
            cache_bytes=cache_mebibytes * MEBIBYTE,
        ),
        intake=IntakeLimits(upload_bytes=upload_mebibytes * MEBIBYTE, upload_seconds=upload_seconds),
    )
    raise typer.Exit(_run(settings))


@app.command()
def health(
    address: Annotated[
        str, typer.Option(envvar="M2IB_LISTEN", callback=_listen_address, help="Address of the server.")
    ] = "127.0.0.1:50051",
    service: Annotated[str, typer.Option(help="Service to ask about; empty for the whole server.")] = "",
    timeout_seconds: Annotated[float, typer.Option(min=0.1, help="How long to wait for an answer.")] = 3.0,
) -> None:
    """Ask a running server for its health; exit code 0 means it serves. For container health checks."""
    from m2ib_server.bootstrap import is_serving

    if not is_serving(address, service, timeout_seconds):
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
    """Build and serve; return the exit code."""
    configure_log()
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # gRPC's own lines are neither JSON nor on the allow-list
    # torch and ONNX Runtime take seconds to import: not for --help, and not before the flags are known to be right.
    from m2ib_server.bootstrap import build
    from m2ib_server.bootstrap import serve as serve_rooms

    try:
        rooms = build(settings)
    except ServiceError as error:
        return _refuse(error.reason, error)
    try:
        is_drained = asyncio.run(serve_rooms(rooms, settings))
    except OSError as error:
        return _refuse("ADDRESS_UNAVAILABLE", error)
    finally:
        rooms.fleet.close()
    return 0 if is_drained else EXIT_FAILED


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
