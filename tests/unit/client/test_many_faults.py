"""Holds both shells of `explain_many` to what they promise when pairs, streams and servers fail."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import m2ib_client
from m2ib.v1 import attribution_pb2
from m2ib_client import (
    BusyError,
    Client,
    ImageHandle,
    NotFoundError,
    UnavailableError,
)
from m2ib_client._image import image_message
from m2ib_client._many.wire import read_answer
from m2ib_client.testing import FakeService, serve_fake
from pairs import SOON, TEXT, eventually, films, numbered, sources, uploads

NOISE = np.random.default_rng(0).integers(0, 255, (600, 600), dtype=np.uint8)


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


def test_image_that_the_streams_server_never_has_goes_within_its_request(
    connect: Any, fake: FakeService, image: Any
) -> None:
    client = connect(fake)
    handle = client.upload(image)
    fake.fail_next_pairs(NotFoundError("gone", reason="IMAGE_HANDLE_UNKNOWN"), times=2)
    (result,) = client.explain_many([(handle, TEXT)])
    assert result.error is None
    assert sources(fake) == ["handle", "handle", "encoded"]


def test_images_go_within_their_requests_while_the_server_has_no_room_for_uploads(
    connect: Any, fake: FakeService, image: Any
) -> None:
    fake.fail_next_uploads(BusyError("full", retry_after_seconds=60), times=100)
    results = list(connect(fake).explain_many(((image, f"text {index}") for index in range(10)), timeout=10))
    assert [result.error for result in results] == [None] * 10
    assert sources(fake) == ["encoded"] * 10


def test_upload_is_tried_again_after_one_that_found_no_room(connect: Any, fake: FakeService, image: Any) -> None:
    fake.fail_next_uploads(BusyError("full"), times=2)
    results = list(connect(fake).explain_many((image, f"text {index}") for index in range(10)))
    assert [result.error for result in results] == [None] * 10
    assert (uploads(fake), sorted(sources(fake))) == (3, ["encoded"] * 3 + ["handle"] * 7)


def test_image_sent_for_want_of_room_gives_the_map_that_its_handle_gives(
    connect: Any, fake: FakeService, image: Any
) -> None:
    client = connect(fake)
    fake.fail_next_uploads(BusyError("full"))
    handle = ImageHandle.of(image_message(image, frame=None, window=None).encoded)
    refused, named = client.explain_many([(handle, TEXT)] * 2, ahead=1)
    assert sources(fake) == ["encoded", "handle"]
    assert refused.explained().to_dict() == named.explained().to_dict()


def test_image_that_no_request_can_hold_waits_for_room(connect: Any, fake: FakeService) -> None:
    fake.fail_next_uploads(BusyError("full", retry_after_seconds=0.01), times=3)
    handle = ImageHandle.of(image_message(NOISE, frame=None, window=None).encoded)
    (result,) = connect(fake, max_message_bytes=300_000).explain_many([(handle, TEXT)], outputs=())
    assert result.error is None
    assert (uploads(fake), sources(fake)) == (4, ["handle"])


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


def test_bar_is_silent_where_there_is_no_terminal(
    connect: Any, fake: FakeService, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(list(connect(fake).explain_many(numbered(2), progress=True))) == 2
    assert "pairs" not in capsys.readouterr().err


def test_closed_client_says_so(connect: Any, fake: FakeService) -> None:
    client = connect(fake)
    client.close()
    with pytest.raises(m2ib_client.ClosedError):
        list(client.explain_many(numbered(2)))


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
