"""Holds both shells to what `explain_many` promises, against the fake over a real channel."""

import asyncio
import gc
import itertools
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from typing import Any

import numpy as np
import pytest

import m2ib_client
from m2ib.v1 import attribution_pb2
from m2ib_client import (
    AsyncClient,
    BusyError,
    Client,
    ImageHandle,
    ManyProgress,
    NotFoundError,
    Pair,
    UnavailableError,
)
from m2ib_client._image import image_message
from m2ib_client._many.wire import read_answer
from m2ib_client.testing import FakeService, serve_fake

TEXT = "an opacity in the left lung"
SOON = UnavailableError("restarting", retry_after_seconds=0.01)


def films(count: int) -> list[Any]:
    chance = np.random.default_rng(3)
    return [chance.integers(0, 255, (12, 16), dtype=np.uint8) for _ in range(count)]


def numbered(count: int, **options: Any) -> Iterator[Pair]:
    return (Pair(film, f"text {index}", str(index), options) for index, film in enumerate(films(count)))  # type: ignore[arg-type]


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 5
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def sources(fake: FakeService) -> list[str]:
    """How each pair's image was sent, in the order of arrival."""
    requests = [call.request for call in fake.calls if call.method == "ExplainBatch"]
    return [str(request.request.image.WhichOneof("source")) for request in requests]  # type: ignore[attr-defined]


def uploads(fake: FakeService) -> int:
    return sum(call.method == "UploadImage" for call in fake.calls)


def client_threads() -> int:
    """The threads of this process but those that the fake's own pools keep."""
    return sum(not thread.name.startswith("ThreadPoolExecutor") for thread in threading.enumerate())


def test_results_come_in_order_and_are_those_of_explain(connect: Any, fake: FakeService) -> None:
    client = connect(fake)
    results = list(client.explain_many(numbered(20), seed=4))
    assert [result.index for result in results] == list(range(20))
    assert [result.id for result in results] == [str(index) for index in range(20)]
    assert all(result.error is None for result in results)
    alone = client.explain(results[7].pair.image, "text 7", seed=4)
    assert results[7].explained().to_dict() == alone.to_dict()


def test_results_come_as_they_finish_where_order_is_not_asked_for(connect: Any, slow_fake: FakeService) -> None:
    first, second, third = films(3)
    pairs = [Pair(first, TEXT, options={"steps": 30}), (second, TEXT), ("named", third, TEXT)]
    results = list(connect(slow_fake).explain_many(pairs, ordered=False, steps=2))
    assert [result.index for result in results][-1] == 0
    assert sorted(result.id for result in results) == ["", "", "named"]


def test_own_options_of_a_pair_go_before_those_of_the_call(connect: Any, fake: FakeService) -> None:
    pairs = [(films(1)[0], TEXT), Pair(films(1)[0], TEXT, options={"effort": "fast", "steps": 2})]
    plain, own = connect(fake).explain_many(pairs, effort="specific", seed=9, steps=3)
    assert plain.explained().provenance.settings.effort == "specific"
    settings = own.explained().provenance.settings
    assert (settings.effort, settings.steps, settings.seed) == ("fast", 2, 9)


def test_bad_pairs_have_their_errors_and_the_rest_goes_on(connect: Any, fake: FakeService) -> None:
    good, *others = films(6)
    pairs: list[Any] = [
        ("absent.png", TEXT),
        (good, TEXT),
        "no pair at all",
        (good, 3),
        Pair(good, TEXT, options={"colour": "red"}),  # type: ignore[typeddict-unknown-key]
        Pair(good, TEXT, options={"steps": 1000}),
        (1, good, TEXT),
        (b"no image", TEXT),
        (others[0], TEXT),
    ]
    results = list(connect(fake).explain_many(pairs))
    kinds = [type(result.error) for result in results]
    invalid = m2ib_client.InvalidRequestError
    none = type(None)
    assert kinds == [FileNotFoundError, none, invalid, invalid, TypeError, invalid, invalid, invalid, none]
    assert results[2].pair.image == "no pair at all"
    assert results[5].error.field == "settings.steps"
    with pytest.raises(invalid, match="int, ndarray, str"):
        results[6].explained()


