from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from m2ib_server.engine.schedule import (
    Contender,
    Pending,
    Priority,
    batches,
    entry_share,
    finish_seconds,
    next_round,
)
from m2ib_server.methods import Evaluation
from m2ib_server.package import Role
from m2ib_server.settings import EngineLimits

INTERACTIVE, BULK = Priority.INTERACTIVE, Priority.BULK
MILLISECOND = 1_000_000


def contender(rows=10, *, priority=INTERACTIVE, share=0, idle_since_ns=0):
    return Contender(priority=priority, rows=rows, step_rows=rows, share=share, idle_since_ns=idle_since_ns)


def advancing(running, now_ns=0, **limits):
    return next_round([], running, now_ns, EngineLimits(**limits)).advancing


def test_a_round_takes_as_many_jobs_as_its_rows_allow():
    assert advancing([contender(10) for _ in range(6)], max_rows=40) == (0, 1, 2, 3)


def test_a_job_with_more_rows_than_a_round_has_takes_a_whole_one():
    assert advancing([contender(100), contender(10)], max_rows=40) == (0,)
    assert advancing([contender(100, share=40), contender(10)], max_rows=40) == (1,)


def test_a_smaller_job_fills_what_a_larger_one_leaves():
    assert advancing([contender(30), contender(30, share=1), contender(10, share=2)], max_rows=40) == (0, 2)


def test_the_job_that_had_least_comes_first():
    running = [contender(share=30), contender(share=10), contender(share=20)]
    assert advancing(running, max_rows=20) == (1, 2)


def test_interactive_comes_before_bulk_whatever_it_had():
    running = [contender(priority=BULK), contender(share=1000)]
    assert advancing(running, max_rows=10) == (1,)
    assert advancing(running, max_rows=20) == (1,)  # its rows would make the round longer
    assert advancing(running[:1], max_rows=20) == (0,)


def test_bulk_advances_in_any_case_once_its_patience_ends():
    running = [contender(share=5), contender(priority=BULK, idle_since_ns=0)]
    assert advancing(running, 999 * MILLISECOND, max_rows=10, bulk_patience_ms=1000) == (0,)
    assert advancing(running, 1000 * MILLISECOND, max_rows=10, bulk_patience_ms=1000) == (1,)


def test_many_neglected_bulk_jobs_take_one_round_of_their_patience_and_not_all():
    simulation = Simulation(max_rows=40, bulk_patience_ms=1000)
    for name in range(32):
        simulation.arrive(f"bulk {name}", steps=1000, rows=256, priority=BULK)
    simulation.arrive("interactive", steps=100, rows=10)
    while "interactive" not in simulation.finished:
        simulation.round()
    assert simulation.finished["interactive"] <= 1000 + 2 * 40


def test_waiting_jobs_start_oldest_first_while_their_class_has_room():
    waiting = [contender(), contender(priority=BULK), contender(), contender()]
    running = [contender()]
    chosen = next_round(waiting, running, 0, EngineLimits(max_running=3, max_rows=1000))
    assert chosen.starting == (0, 1, 2)
    assert set(chosen.advancing) == {0, 1, 3}


def test_requests_larger_than_a_round_wait_for_one_another_and_nobody_else_for_them():
    limits = EngineLimits(max_rows=20, max_large_rows=100)
    waiting = [contender(60), contender(30), contender(10), contender(60, priority=BULK)]
    assert next_round(waiting, [contender(50)], 0, limits).starting == (2, 3)  # 30 would fit, but is not the oldest
    assert next_round(waiting, [contender(20)], 0, limits).starting == (0, 1, 2, 3)


def test_a_request_larger_than_all_that_large_ones_may_have_starts_alone():
    limits = EngineLimits(max_rows=20, max_large_rows=100)
    waiting = [contender(300), contender(300)]
    assert next_round(waiting, [contender(10)], 0, limits).starting == (0,)


def test_bulk_that_fills_its_places_keeps_no_interactive_job_out():
    running = [contender(priority=BULK) for _ in range(2)]
    chosen = next_round([contender()], running, 0, EngineLimits(max_running=2, max_rows=10))
    assert chosen.starting == (0,)
    assert chosen.advancing == (2,)


