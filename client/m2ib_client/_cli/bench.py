"""Owns the command `m2ib bench`: a load test of a server, and its report."""

import asyncio
import json
import os
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, TypeAlias, cast

import typer
from rich.console import Console

from m2ib_client import __version__
from m2ib_client._async_client import AsyncClient
from m2ib_client._bench.figures import failed_share, figures
from m2ib_client._bench.generator import Generator, Terms
from m2ib_client._bench.material import Material
from m2ib_client._bench.outcome import OK
from m2ib_client._bench.report import report_lines
from m2ib_client._bench.schedule import ArrivalsName, Plan, planned
from m2ib_client._cli import options as opt
from m2ib_client._cli.connection import connect_async
from m2ib_client._cli.exits import ExitCode, reported_faults
from m2ib_client._options import ExplainOptions
from m2ib_client._plain import PlainValue, plain

LOAD_PANEL = "The load"
VERDICT_PANEL = "When to exit with 7"
DEFAULT_DISTINCT = 16
DEFAULT_CAP = 256

BENCH_EPILOG = (
    "Exit codes: 0 done, whatever the answers were; 1 a fault of this machine; 2 the command line is wrong; 3 an image "
    "cannot be sent; 5 the server cannot be reached; 7 nothing was answered, or more failed or took longer than "
    "--max-failed and --max-p99 allow; 130 broken off, after the report."
)
BROKEN_OFF = 130

BenchImages: TypeAlias = Annotated[
    list[Path] | None,
    typer.Argument(metavar="[IMAGE...]", help="Images to explain; made-up ones without.", exists=True, dir_okay=False),
]
BenchTexts: TypeAlias = Annotated[
    list[str] | None, typer.Option("--text", metavar="TEXT", help="A text to explain; may be given several times.")
]
Distinct: TypeAlias = Annotated[
    int,
    typer.Option(
        min=0, max=4096, help="How many made-up images; 0 makes a new one for each call.", rich_help_panel=LOAD_PANEL
    ),
]
Rate: TypeAlias = Annotated[
    float, typer.Option(min=0.01, max=10_000, metavar="PER_SECOND", help="Calls a second.", rich_help_panel=LOAD_PANEL)
]
Duration: TypeAlias = Annotated[
    float, typer.Option(min=0.1, metavar="SECONDS", help="How long to measure.", rich_help_panel=LOAD_PANEL)
]
WarmUp: TypeAlias = Annotated[
    float, typer.Option(min=0, metavar="SECONDS", help="The same load before, unmeasured.", rich_help_panel=LOAD_PANEL)
]
Arrivals: TypeAlias = Annotated[
    ArrivalsName,
    typer.Option(help="At random, as from many people, or at equal distances.", rich_help_panel=LOAD_PANEL),
]
Deadline: TypeAlias = Annotated[
    float, typer.Option(min=0.001, metavar="SECONDS", help="The deadline of each call.", rich_help_panel=LOAD_PANEL)
]


def _share(help_text: str) -> object:
    return typer.Option(min=0, max=1, metavar="SHARE", help=help_text, rich_help_panel=LOAD_PANEL)


Cancel: TypeAlias = Annotated[float, _share("The calls that are cancelled at a random point of the usual time.")]
Stream: TypeAlias = Annotated[float, _share("The calls that follow every step.")]
Bulk: TypeAlias = Annotated[float, _share("The calls that let others go first.")]
Cap: TypeAlias = Annotated[
    int,
    typer.Option(min=1, help="Calls open at once at most; what is due beyond is not made.", rich_help_panel=LOAD_PANEL),
]
PlanSeed: TypeAlias = Annotated[
    int, typer.Option(min=0, help="The same seed plans the same calls.", rich_help_panel=LOAD_PANEL)
]
MaxFailed: TypeAlias = Annotated[
    float | None,
    typer.Option(min=0, max=1, metavar="SHARE", help="The most that may fail.", rich_help_panel=VERDICT_PANEL),
]
MaxP99: TypeAlias = Annotated[
    float | None,
    typer.Option(
        "--max-p99", min=0, metavar="SECONDS", help="The longest p99 of answers.", rich_help_panel=VERDICT_PANEL
    ),
]