def test_errors_are_raised_where_that_is_asked_for(connect: Any, fake: FakeService) -> None:
    pairs = [(films(1)[0], TEXT), ("absent.png", TEXT), (films(1)[0], TEXT)]
    results = connect(fake).explain_many(pairs, return_errors=False)
    assert next(results).explained().similarity > 0
    with pytest.raises(FileNotFoundError):
        next(results)


@pytest.mark.parametrize("ordered", [True, False])
def test_pairs_are_read_lazily_and_so_far_ahead_only(connect: Any, fake: FakeService, ordered: bool) -> None:
    film, read = films(1)[0], list[int]()

    def pairs() -> Iterator[tuple[Any, str]]:
        for index in itertools.count():
            read.append(index)
            yield film, f"text {index}"

    results = connect(fake).explain_many(pairs(), ordered=ordered, ahead=5, steps=1)
    assert not read
    for given in range(12):
        assert next(results).error is None
        assert len(read) - given <= 5
    results.close()


def test_broken_stream_is_resumed_and_no_pair_answered_twice(connect: Any, fake: FakeService) -> None:
    for after in (3, 5, 1):
        fake.break_next_batch(SOON, after=after)
    results = list(connect(fake).explain_many(numbered(20)))
    assert [result.index for result in results] == list(range(20))
    assert all(result.error is None for result in results)
    assert {result.explained().provenance.model for result in results} == {"fake"}


def test_server_that_starts_anew_goes_on_with_what_it_left(connect: Any) -> None:
    with serve_fake(FakeService(step_seconds=0.02)) as first:
        results = connect(first).explain_many(numbered(30), steps=2)
        answered = [next(results).index for _ in range(3)]
    port = int(first.address.rpartition(":")[2])
    with serve_fake(port=port) as second:
        answered += [result.index for result in results if result.error is None]
    assert answered == list(range(30))
    assert sources(second)


def test_stream_that_keeps_breaking_is_given_up_with_what_was_answered(connect: Any, fake: FakeService) -> None:
    fake.break_next_batch(SOON, after=2)
    for _ in range(60):
        fake.break_next_batch(SOON, after=0)
    results = connect(fake).explain_many(numbered(6), ordered=False)
    assert len([next(results), next(results)]) == 2
    with pytest.raises(UnavailableError, match="restarting"):
        list(results)


def test_refused_stream_is_the_error_itself(connect: Any, fake: FakeService) -> None:
    fake.fail_next(m2ib_client.AccessError("not you"))
    with pytest.raises(m2ib_client.AccessError, match="not you"):
        list(connect(fake).explain_many(numbered(3)))


def test_busy_pairs_are_sent_again(connect: Any, fake: FakeService) -> None:
    fake.fail_next_pairs(BusyError("full", retry_after_seconds=0.01), times=4)
    fake.fail_next_pairs(SOON, times=2)
    results = list(connect(fake).explain_many(numbered(5)))
    assert all(result.error is None for result in results)
    assert len(sources(fake)) == 5 + 6


def test_pair_that_the_server_refuses_is_not_sent_again(connect: Any, fake: FakeService) -> None:
    fake.fail_next_pairs(m2ib_client.ServerError("broken", request_id="r-1"))
    (result,) = connect(fake).explain_many(numbered(1))
    assert isinstance(result.error, m2ib_client.ServerError)
    assert (str(result.error), result.error.request_id) == ("broken", "r-1")
    assert len(sources(fake)) == 1


def test_image_of_many_texts_is_uploaded_once(connect: Any, fake: FakeService, image: Any) -> None:
    results = list(connect(fake).explain_many((image, f"text {index}") for index in range(10)))
    assert all(result.error is None for result in results)
    assert uploads(fake) == 1
    assert sorted(sources(fake)) == ["encoded"] + ["handle"] * 9


