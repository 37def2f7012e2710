"""Checks the load generator: its plan, its figures, its report, and that no call waits for the answer before it."""

import asyncio
import itertools
import json
import statistics
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from typer.testing import CliRunner

from m2ib_client import AsyncClient, InvalidRequestError, NotFoundError
from m2ib_client._answer import read_explanation
from m2ib_client._bench.figures import failed_share, figures, quantile, spread
from m2ib_client._bench.generator import Generator, Terms
from m2ib_client._bench.material import Material, made_up_image
from m2ib_client._bench.outcome import CANCELLED_HERE, NOT_SENT, OK, Outcome
from m2ib_client._bench.report import report_lines
from m2ib_client._bench.schedule import Arrival, Plan, planned
from m2ib_client._cli.app import app
from m2ib_client._cli.exits import ExitCode
from m2ib_client._request import explain_request
from m2ib_client.testing import FakeService, _answers, _model

MATERIAL = Material(distinct=2)
TERMS = Terms(options={"outputs": ()}, deadline=30.0, cap=1000)


def arrivals(plan: Plan, *, images: int = 3, texts: int = 2) -> list[Arrival]:
    return list(planned(plan, images=images, texts=texts))


def arrival(index: int = 0, at: float = 0.0, *, is_measured: bool = True) -> Arrival:
    return Arrival(
        index=index,
        at=at,
        image=0,
        text=0,
        is_streamed=False,
        priority="interactive",
        cancel_after=None,
        is_measured=is_measured,
    )


def outcome(at: float, ended_at: float, status: str = OK, reason: str = "", **changes: Any) -> Outcome:
    explanation = None
    if status == OK:
        explanation = read_explanation(
            _answers.fake_explanation(explain_request(made_up_image(0), "x"), _model.fake_model("fake"))
        )
    planned_call = arrival(at=at, **changes)
    return Outcome(
        arrival=planned_call, began_at=at, ended_at=ended_at, status=status, reason=reason, explanation=explanation
    )


def test_constant_arrivals_have_equal_distances() -> None:
    calls = arrivals(Plan(rate=100, duration=3, arrivals="constant"))
    assert [call.at for call in calls] == pytest.approx([index / 100 for index in range(300)])


def test_random_arrivals_have_the_rate_and_the_spread_of_independent_callers() -> None:
    times = [call.at for call in arrivals(Plan(rate=50, duration=200))]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert len(times) == pytest.approx(10_000, rel=0.05)
    assert statistics.stdev(gaps) == pytest.approx(statistics.mean(gaps), rel=0.05)  # of an exponential both are equal
    assert times == sorted(times)
    assert 0 < times[0] < times[-1] < 200


def test_the_same_seed_plans_the_same_calls() -> None:
    plan = Plan(rate=20, duration=5, cancel=0.3, stream=0.3, bulk=0.3, seed=4)
    assert arrivals(plan) == arrivals(plan)
    other = Plan(rate=20, duration=5, cancel=0.3, stream=0.3, bulk=0.3, seed=5)
    assert [call.at for call in arrivals(plan)] != [call.at for call in arrivals(other)]


def test_shares_are_those_of_the_plan_and_leave_the_times_alone() -> None:
    mixed = arrivals(Plan(rate=50, duration=100, cancel=0.1, stream=0.25, bulk=0.5))
    assert statistics.mean(call.cancel_after is not None for call in mixed) == pytest.approx(0.1, abs=0.02)
    assert statistics.mean(call.is_streamed for call in mixed) == pytest.approx(0.25, abs=0.03)
    assert statistics.mean(call.priority == "bulk" for call in mixed) == pytest.approx(0.5, abs=0.03)
    plain = arrivals(Plan(rate=50, duration=100))
    assert [call.at for call in plain] == [call.at for call in mixed]
    assert all(call.cancel_after is None and not call.is_streamed for call in plain)


def test_warm_up_comes_before_and_is_not_measured() -> None:
    calls = arrivals(Plan(rate=10, duration=2, warm_up=1, arrivals="constant"))
    assert [call.is_measured for call in calls] == [False] * 10 + [True] * 20


def test_images_and_texts_are_those_there_are() -> None:
    calls = arrivals(Plan(rate=100, duration=5), images=3, texts=2)
    assert {call.image for call in calls} == {0, 1, 2}
    assert {call.text for call in calls} == {0, 1}
    assert [call.image for call in arrivals(Plan(rate=10, duration=2), images=0)] == list(
        range(len(arrivals(Plan(rate=10, duration=2), images=0)))
    )


@pytest.mark.parametrize(
    ("count", "share", "rank"),
    [(1, 0.99, 1), (100, 0.5, 50), (100, 0.99, 99), (101, 0.99, 100), (4, 0.5, 2), (3, 0.9, 3)],
)
def test_quantiles_are_values_that_were_seen(count: int, share: float, rank: int) -> None:
    assert quantile(range(1, count + 1), share) == rank


def test_spread_of_nothing_has_no_figures() -> None:
    assert spread([]) == {"count": 0}
    assert spread([3.0, 1.0]) == {"count": 2, "p50": 1.0, "p90": 3.0, "p95": 3.0, "p99": 3.0, "max": 3.0, "mean": 2.0}


