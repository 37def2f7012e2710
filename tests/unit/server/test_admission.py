"""Who is admitted: bounded by jobs and by the estimate of the wait, each class by itself."""

import pytest

from fakes.engines import job_of, submitted
from fakes.graphs import DIGEST
from m2ib_server.engine import CostModel, Priority, Roster
from m2ib_server.engine.admission import check_admission
from m2ib_server.engine.estimate import Estimator
from m2ib_server.errors import QueueFull, WaitTooLong
from m2ib_server.package import Role
from m2ib_server.settings import EngineLimits

LIMITS = EngineLimits(max_waiting=4, max_wait_seconds=60.0, max_bulk_wait_seconds=600.0)


def check(priority=Priority.INTERACTIVE, *, depth=0, wait_seconds=0.0):
    check_admission(priority, LIMITS, depth=depth, wait_seconds=wait_seconds, until_room=lambda: 7.0)


def test_there_is_room_up_to_the_bounds():
    check(depth=3, wait_seconds=60.0)
    check(Priority.BULK, depth=3, wait_seconds=600.0)


def test_a_full_queue_is_refused_with_the_time_until_there_is_room():
    with pytest.raises(QueueFull, match="4 of 4") as caught:
        check(depth=4)
    assert caught.value.retry_seconds == 7.0


@pytest.mark.parametrize(("priority", "wait", "limit"), [(Priority.INTERACTIVE, 61.5, 60), (Priority.BULK, 700, 600)])
def test_a_wait_beyond_that_of_the_class_is_refused_with_the_time_until_it_is_short_enough(priority, wait, limit):
    with pytest.raises(WaitTooLong, match=f"{wait:.1f} of at most {limit} s") as caught:
        check(priority, wait_seconds=wait)
    assert caught.value.retry_seconds == wait - limit


@pytest.fixture
def costs():
    """A row of the image's gradient costs a second, and nothing else costs anything: a job takes 15 s alone."""
    costs = CostModel()
    costs.observe(DIGEST, Role.VISION_TAIL_GRAD, rows=3, seconds=3)
    return costs


def roster_of(costs, **limits):
    return Roster(EngineLimits(**limits), costs)


class Engineless:
    """Admits to a roster as an engine does, and never works."""

    def __init__(self, roster):
        self.submit = roster.admit


def test_a_wait_is_what_others_add_to_one_s_own_time(costs):
    estimator, job = Estimator(EngineLimits(), costs), job_of()
    assert estimator.wait(job, []) == 0
    assert estimator.wait(job, [job_of(2), job_of(3)]) == pytest.approx(30.0)


def test_a_newcomer_that_would_wait_for_too_long_is_refused_and_one_that_joins_waits_for_nothing_more(costs):
    engine = Engineless(roster_of(costs, max_wait_seconds=20))
    (first, second) = submitted(engine, job_of(1, key="one"), job_of(2))
    with pytest.raises(WaitTooLong, match=r"30\.0 of at most 20 s"):
        submitted(engine, job_of(3))
    (joined,) = submitted(engine, job_of(1, key="one"))
    assert joined.is_shared
    assert not (first.is_shared or second.is_shared)


def test_a_job_that_is_alone_waits_for_nobody_however_long_it_is(costs):
    submitted(Engineless(roster_of(costs, max_wait_seconds=0)), job_of(1))


def test_bulk_waits_longer_than_interactive(costs):
    engine = Engineless(roster_of(costs, max_wait_seconds=0, max_bulk_wait_seconds=20))
    submitted(engine, job_of(1), job_of(2, priority=Priority.BULK))
    with pytest.raises(WaitTooLong):
        submitted(engine, job_of(3, priority=Priority.BULK))


def test_a_full_queue_tells_when_the_first_job_under_way_is_done(costs):
    roster = roster_of(costs, max_waiting=1, max_running=2)
    engine = Engineless(roster)
    for seed in (1, 2):
        submitted(engine, job_of(seed))
        roster.take_round(now_ns=0)
    submitted(engine, job_of(3))
    with pytest.raises(QueueFull) as caught:
        submitted(engine, job_of(4))
    assert caught.value.retry_seconds == pytest.approx(30.0)  # two of 15 s each share the device
    assert roster.until_end() == pytest.approx(30.0)


def test_an_idle_engine_ends_no_job(costs):
    assert roster_of(costs).until_end() == 0