def test_a_newcomer_neither_owns_the_device_nor_waits_for_what_others_had():
    running = [contender(share=500), contender(share=510)]
    assert entry_share(INTERACTIVE, running) == 500
    assert entry_share(BULK, running) == 0
    chosen = next_round([contender()], running, 0, EngineLimits(max_rows=20))
    assert set(chosen.advancing) == {0, 2}


class Simulation:
    """The policy at work: each round takes one millisecond a row, jobs arrive and leave."""

    def __init__(self, **limits):
        self.limits = EngineLimits(**limits)
        self.now_ns = 0
        self.waiting, self.running = [], []
        self.finished = {}
        self.bulk_served_ns = 0

    def arrive(self, name, steps=10, rows=10, priority=INTERACTIVE):
        self.waiting.append(
            {
                "name": name,
                "left": steps,
                "rows": rows,
                "due": rows,
                "priority": priority,
                "share": 0,
                "idle": self.now_ns,
            }
        )

    def view(self, jobs):
        return [
            contender(job["due"], priority=job["priority"], share=job["share"], idle_since_ns=job["idle"])
            for job in jobs
        ]

    def round(self):
        running = self.view(self.running)
        chosen = next_round(
            self.view(self.waiting), running, self.now_ns, self.limits, bulk_served_ns=self.bulk_served_ns
        )
        starting = [self.waiting[index] for index in chosen.starting]
        for job in starting:
            job["share"] = entry_share(job["priority"], running)
            self.waiting.remove(job)
        self.running += starting
        jobs = [self.running[index] for index in chosen.advancing]
        turns = [min(job["due"], self.limits.max_rows) for job in jobs]
        assert sum(turns) <= self.limits.max_rows
        self.now_ns += sum(turns) * MILLISECOND
        if any(job["priority"] is BULK for job in jobs):
            self.bulk_served_ns = self.now_ns
        for job, rows in zip(jobs, turns, strict=True):
            job["due"] -= rows
            job["share"] += rows
            job["idle"] = self.now_ns
            if not job["due"]:
                job["left"], job["due"] = job["left"] - 1, job["rows"]
            if not job["left"]:
                self.running.remove(job)
                self.finished[job["name"]] = self.now_ns / MILLISECOND
        return [job["name"] for job in jobs]

    def run(self):
        while self.waiting or self.running:
            assert self.round()