def test_images_that_come_once_are_not_uploaded(connect: Any, fake: FakeService) -> None:
    assert len(list(connect(fake).explain_many(numbered(4)))) == 4
    assert sources(fake) == ["encoded"] * 4


def test_image_that_the_server_let_go_of_is_uploaded_again(connect: Any, fake: FakeService, image: Any) -> None:
    client = connect(fake)
    handle = client.upload(image)
    fake.forget_images()
    results = list(client.explain_many((handle, f"text {index}") for index in range(12)))
    assert all(result.error is None for result in results)
    assert uploads(fake) == 2
    assert set(sources(fake)) == {"handle"}


def test_image_that_is_gone_each_time_fails_its_pair_only(connect: Any, fake: FakeService, image: Any) -> None:
    client = connect(fake)
    handle = client.upload(image)
    fake.fail_next_pairs(NotFoundError("gone", reason="IMAGE_HANDLE_UNKNOWN"), times=3)
    gone, good = client.explain_many([(handle, TEXT), (handle, TEXT)], ahead=1)
    assert isinstance(gone.error, NotFoundError)
    assert good.error is None


def test_upload_that_fails_fails_its_pair_only(connect: Any, fake: FakeService, image: Any) -> None:
    handle = ImageHandle.of(image_message(image, frame=None, window=None).encoded)
    fake.fail_next(m2ib_client.AccessError("no uploads"))
    refused, good = connect(fake).explain_many([(handle, TEXT), (films(1)[0], TEXT)])
    assert isinstance(refused.error, m2ib_client.AccessError)
    assert good.error is None


def test_error_of_the_pairs_themselves_comes_after_what_was_under_way(connect: Any, fake: FakeService) -> None:
    def pairs() -> Iterator[Any]:
        yield from numbered(3)
        raise LookupError("the list broke")

    results = connect(fake).explain_many(pairs())
    assert [next(results).index for _ in range(3)] == [0, 1, 2]
    with pytest.raises(LookupError, match="the list broke"):
        next(results)


def test_silent_server_is_an_error(connect: Any, slow_fake: FakeService) -> None:
    results = connect(slow_fake).explain_many(numbered(2, steps=100), timeout=0.3)
    with pytest.raises(m2ib_client.DeadlineError, match=r"0\.3 s"):
        next(results)
    assert eventually(lambda: slow_fake.cancelled_calls == 1)


def test_timeout_is_on_by_default_and_counts_from_answer_to_answer(connect: Any, slow_fake: FakeService) -> None:
    client = connect(slow_fake, timeout=0.6)
    assert len(list(client.explain_many(numbered(5, steps=6), ahead=1))) == 5  # 0.3 s each, more in all
    with pytest.raises(m2ib_client.DeadlineError):
        list(client.explain_many(numbered(1, steps=100)))


def test_time_for_all_pairs_is_the_streams_deadline(connect: Any, slow_fake: FakeService) -> None:
    with pytest.raises(m2ib_client.DeadlineError):
        list(connect(slow_fake).explain_many(numbered(2, steps=100), total_timeout=0.3))


def test_partial_answers_come_before_the_streams_deadline(connect: Any, slow_fake: FakeService) -> None:
    results = list(connect(slow_fake).explain_many(numbered(3, steps=100), on_deadline="partial", total_timeout=1.5))
    assert all(result.explained().partial for result in results)


@pytest.mark.parametrize(
    "options",
    [{"ahead": 0}, {"ahead": 1.5}, {"timeout": -1}, {"total_timeout": 0}, {"effort": "heroic"}, {"sides": "image"}],
)
def test_what_cannot_be_meant_is_refused_at_once(connect: Any, fake: FakeService, options: dict[str, Any]) -> None:
    client = connect(fake)
    shell = getattr(client, "client", client)
    with pytest.raises(m2ib_client.InvalidRequestError):
        shell.explain_many([], **options)
    with pytest.raises(TypeError):
        shell.explain_many([], colour="red")
    assert fake.calls == ()


