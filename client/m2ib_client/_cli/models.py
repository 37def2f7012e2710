"""Owns `m2ib models` and its commands: which models a server has, and for operators how they come and go."""

from collections.abc import Iterator
from typing import Annotated

import typer
from rich.text import Text

from m2ib_client._channel import MEBIBYTE
from m2ib_client._cli import options as opt
from m2ib_client._cli.connection import connect
from m2ib_client._cli.exits import EXIT_CODES_HELP, reported_faults
from m2ib_client._cli.printing import print_json, print_lines
from m2ib_client._cli.report import model_lines
from m2ib_client._cli.security import secured
from m2ib_client._repository import LOAD_TIMEOUT_SECONDS, ModelVersion, RepositoryListing

models_app = typer.Typer(
    invoke_without_command=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)

VersionArgument = Annotated[str, typer.Argument(metavar="NAME:VERSION", help="The version of a model.")]
NewestArgument = Annotated[
    str, typer.Argument(metavar="NAME[:VERSION]", help="The version of a model; without one the highest in the folder.")
]
AliasArgument = Annotated[str, typer.Argument(metavar="NAME@ALIAS", help="The alias, such as tiny@champion.")]


@models_app.callback()
@secured
def list_models(
    context: typer.Context,
    as_json: opt.JsonOption = False,
    server: opt.ServerOption = opt.DEFAULT_SERVER,
    local: opt.LocalOption = False,
    models: opt.ModelsOption = None,
    device: opt.DeviceOption = "cpu",
    timeout: opt.TimeoutOption = opt.DEFAULT_TIMEOUT,
    max_message_mebibytes: opt.MessageOption = opt.DEFAULT_MESSAGE,
) -> None:
    """Show the models that the server has loaded, with their defaults and limits; the commands are for operators."""
    if context.invoked_subcommand is not None:
        _refuse_options_before(context)
        return
    with (
        reported_faults(),
        connect(context) as client,
    ):
        loaded = client.models()
        if as_json:
            print_json([model.to_dict() for model in loaded])
        else:
            print_lines(line for model in loaded for line in model_lines(model))


@models_app.command(name="list", epilog=EXIT_CODES_HELP)
@secured
def list_versions(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="The model; without one all of them.")] = "",
    as_json: opt.JsonOption = False,
    server: opt.ServerOption = opt.DEFAULT_SERVER,
    timeout: opt.TimeoutOption = opt.DEFAULT_TIMEOUT,
    max_message_mebibytes: opt.MessageOption = opt.DEFAULT_MESSAGE,
) -> None:
    """Show every version in the server's folder or in its memory, and what leads to it."""
    with (
        reported_faults(),
        connect(context) as client,
    ):
        listing = client.repository.versions(name)
        if as_json:
            print_json(listing.to_dict())
        else:
            print_lines(listing_lines(listing))


@models_app.command(epilog=EXIT_CODES_HELP)
@secured
def load(
    context: typer.Context,
    model: NewestArgument,
    server: opt.ServerOption = opt.DEFAULT_SERVER,
    timeout: opt.TimeoutOption = LOAD_TIMEOUT_SECONDS,
    max_message_mebibytes: opt.MessageOption = opt.DEFAULT_MESSAGE,
) -> None:
    """Load a version beside those that are loaded."""
    name, version = _split(model, ":", "NAME[:VERSION]", is_optional=True)
    with (
        reported_faults(),
        connect(context) as client,
    ):
        loaded = client.repository.load(name, version, timeout=timeout)
        typer.echo(f"{_named(loaded)} serves")


@models_app.command(epilog=EXIT_CODES_HELP)
@secured
def unload(
    context: typer.Context,
    model: VersionArgument,
    server: opt.ServerOption = opt.DEFAULT_SERVER,
    timeout: opt.TimeoutOption = opt.DEFAULT_TIMEOUT,
    max_message_mebibytes: opt.MessageOption = opt.DEFAULT_MESSAGE,
) -> None:
    """Take a version out of service; requests under way finish on it."""
    name, version = _split(model, ":", "NAME:VERSION")
    with (
        reported_faults(),
        connect(context) as client,
    ):
        was_loaded = client.repository.unload(name, version)
        typer.echo(f"{name}:{version} {'is out of service' if was_loaded else 'was not in service'}")