@pytest.mark.parametrize("jobs", [2, 16, 33, 64, 100, 256])
@pytest.mark.parametrize("limits", [{}, {"max_running": 1}, {"max_running": 8}, {"max_running": 64, "max_rows": 40}])
def test_of_equal_requests_the_slowest_takes_at_most_twice_the_median(jobs, limits):
    simulation = Simulation(**limits)
    for name in range(jobs):
        simulation.arrive(name)
    simulation.run()
    taken = sorted(simulation.finished.values())
    assert taken[-1] <= 2 * taken[(jobs - 1) // 2] + simulation.limits.max_rows  # waves end with a whole round


def test_a_small_request_does_not_wait_for_a_huge_one():
    simulation = Simulation(max_rows=40)
    simulation.arrive("huge", steps=1000, rows=256)
    simulation.round()
    simulation.arrive("small", steps=10, rows=10)
    simulation.run()
    assert simulation.finished["small"] <= 40 + 2 * 100 + 40  # a round, equal shares, a round
    assert simulation.finished["huge"] < 256_000 + 200


def test_bulk_ends_under_an_endless_stream_of_interactive_requests():
    simulation = Simulation(max_rows=40, bulk_patience_ms=1000)
    simulation.arrive("bulk", steps=20, priority=BULK)
    for name in range(2000):
        simulation.arrive(name)
        simulation.round()
        simulation.arrive(f"second {name}")
        if "bulk" in simulation.finished:
            break
    assert simulation.finished["bulk"] < 25_000


@given(
    st.lists(
        st.tuples(st.sampled_from(Priority), st.integers(1, 300), st.integers(0, 500), st.integers(0, 10**10)),
        max_size=20,
    ),
    st.integers(1, 100),
)
def test_a_round_always_advances_somebody_and_keeps_its_bounds(jobs, max_rows):
    waiting = [contender(rows, priority=cls, share=share, idle_since_ns=idle) for cls, rows, share, idle in jobs]
    limits = EngineLimits(max_rows=max_rows, max_running=4)
    chosen = next_round(waiting, [], 10**10, limits)
    assert len(set(chosen.advancing)) == len(chosen.advancing)
    assert bool(chosen.advancing) == bool(jobs)
    started = Counter(waiting[index].priority for index in chosen.starting)
    assert all(count <= 4 for count in started.values())
    rows = [min(waiting[chosen.starting[index]].rows, max_rows) for index in chosen.advancing]
    assert sum(rows) <= max_rows


@pytest.mark.parametrize(
    ("priority", "others", "expected"),
    [
        (INTERACTIVE, [], 2.0),
        (INTERACTIVE, [(INTERACTIVE, 1.0), (INTERACTIVE, 9.0)], 5.0),  # 1 to its end, the other only while we run
        (INTERACTIVE, [(BULK, 9.0)], 2.3),  # a turn at once and one after each second
        (INTERACTIVE, [(BULK, 0.2)], 2.2),
        (BULK, [(BULK, 9.0), (INTERACTIVE, 9.0)], 13.0),
    ],
)
def test_the_estimate_follows_the_policy(priority, others, expected):
    estimate = finish_seconds(2.0, priority, others, bulk_turn=0.1, bulk_patience=1.0)
    assert estimate == pytest.approx(expected)


@pytest.mark.parametrize("bulk_rows", [10, 40, 256])
@pytest.mark.parametrize("bulk_jobs", [1, 16])
def test_an_interactive_job_beside_bulk_ends_when_it_was_estimated_to(bulk_jobs, bulk_rows):
    simulation = Simulation()
    for name in range(bulk_jobs):
        simulation.arrive(f"bulk {name}", steps=1000, rows=bulk_rows, priority=BULK)
    while simulation.now_ns < 1500 * MILLISECOND:
        simulation.round()
    started = simulation.now_ns / MILLISECOND
    simulation.arrive("interactive", steps=200, rows=10)
    while "interactive" not in simulation.finished:
        simulation.round()
    turn = min(bulk_rows, simulation.limits.max_rows) / 1000
    estimate = finish_seconds(2.0, INTERACTIVE, [(BULK, 1e3)] * bulk_jobs, bulk_turn=turn, bulk_patience=1.0)
    taken = (simulation.finished["interactive"] - started) / 1000
    assert taken <= estimate
    assert taken == pytest.approx(estimate, abs=0.05)


def pending(role, rows, tokens=5, model="m"):
    return Pending(model=model, evaluation=Evaluation(role=role, inputs={"features": torch.zeros(rows, tokens, 8)}))


def test_batches_join_equal_calls_up_to_the_row_budget():
    grad, head = Role.VISION_TAIL_GRAD, Role.VISION_HEAD
    items = [pending(grad, 4), pending(head, 1), pending(grad, 4), pending(grad, 4), pending(grad, 4, tokens=6)]
    assert batches(items, max_rows=8) == [[0, 2], [1], [3], [4]]


def test_batches_keep_models_apart():
    items = [pending(Role.TEXT_TAIL, 1, model=model) for model in ("a", "b", "a")]
    assert batches(items, max_rows=8) == [[0, 2], [1]]
    assert batches([], max_rows=8) == []


@given(st.lists(st.tuples(st.integers(1, 16), st.sampled_from("ab")), max_size=12))
def test_batches_lose_no_evaluation_and_repeat_none(items):
    waiting = [pending(Role.TEXT_TAIL, rows, model=model) for rows, model in items]
    calls = batches(waiting, max_rows=16)
    assert sorted(index for call in calls for index in call) == list(range(len(items)))
    for call in calls:
        assert sum(waiting[index].evaluation.rows for index in call) <= 16
        assert len({waiting[index].model for index in call}) == 1
