"""Checks what of many pairs is read, sent, sent again and given out, on a clock that the test holds."""

import random
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m2ib.v1 import attribution_pb2
from m2ib_client import (
    BusyError,
    DeadlineError,
    Explanation,
    IncompatibleServerError,
    InvalidRequestError,
    M2IBError,
    ManyResult,
    NotFoundError,
    Pair,
    ServerError,
    UnavailableError,
)
from m2ib_client._handle import ImageHandle
from m2ib_client._many import ledger as module
from m2ib_client._many.ledger import Entry, Ledger, pause_seconds

EXPLANATION = cast(Explanation, object())
FORGOTTEN = NotFoundError("gone", reason="IMAGE_HANDLE_UNKNOWN")


def new_ledger(*, ordered: bool = True, ahead: int = 8, timeout: float | None = None) -> Ledger:
    return Ledger(ordered=ordered, ahead=ahead, timeout=timeout)


def entry(ledger: Ledger, image: ImageHandle | None = None, size_bytes: int = 1) -> Entry:
    request = attribution_pb2.ExplainRequest()
    return Entry(index=ledger.next_index, pair=Pair(b"", ""), request=request, image=image, size_bytes=size_bytes)


def refused(ledger: Ledger) -> ManyResult:
    return ManyResult(index=ledger.next_index, pair=Pair(b"", ""), explanation=None, error=ValueError("no"))


def sent(ledger: Ledger, now: float) -> list[int]:
    indices = []
    while (due := ledger.next_due(now)) is not None:
        indices.append(due.index)
    return indices


def taken(ledger: Ledger) -> list[int]:
    indices = []
    while (result := ledger.take()) is not None:
        indices.append(result.index)
    return indices


def begun(count: int, **options: Any) -> Ledger:
    ledger = new_ledger(**options)
    for _ in range(count):
        ledger.enter(entry(ledger), 0)
    assert sent(ledger, 0) == list(range(count))
    return ledger


def test_answers_are_given_in_order_or_as_they_come() -> None:
    in_order, as_they_come = begun(3), begun(3, ordered=False)
    for ledger, expected in ((in_order, [[], [], [0, 1, 2]]), (as_they_come, [[2], [1], [0]])):
        given_out = []
        for index in (2, 1, 0):
            ledger.answer(index, EXPLANATION, 1)
            given_out.append(taken(ledger))
        assert given_out == expected


@pytest.mark.parametrize("ordered", [True, False])
def test_no_more_is_read_than_so_far_ahead(ordered: bool) -> None:
    ledger = begun(3, ahead=3, ordered=ordered)
    assert not ledger.may_read
    ledger.answer(0, EXPLANATION, 1)
    assert not ledger.may_read
    assert ledger.take() is not None
    assert ledger.may_read


def test_large_images_bound_what_is_read_too() -> None:
    ledger = new_ledger()
    ledger.enter(entry(ledger, size_bytes=module.MAX_HELD_BYTES), 0)
    assert not ledger.may_read
    sent(ledger, 0)
    ledger.answer(0, EXPLANATION, 1)
    assert ledger.may_read


def test_pair_that_cannot_be_sent_has_its_turn() -> None:
    ledger = begun(1)
    ledger.refuse(refused(ledger))
    assert taken(ledger) == []
    ledger.answer(0, EXPLANATION, 1)
    assert taken(ledger) == [0, 1]
    assert (ledger.progress(9).done, ledger.progress(9).failed, ledger.progress(9).total) == (2, 1, 9)


def test_busy_pair_is_sent_again_after_the_pause_that_is_asked_for() -> None:
    ledger = begun(2)
    ledger.answer(0, BusyError("full", retry_after_seconds=3), 10)
    assert sent(ledger, 12.9) == []
    assert ledger.wait_seconds(12.9) == pytest.approx(0.1)
    assert sent(ledger, 13) == [0]


@pytest.mark.parametrize("error", [BusyError("full"), UnavailableError("drain")])
def test_pair_that_stays_busy_fails_in_the_end(error: M2IBError) -> None:
    ledger, now, tries = begun(1), 0.0, 1
    ledger.end_reading()
    while (result := ledger.take()) is None:
        ledger.answer(0, error, now)
        now += 1000
        tries += len(sent(ledger, now))
    assert result.error is error
    assert tries == module.MAX_ATTEMPTS
    assert ledger.is_over


def test_pauses_grow_to_a_bound_unless_the_server_names_one() -> None:
    pauses = [pause_seconds(BusyError("full"), attempt) for attempt in range(1, 12)]
    assert pauses[:3] == pytest.approx([0.2, 0.4, 0.8])
    assert max(pauses) == pauses[-1] == module.LONGEST_PAUSE_SECONDS
    assert pause_seconds(BusyError("full", retry_after_seconds=0), 9) == 0


@pytest.mark.parametrize("error", [InvalidRequestError("x"), ServerError("x"), DeadlineError("x"), FORGOTTEN])
def test_other_failures_are_final(error: M2IBError) -> None:
    ledger = begun(1)
    ledger.answer(0, error, 1)
    result = ledger.take()
    assert result is not None
    assert (result.error, result.explanation) == (error, None)


def test_forgotten_image_is_sent_again_a_bounded_number_of_times() -> None:
    ledger = new_ledger()
    ledger.enter(entry(ledger, image=ImageHandle.of(b"x")), 0)
    renewed = 0
    while ledger.next_due(0) is not None:
        renewed += ledger.answer(0, FORGOTTEN, 0) is not None
    assert renewed == module.MAX_RENEWALS + 1
    result = ledger.take()
    assert result is not None
    assert result.error is FORGOTTEN