@models_app.command(epilog=EXIT_CODES_HELP)
@secured
def swap(
    context: typer.Context,
    model: NewestArgument,
    server: opt.ServerOption = opt.DEFAULT_SERVER,
    timeout: opt.TimeoutOption = LOAD_TIMEOUT_SECONDS,
    max_message_mebibytes: opt.MessageOption = opt.DEFAULT_MESSAGE,
) -> None:
    """Load a version and let it take the place of every other one of its model, in one step."""
    name, version = _split(model, ":", "NAME[:VERSION]", is_optional=True)
    with (
        reported_faults(),
        connect(context) as client,
    ):
        loaded, retired = client.repository.swap(name, version, timeout=timeout)
        typer.echo(f"{_named(loaded)} serves in place of {', '.join(retired) or 'none'}")


@models_app.command(epilog=EXIT_CODES_HELP)
@secured
def alias(
    context: typer.Context,
    name: AliasArgument,
    version: Annotated[str, typer.Argument(metavar="[VERSION]", help="A loaded version; none with --delete.")] = "",
    delete: Annotated[bool, typer.Option("--delete", help="Remove the alias.")] = False,
    server: opt.ServerOption = opt.DEFAULT_SERVER,
    timeout: opt.TimeoutOption = opt.DEFAULT_TIMEOUT,
    max_message_mebibytes: opt.MessageOption = opt.DEFAULT_MESSAGE,
) -> None:
    """Let an alias lead to a loaded version; a model's bare name leads to its champion."""
    model, short = _split(name, "@", "NAME@ALIAS")
    if delete == bool(version):
        raise typer.BadParameter("name the version that the alias leads to, or --delete it")
    with (
        reported_faults(),
        connect(context) as client,
    ):
        if delete:
            previous = client.repository.delete_alias(model, short)
            typer.echo(f"{name} leads nowhere; before {previous or 'nowhere'}")
        else:
            previous = client.repository.set_alias(model, short, version)
            typer.echo(f"{name} leads to {version}; before {previous or 'nowhere'}")


def listing_lines(listing: RepositoryListing) -> Iterator[Text]:
    """Yield a line for each version, and one for the memory."""
    for version in listing.versions:
        yield Text(_version_line(version), style="bold" if version.is_default else "")
        if version.fault:
            yield Text(f"  {version.fault}", style="yellow")
    used, allowed = (size / MEBIBYTE for size in (listing.used_memory_bytes, listing.allowed_memory_bytes))
    yield Text(f"memory {used:.0f} MiB by estimate, " + (f"of {allowed:.0f} MiB" if allowed else "without a limit"))


def _version_line(version: ModelVersion) -> str:
    told = [_named(version), version.state]
    if version.memory_bytes:
        told.append(f"{version.memory_bytes / MEBIBYTE:.0f} MiB")
    if version.aliases:
        told.append(", ".join(f"@{each}" for each in version.aliases))
    if version.is_default:
        told.append(f"answers to {version.name}")
    if not version.on_disk:
        told.append("not in the folder")
    return "  ".join(told)


def _named(version: ModelVersion) -> str:
    return f"{version.name}:{version.version}" if version.version else version.name


def _split(given: str, separator: str, form: str, *, is_optional: bool = False) -> tuple[str, str]:
    """Split an argument in two.

    Raises:
        typer.BadParameter: it has not the form.
    """
    first, found, second = given.partition(separator)
    if not first or (not second and (found or not is_optional)):
        raise typer.BadParameter(f"seen {given!r}; allowed: {form}")
    return first, second


def _refuse_options_before(context: typer.Context) -> None:
    """Refuse what would be passed over: a command of the group has options of its own."""
    for name in context.params:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise typer.BadParameter("options stand after the command: m2ib models COMMAND [OPTIONS]")