def test_latency_counts_from_when_the_call_was_due() -> None:
    late = Outcome(arrival=arrival(at=1.0), began_at=1.5, ended_at=2.0, status=OK)
    assert (late.latency, late.lag) == (1.0, 0.5)


def test_figures_tell_answers_refusals_cancellations_and_what_was_not_sent_apart() -> None:
    plan = Plan(rate=1, duration=10, warm_up=2)
    outcomes = [
        outcome(1.0, 2.0, is_measured=False),
        outcome(2.0, 3.0),
        outcome(3.0, 6.0),
        outcome(4.0, 4.5, "RESOURCE_EXHAUSTED", "QUEUE_FULL"),
        outcome(5.0, 5.1, CANCELLED_HERE),
        outcome(6.0, 6.0, NOT_SENT),
    ]
    seen: Any = figures(plan, outcomes)
    assert (seen["calls"], seen["warm_up_calls"], seen["offered_rate"]) == (5, 1, 0.5)
    assert seen["achieved_rate"] == pytest.approx(2 / 10)
    assert {(one["status"], one["reason"], one["count"]) for one in seen["outcomes"]} == {
        (OK, "", 2),
        ("RESOURCE_EXHAUSTED", "QUEUE_FULL", 1),
        (CANCELLED_HERE, "", 1),
        (NOT_SENT, "", 1),
    }
    assert seen["latency_seconds"]["answered"]["max"] == 3.0
    assert seen["latency_seconds"]["refused"]["count"] == 1
    assert seen["server_seconds"]["total"]["count"] == 2
    assert seen["cache_share"]["shared"] == 0.0
    assert failed_share(outcomes) == pytest.approx(2 / 4)


def test_achieved_rate_counts_the_time_that_late_answers_took() -> None:
    plan = Plan(rate=1, duration=10)
    seen: Any = figures(plan, [outcome(1.0, 20.0)])
    assert (seen["offered_rate"], seen["achieved_rate"]) == pytest.approx((1 / 10, 1 / 20))


def test_rates_of_a_test_that_was_broken_off_are_of_the_time_that_it_measured() -> None:
    plan = Plan(rate=1, duration=100, warm_up=2)
    outcomes = [outcome(1.0, 2.0, is_measured=False), *(outcome(at, at + 0.5) for at in (2.0, 3.0, 4.0, 5.0))]
    seen: Any = figures(plan, outcomes, broken_off_at=6.0)
    assert (seen["offered_rate"], seen["achieved_rate"]) == (1.0, 1.0)


def test_a_test_that_was_broken_off_while_it_waited_for_the_last_answers_measured_all_its_time() -> None:
    seen: Any = figures(Plan(rate=1, duration=10), [outcome(1.0, 2.0)], broken_off_at=30.0)
    assert (seen["offered_rate"], seen["achieved_rate"]) == pytest.approx((1 / 10, 1 / 10))


@pytest.mark.parametrize("seconds", [0.0, 1.0, 2.0])
def test_a_test_that_was_broken_off_while_it_warmed_up_has_no_rates(seconds: float) -> None:
    plan = Plan(rate=1, duration=100, warm_up=2)
    seen: Any = figures(plan, [outcome(0.5, 0.9, is_measured=False)], broken_off_at=seconds)
    assert (seen["calls"], seen["offered_rate"], seen["achieved_rate"]) == (0, 0.0, 0.0)


def test_no_calls_give_figures_without_values() -> None:
    seen: Any = figures(Plan(rate=1, duration=1), [])
    assert seen["calls"] == 0
    assert seen["cache_share"]["shared"] is None
    assert failed_share([]) == 0.0
    json.dumps(seen, allow_nan=False)


def test_report_warns_of_what_makes_its_latencies_too_good() -> None:
    outcomes = [outcome(0.0, 1.0), outcome(0.0, 0.0, NOT_SENT)]
    late = Outcome(arrival=arrival(), began_at=0.5, ended_at=1.0, status="UNAVAILABLE")
    report = {
        "server": "127.0.0.1:1",
        "material": MATERIAL.described(),
        "plan": {
            "arrivals": "poisson",
            "rate": 1,
            "duration": 1,
            "warm_up": 0,
            "seed": 0,
            "cancel": 0,
            "stream": 0,
            "bulk": 0,
        },
        "options": {},
        "deadline": 60.0,
        "cap": 1,
        "peak_open": 1,
        "broken_off": True,
        "figures": figures(Plan(rate=1, duration=1), [*outcomes, late]),
    }
    told = "\n".join(report_lines(report))
    assert "1 calls were not made, as 1 were open" in told
    assert "made calls late" in told
    assert "broken off" in told
    assert "UNAVAILABLE" in told


def run(fake: FakeService, plan: Plan, terms: Terms = TERMS, material: Material = MATERIAL) -> Generator:
    async def test() -> Generator:
        async with AsyncClient(fake.address) as client:
            generator = Generator(client, material, terms)
            await generator.run(planned(plan, images=material.images, texts=len(material.texts)))
            return generator

    return asyncio.run(test())