def test_broken_stream_puts_back_only_what_has_no_answer() -> None:
    ledger = begun(4)
    ledger.answer(1, EXPLANATION, 1)
    ledger.break_off(UnavailableError("gone"), 2)
    assert sent(ledger, 2.1) == []
    assert sent(ledger, 3) == [0, 2, 3]
    assert ledger.fault is None


def test_nothing_is_sent_while_the_stream_rests() -> None:
    ledger = begun(1)
    ledger.break_off(UnavailableError("gone", retry_after_seconds=5), 0)
    ledger.enter(entry(ledger), 1)
    assert sent(ledger, 4.9) == []
    assert ledger.wait_seconds(4.9) == pytest.approx(0.1)
    assert sorted(sent(ledger, 5)) == [0, 1]


@pytest.mark.parametrize(("is_alive", "most"), [(True, module.MAX_BREAKS), (False, module.MAX_FIRST_BREAKS)])
def test_stream_that_only_breaks_is_a_fault_in_the_end(is_alive: bool, most: int) -> None:
    ledger, error, now = begun(2), UnavailableError("gone"), 0.0
    if is_alive:
        ledger.answer(1, EXPLANATION, now)
    left = [0] if is_alive else [0, 1]
    for _ in range(most):
        ledger.break_off(error, now)
        now += 1000
        assert sent(ledger, now) == left
        assert ledger.fault is None
    ledger.break_off(error, now)
    assert ledger.fault is error
    assert ledger.is_over


def test_answer_forgives_the_breaks_before_it_but_a_pair_is_not_sent_for_ever() -> None:
    ledger, error, now = begun(1), UnavailableError("gone"), 0.0
    breaks = 0
    while (result := ledger.take()) is None:
        ledger.enter(entry(ledger), now)
        (*_, healthy) = sent(ledger, now)
        ledger.answer(healthy, EXPLANATION, now)
        ledger.break_off(error, now)
        breaks += 1
        now += 1000
    assert (result.index, result.error) == (0, error)
    assert breaks == module.MAX_ATTEMPTS


@pytest.mark.parametrize("error", [ServerError("x"), DeadlineError("x"), IncompatibleServerError("x"), ValueError("x")])
def test_stream_that_ends_for_another_reason_is_a_fault_at_once(error: Exception) -> None:
    ledger = begun(2)
    ledger.answer(1, EXPLANATION, 1)
    ledger.break_off(error, 1)
    assert ledger.fault is error
    assert [result.index for result in ledger.take_rest()] == [1]


def test_pair_that_grew_counts_with_its_new_size_until_it_is_finished() -> None:
    ledger = begun(1)
    assert ledger.may_read
    first = ledger._under_way[0]
    for _ in range(2):  # sent twice, held once
        ledger.weigh(first, module.MAX_HELD_BYTES)
        assert not ledger.may_read
    ledger.answer(0, EXPLANATION, 1)
    assert ledger.may_read
    assert ledger._held_bytes == 0


def test_silence_counts_from_the_last_answer_and_only_while_pairs_are_under_way() -> None:
    ledger = new_ledger(timeout=10)
    ledger.note_time(1000)
    ledger.enter(entry(ledger), 1000)
    ledger.note_time(2000)
    sent(ledger, 2000)
    ledger.enter(entry(ledger), 2005)
    sent(ledger, 2005)
    assert ledger.wait_seconds(2006) == 4
    ledger.answer(1, EXPLANATION, 2009)
    ledger.note_time(2018.9)
    assert ledger.fault is None
    ledger.note_time(2019)
    assert isinstance(ledger.fault, DeadlineError)


def test_without_a_timeout_silence_is_no_fault() -> None:
    ledger = begun(1)
    ledger.note_time(1e9)
    assert ledger.fault is None
    assert ledger.wait_seconds(1e9) is None


def test_answer_to_no_pair_is_refused() -> None:
    ledger = begun(1)
    ledger.answer(0, EXPLANATION, 1)
    for index in (0, 1):
        with pytest.raises(IncompatibleServerError, match="not under way"):
            ledger.answer(index, EXPLANATION, 1)


@given(st.integers(0, 2**32), st.booleans(), st.integers(1, 6), st.integers(0, 25))
def test_every_pair_is_given_out_once_whatever_happens(seed: int, ordered: bool, ahead: int, count: int) -> None:
    chance, ledger, now = random.Random(seed), new_ledger(ordered=ordered, ahead=ahead), 0.0
    read, under_way, out = 0, list[int](), list[int]()
    while not ledger.is_over:
        now += chance.random()
        under_way += sent(ledger, now)
        if ledger.may_read and read == count:
            ledger.end_reading()
        elif ledger.may_read and chance.random() < 0.5:
            read += 1
            ledger.enter(entry(ledger), now) if chance.random() < 0.8 else ledger.refuse(refused(ledger))
        if under_way and chance.random() < 0.6:
            outcome = EXPLANATION if chance.random() < 0.7 else BusyError("full")
            ledger.answer(under_way.pop(chance.randrange(len(under_way))), outcome, now)
        elif under_way and chance.random() < 0.1:
            ledger._breaks = 0
            ledger.break_off(UnavailableError("gone"), now)
            under_way.clear()
        out += taken(ledger)
        assert read - len(out) <= ahead
    assert ledger.fault is None
    assert sorted(out) == list(range(count))
    assert not ordered or out == sorted(out)