def test_no_pairs_are_no_call(connect: Any, fake: FakeService) -> None:
    assert list(connect(fake).explain_many([])) == []
    assert fake.calls == ()


def test_progress_is_told_pair_by_pair(connect: Any, fake: FakeService) -> None:
    told: list[ManyProgress] = []
    pairs = [*numbered(4), ("absent.png", TEXT)]
    list(connect(fake).explain_many(pairs, progress=told.append))
    assert told[-1] == ManyProgress(done=5, failed=1, total=5)
    assert [progress.done for progress in told] == sorted(progress.done for progress in told)
    told.clear()
    list(connect(fake).explain_many(numbered(2), progress=told.append))
    assert told[-1] == ManyProgress(done=2, failed=0, total=None)


def test_bar_is_silent_where_there_is_no_terminal(
    connect: Any, fake: FakeService, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(list(connect(fake).explain_many(numbered(2), progress=True))) == 2
    assert "pairs" not in capsys.readouterr().err


def test_bar_loads_rich_for_those_only_who_want_it(fake: FakeService) -> None:
    program = (
        "import sys; from m2ib_client import Client; client = Client(sys.argv[1]); "
        "list(client.explain_many([(b'x', 'a')])); before = 'rich' in sys.modules; "
        "list(client.explain_many([(b'x', 'a')], progress=True)); print(before, 'rich' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program, fake.address], capture_output=True, text=True, check=True)
    assert done.stdout == "False True\n"


def test_closed_client_says_so(connect: Any, fake: FakeService) -> None:
    client = connect(fake)
    client.close()
    with pytest.raises(m2ib_client.ClosedError):
        list(client.explain_many(numbered(2)))


def test_whole_run_is_no_cancelled_call(connect: Any, fake: FakeService) -> None:
    list(connect(fake).explain_many(numbered(3)))
    time.sleep(0.05)
    assert fake.cancelled_calls == 0


@pytest.mark.parametrize("leave", [lambda results: results.close(), lambda _: None], ids=["close", "drop"])
def test_leaving_early_cancels_on_the_server_and_leaves_no_thread(slow_fake: FakeService, leave: Any) -> None:
    with Client(slow_fake.address) as client:
        client.models()
        before = client_threads()
        results = client.explain_many(((film, TEXT) for film in itertools.cycle(films(50))), steps=2)
        next(results)
        assert client_threads() > before
        leave(results)
        del results
        gc.collect()
        assert not [thread for thread in threading.enumerate() if thread.name == "m2ib-answers"]
        assert eventually(lambda: client_threads() <= before)
        assert eventually(lambda: slow_fake.cancelled_calls == 1)


def test_whole_run_leaves_no_thread(fake: FakeService) -> None:
    with Client(fake.address) as client:
        client.models()
        before = client_threads()
        fake.break_next_batch(SOON, after=4)
        assert len(list(client.explain_many(numbered(10)))) == 10
        assert eventually(lambda: client_threads() <= before)


def test_failed_run_leaves_no_thread(slow_fake: FakeService) -> None:
    with Client(slow_fake.address) as client:
        client.models()
        before = client_threads()
        with pytest.raises(m2ib_client.DeadlineError):
            list(client.explain_many(numbered(3, steps=100), timeout=0.2))
        assert eventually(lambda: client_threads() <= before)


def test_closing_the_client_under_a_run_ends_it(slow_fake: FakeService) -> None:
    client = Client(slow_fake.address)
    results = client.explain_many(numbered(2, steps=100))
    timer = threading.Timer(0.3, client.close)
    timer.start()
    with pytest.raises(m2ib_client.CallCancelledError):
        next(results)
    timer.join()


def test_many_runs_share_a_client(fake: FakeService) -> None:
    with Client(fake.address) as client:
        runs = [client.explain_many(numbered(6), seed=seed) for seed in range(3)]
        for results in zip(*runs, strict=True):
            assert [result.explained().provenance.settings.seed for result in results] == [0, 1, 2]


async def test_pairs_may_come_asynchronously_and_in_one_task(fake: FakeService) -> None:
    tasks = set()

    async def pairs() -> AsyncIterator[Pair]:
        for pair in numbered(5):
            await asyncio.sleep(0)
            tasks.add(asyncio.current_task())
            yield pair

    async with AsyncClient(fake.address) as client:
        results = [result async for result in client.explain_many(pairs())]
    assert [result.index for result in results] == [0, 1, 2, 3, 4]
    assert len(tasks) == 1


async def test_waiting_for_a_pair_holds_up_no_answer(fake: FakeService) -> None:
    is_answered = asyncio.Event()

    async def pairs() -> AsyncIterator[Pair]:
        first, second = numbered(2)
        yield first
        await is_answered.wait()
        yield second

    async with AsyncClient(fake.address) as client:
        async for result in client.explain_many(pairs(), timeout=5):
            assert result.error is None
            is_answered.set()


async def test_leaving_early_leaves_no_task(slow_fake: FakeService) -> None:
    async with AsyncClient(slow_fake.address) as client:
        await client.models()
        before = asyncio.all_tasks()
        pairs = ((film, TEXT) for film in itertools.cycle(films(50)))
        async with aclosing(client.explain_many(pairs, steps=2)) as results:
            async for _ in results:
                break
        await asyncio.sleep(0.05)
        assert asyncio.all_tasks() == before
        assert await asyncio.to_thread(eventually, lambda: slow_fake.cancelled_calls == 1)


async def test_cancelled_task_leaves_no_task_and_cancels_on_the_server(slow_fake: FakeService) -> None:
    async def endless() -> AsyncIterator[Pair]:
        for film in films(4):
            yield Pair(film, TEXT)
        await asyncio.Event().wait()

    async def consume(client: AsyncClient) -> None:
        async for _ in client.explain_many(endless(), steps=100):
            pass

    async with AsyncClient(slow_fake.address) as client:
        await client.models()
        before = asyncio.all_tasks()
        task = asyncio.create_task(consume(client))
        assert await asyncio.to_thread(eventually, lambda: len(sources(slow_fake)) == 4)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0.05)
        assert asyncio.all_tasks() == before
        assert await asyncio.to_thread(eventually, lambda: slow_fake.cancelled_calls == 1)


async def test_whole_run_leaves_no_task(fake: FakeService) -> None:
    async with AsyncClient(fake.address) as client:
        await client.models()
        before = asyncio.all_tasks()
        fake.break_next_batch(SOON, after=4)
        assert len([result async for result in client.explain_many(numbered(10))]) == 10
        await asyncio.sleep(0.05)
        assert asyncio.all_tasks() == before


async def test_what_is_no_iterable_is_a_type_error(fake: FakeService) -> None:
    async with AsyncClient(fake.address) as client:
        with pytest.raises(TypeError, match="iterable"):
            [result async for result in client.explain_many(3)]  # type: ignore[arg-type]
    with Client(fake.address) as client_in_threads, pytest.raises(TypeError, match="iterable"):
        client_in_threads.explain_many(3)  # type: ignore[arg-type]


def test_answer_to_no_pair_of_ours_is_an_incompatible_server(fake: FakeService) -> None:
    for name in ("", "-1", "x", "\u0663"):
        with pytest.raises(m2ib_client.IncompatibleServerError):
            read_answer(attribution_pb2.ExplainBatchResponse(id=name))
    index, outcome = read_answer(attribution_pb2.ExplainBatchResponse(id="3"))
    assert index == 3
    assert isinstance(outcome, m2ib_client.IncompatibleServerError)


def test_server_that_goes_away_is_unavailable() -> None:
    with serve_fake() as gone:
        pass
    with Client(gone.address) as client, pytest.raises(UnavailableError):
        list(client.explain_many(numbered(1), timeout=30))