def test_no_call_waits_for_the_answer_before_it(slow_fake: FakeService) -> None:
    # Ten steps of 0.05 s each: one after another, 8 calls would take 4 s and the last one begin after 3.5 s.
    generator = run(slow_fake, Plan(rate=20, duration=0.4, arrivals="constant"))
    assert [one.status for one in generator.outcomes] == [OK] * 8
    assert max(one.began_at for one in generator.outcomes) < 2.0
    assert generator.peak_open == 8
    assert all(one.latency >= 0.5 for one in generator.outcomes)


def test_calls_beyond_the_cap_are_not_made_and_told(slow_fake: FakeService) -> None:
    terms = Terms(options={"outputs": ()}, deadline=30.0, cap=2)
    generator = run(slow_fake, Plan(rate=50, duration=0.2, arrivals="constant"), terms)
    assert [one.status for one in generator.outcomes].count(NOT_SENT) == 8
    assert generator.peak_open == 2
    assert len(slow_fake.calls) == 2


def test_planned_cancellations_reach_the_server(slow_fake: FakeService) -> None:
    generator = run(slow_fake, Plan(rate=50, duration=0.2, arrivals="constant", cancel=1.0, stream=0.5))
    statuses = {one.status for one in generator.outcomes}
    assert CANCELLED_HERE in statuses
    assert statuses <= {OK, CANCELLED_HERE}
    assert slow_fake.cancelled_calls > 0


def test_refusals_are_counted_by_status_and_reason(fake: FakeService) -> None:
    fake.fail_next(InvalidRequestError("text: too long", field="text", reason="TEXT_TOO_LONG"))
    fake.fail_next(NotFoundError("no such model"))
    generator = run(fake, Plan(rate=20, duration=0.2, arrivals="constant"))
    assert [(one.status, one.reason) for one in sorted(generator.outcomes, key=lambda one: one.ended_at)].count(
        ("INVALID_ARGUMENT", "TEXT_TOO_LONG")
    ) == 1
    assert sum(one.status == "NOT_FOUND" for one in generator.outcomes) == 1
    assert sum(one.status == OK for one in generator.outcomes) == 2


def test_a_deadline_that_passes_is_an_outcome(slow_fake: FakeService) -> None:
    terms = Terms(options={"outputs": ()}, deadline=0.1, cap=10)
    generator = run(slow_fake, Plan(rate=20, duration=0.1, arrivals="constant"), terms)
    assert [one.status for one in generator.outcomes] == ["DEADLINE_EXCEEDED"] * 2


def test_made_up_images_are_told_apart_and_made_again() -> None:
    assert made_up_image(1) == made_up_image(1) != made_up_image(2)
    assert Material(distinct=0).encoded(7) == made_up_image(7)
    assert "a new made-up image for each call" in Material(distinct=0).described()


def test_files_and_texts_of_the_users_are_not_named(tmp_path: Path) -> None:
    file = tmp_path / "meier_anna.png"
    PIL.Image.new("L", (8, 8)).save(file)
    material = Material(files=(file,), given_texts=("a nodule",), distinct=16)
    material.prepare()
    assert material.described() == "1 images of yours, 1 texts of yours"


def invoke(fake: FakeService, *arguments: str) -> Any:
    common = ["--server", fake.address, "--rate", "20", "--duration", "0.3", "--warm-up", "0", "--arrivals", "constant"]
    return CliRunner().invoke(app, ["bench", *common, "--distinct", "1", *arguments])


def test_the_command_prints_one_object_of_json(fake: FakeService) -> None:
    done = invoke(fake, "--json", "--effort", "fast", "--deadline", "20")
    assert done.exit_code == ExitCode.OK, done.output
    report = json.loads(done.stdout)
    assert report["figures"]["calls"] == 6
    assert report["figures"]["outcomes"] == [{"status": "OK", "reason": "", "count": 6}]
    assert report["options"] == {"effort": "fast"}
    assert report["material"].startswith("1 made-up images")
    assert report["plan"]["rate"] == 20.0
    assert report["deadline"] == 20.0


def test_the_command_ends_as_its_bounds_say(fake: FakeService) -> None:
    assert invoke(fake, "--max-p99", "30", "--max-failed", "0").exit_code == ExitCode.OK
    assert invoke(fake, "--max-p99", "0.000001").exit_code == ExitCode.SOME_FAILED


def test_a_server_that_is_not_there_is_no_load_test() -> None:
    done = CliRunner().invoke(app, ["bench", "--server", "127.0.0.1:1", "--deadline", "1", "--distinct", "1"])
    assert done.exit_code in (ExitCode.UNAVAILABLE, ExitCode.DEADLINE)


def test_a_file_that_is_no_image_is_refused_before_the_test(fake: FakeService, tmp_path: Path) -> None:
    file = tmp_path / "notes.png"
    file.write_bytes(b"no image at all")
    done = invoke(fake, str(file))
    assert done.exit_code == ExitCode.INVALID
    assert fake.calls == ()