def bench(  # noqa: PLR0913, PLR0917 - one parameter per option, as typer wants it
    context: typer.Context,
    images: BenchImages = None,
    texts: BenchTexts = None,
    as_json: opt.JsonOption = False,
    rate: Rate = 1.0,
    duration: Duration = 30.0,
    warm_up: WarmUp = 5.0,
    arrivals: Arrivals = "poisson",
    deadline: Deadline = opt.DEFAULT_TIMEOUT,
    cancel: Cancel = 0.0,
    stream: Stream = 0.0,
    bulk: Bulk = 0.0,
    cap: Cap = DEFAULT_CAP,
    distinct: Distinct = DEFAULT_DISTINCT,
    plan_seed: PlanSeed = 0,
    max_failed: MaxFailed = None,
    max_p99: MaxP99 = None,
    model: opt.ModelOption = "",
    effort: opt.EffortOption = None,
    mask: opt.MaskOption = None,
    steps: opt.StepsOption = None,
    samples: opt.SamplesOption = None,
    repeats: opt.RepeatsOption = None,
    fit: opt.FitOption = None,
    on_deadline: opt.OnDeadlineOption = None,
    server: opt.ServerOption = opt.DEFAULT_SERVER,
    max_message_mebibytes: opt.MessageOption = opt.DEFAULT_MESSAGE,
) -> None:
    """Offer a server calls at a rate of its own, however slow it answers, and report what came of them.

    Calls are made when they are due and latencies count from then, so a server that falls behind looks as slow as it is
    to its users. The SDK's retries of a busy server are in the latencies, as users have them. Use images without
    patients' identifiers, and no server that clinicians need meanwhile.
    """
    material = Material(files=tuple(images or ()), given_texts=tuple(texts or ()), distinct=distinct)
    plan = Plan(
        rate=rate,
        duration=duration,
        warm_up=warm_up,
        arrivals=arrivals,
        cancel=cancel,
        stream=stream,
        bulk=bulk,
        seed=plan_seed,
    )
    options: ExplainOptions = {
        "model": model,
        "effort": effort,
        "mask_shape": mask,
        "steps": steps,
        "samples": samples,
        "repeats": repeats,
        "fit": fit,
        "on_deadline": on_deadline,
        "outputs": (),
    }
    terms = Terms(options=options, deadline=deadline, cap=cap)
    with reported_faults():
        material.prepare()
        generator, is_broken_off = _run(connect_async(context), material, plan, terms)
    broken_off_at = generator.seconds if is_broken_off else None
    told = figures(plan, generator.outcomes, broken_off_at=broken_off_at)
    report = _report(generator, material, plan, terms, server) | {"broken_off": is_broken_off, "figures": told}
    typer.echo(json.dumps(report, allow_nan=False) if as_json else "\n".join(report_lines(report)))
    raise typer.Exit(BROKEN_OFF if is_broken_off else _verdict(generator, report, max_failed, max_p99))


def _run(client: AsyncClient, material: Material, plan: Plan, terms: Terms) -> tuple[Generator, bool]:
    """Run the test; return the generator, and whether the user broke it off."""
    console = Console(stderr=True)
    status = console.status("")
    generator = Generator(client, material, terms, lambda _: status.update(f"{len(generator.outcomes)} calls ended"))

    async def run() -> None:
        async with client:
            await client.models(timeout=terms.deadline)  # a server that is not there is no load test
            await generator.run(planned(plan, images=material.images, texts=len(material.texts)))

    try:
        if console.is_terminal:
            with status:
                asyncio.run(run())
        else:
            asyncio.run(run())
    except KeyboardInterrupt:
        return generator, True
    return generator, False


def _report(generator: Generator, material: Material, plan: Plan, terms: Terms, server: str) -> dict[str, PlainValue]:
    told = {name: value for name, value in terms.options.items() if value not in (None, "", ())}
    return {
        "server": server,
        "client": {"version": __version__, "python": platform.python_version(), "cores": os.cpu_count()},
        "material": material.described(),
        "plan": asdict(plan),
        "options": cast("dict[str, PlainValue]", plain(told)),
        "deadline": terms.deadline,
        "cap": terms.cap,
        "peak_open": generator.peak_open,
        "seconds": generator.seconds,
    }


def _verdict(
    generator: Generator, report: dict[str, PlainValue], max_failed: float | None, max_p99: float | None
) -> ExitCode:
    """Return the exit code: what was asked for is kept, and something was answered if anything was to be."""
    counted = [one for one in generator.outcomes if one.arrival.is_measured and one.arrival.cancel_after is None]
    answered = [one for one in counted if one.status == OK]
    is_failed = max_failed is not None and failed_share(generator.outcomes) > max_failed
    p99 = cast("dict[str, dict[str, dict[str, float]]]", report["figures"])["latency_seconds"]["answered"].get("p99")
    is_slow = max_p99 is not None and (p99 is None or p99 > max_p99)
    return ExitCode.SOME_FAILED if is_failed or is_slow or (counted and not answered) else ExitCode.OK
