"""Holds both shells to the same promises, against the fake over a real channel."""

import asyncio
import gc
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import m2ib_client
from m2ib.v1 import attribution_pb2, settings_pb2
from m2ib_client import AsyncClient, Client, Explanation, Progress
from m2ib_client._channel import MAX_ATTEMPTS
from m2ib_client.testing import FakeService, serve_fake

TEXT = "an opacity in the left lung"


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 5
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def test_explain_answers_in_arrays_and_words(connect: Any, fake: FakeService, image: Any) -> None:
    explanation = connect(fake).explain(image, TEXT)
    assert explanation.image.grid_bits.shape == (7, 7)
    assert explanation.image.original_size == (40, 30)
    assert [word.text for word in explanation.words] == TEXT.split()
    assert all(TEXT[slice(*word.span)] == word.text for word in explanation.words)
    assert [token.special for token in explanation.tokens] == [True] + [False] * 6 + [True]
    assert explanation.overlay().size == (40, 30)


def test_options_reach_the_wire(connect: Any, fake: FakeService, image: Any) -> None:
    explanation = connect(fake).explain(
        image,
        TEXT,
        model="fake",
        sides=("image",),
        effort="specific",
        beta=0.5,
        text_beta=0.125,
        steps=3,
        samples=2,
        learning_rate=0.25,
        mask_shape="token",
        text_mask_shape="channel",
        seed=2**64 - 1,
        repeats=4,
        fit="stretch",
        outputs=("model_map", "original_map", "rendering"),
        priority="bulk",
        on_deadline="partial",
        truncate_text=True,
        frame=2,
        window=(40, 400),
    )
    (call,) = fake.calls
    assert isinstance(call.request, attribution_pb2.ExplainRequest)
    sent = call.request
    assert (sent.model, sent.text, sent.truncate_text) == ("fake", TEXT, True)
    assert list(sent.sides) == [settings_pb2.SIDE_IMAGE]
    assert sent.settings == settings_pb2.Settings(
        effort=settings_pb2.EFFORT_SPECIFIC,
        beta=0.5,
        text_beta=0.125,
        steps=3,
        samples=2,
        learning_rate=0.25,
        mask_shape=settings_pb2.MASK_SHAPE_TOKEN,
        text_mask_shape=settings_pb2.MASK_SHAPE_CHANNEL,
        seed=2**64 - 1,
        repeats=4,
    )
    assert sent.priority == attribution_pb2.PRIORITY_BULK
    assert sent.on_deadline == attribution_pb2.ON_DEADLINE_PARTIAL
    assert sent.fit == settings_pb2.FIT_STRETCH
    assert list(sent.outputs) == [
        attribution_pb2.OUTPUT_MODEL_MAP,
        attribution_pb2.OUTPUT_ORIGINAL_MAP,
        attribution_pb2.OUTPUT_RENDERING,
    ]
    assert (sent.image.frame, sent.image.window.center, sent.image.window.width) == (2, 40, 400)
    assert explanation.text is None
    assert explanation.words == ()
    assert explanation.image.model_map.shape == (56, 56)
    assert explanation.image.original_map.shape == (30, 40)
    assert explanation.provenance.settings.seed == 2**64 - 1
    assert explanation.provenance.rendering.window == (40, 400)


def test_unset_options_stay_unset_on_the_wire(connect: Any, fake: FakeService, image: Any) -> None:
    connect(fake).explain(image, TEXT)
    sent = fake.calls[0].request
    assert isinstance(sent, attribution_pb2.ExplainRequest)
    assert sent.settings == settings_pb2.Settings()
    assert sent.fit == settings_pb2.FIT_UNSPECIFIED
    assert sent.priority == attribution_pb2.PRIORITY_UNSPECIFIED
    assert sent.on_deadline == attribution_pb2.ON_DEADLINE_UNSPECIFIED
    assert not sent.image.HasField("frame")
    assert not sent.image.HasField("window")
    assert list(sent.outputs) == [attribution_pb2.OUTPUT_OVERLAY]


def test_the_same_request_gets_the_same_answer(connect: Any, fake: FakeService, image: Any) -> None:
    client = connect(fake)
    first, second = client.explain(image, TEXT, seed=3), client.explain(image, TEXT, seed=3)
    assert first.to_dict() == second.to_dict()
    assert client.explain(image, TEXT, seed=4).to_dict() != first.to_dict()


def test_stream_tells_of_every_step_and_ends_with_the_explanation(connect: Any, fake: FakeService, image: Any) -> None:
    *steps, last = connect(fake).explain_stream(image, TEXT, steps=4, partial_maps=True)
    assert all(isinstance(step, Progress) for step in steps)
    assert [(step.side, step.step, step.steps) for step in steps] == [
        (side, step, 4) for side in ("image", "text") for step in (1, 2, 3, 4)
    ]
    assert all((step.partial_grid is not None) == (step.side == "image") for step in steps)
    assert isinstance(last, Explanation)
    assert len(last.image.trace if last.image else ()) == 4


def test_stream_sends_no_partial_maps_unless_asked(connect: Any, fake: FakeService, image: Any) -> None:
    events = list(connect(fake).explain_stream(image, TEXT, steps=2))
    assert all(event.partial_grid is None for event in events if isinstance(event, Progress))


def test_leaving_a_stream_cancels_the_call_on_the_server(connect: Any, slow_fake: FakeService, image: Any) -> None:
    events = connect(slow_fake).explain_stream(image, TEXT, steps=100)
    next(events)
    del events
    gc.collect()
    assert eventually(lambda: slow_fake.cancelled_calls == 1)


def test_stream_that_outlasts_its_timeout_fails(connect: Any, slow_fake: FakeService, image: Any) -> None:
    events = connect(slow_fake).explain_stream(image, TEXT, steps=100, timeout=0.2)
    assert isinstance(next(events), Progress)
    with pytest.raises(m2ib_client.DeadlineError):
        list(events)


def test_call_that_outlasts_its_timeout_fails(connect: Any, slow_fake: FakeService, image: Any) -> None:
    with pytest.raises(m2ib_client.DeadlineError):
        connect(slow_fake).explain(image, TEXT, steps=100, timeout=0.1)
    assert eventually(lambda: slow_fake.cancelled_calls == 1)


def test_client_timeout_holds_for_calls_that_name_none(connect: Any, slow_fake: FakeService, image: Any) -> None:
    client = connect(slow_fake, timeout=0.1)
    with pytest.raises(m2ib_client.DeadlineError):
        client.explain(image, TEXT, steps=100)
    assert client.explain(image, TEXT, steps=4, timeout=5).similarity > 0


@pytest.mark.parametrize("timeout", [0, -1, float("inf"), float("nan"), "soon"])
def test_timeouts_that_cannot_be_meant_are_refused(connect: Any, fake: FakeService, timeout: Any) -> None:
    with pytest.raises(m2ib_client.InvalidRequestError, match="timeout"):
        connect(fake).models(timeout=timeout)


def test_score_gives_a_row_per_image_and_a_column_per_text(connect: Any, fake: FakeService, image: Any) -> None:
    client = connect(fake)
    scores = client.score([image, 255 - image], ["a", "b c", "d"])
    assert scores.matrix.shape == (2, 3)
    assert scores.matrix.dtype == np.float32
    assert [length.tokens_given for length in scores.text_lengths] == [3, 4, 3]
    assert client.score(image, "b c").matrix[0, 0] == scores.matrix[0, 1]


@pytest.mark.parametrize(
    ("options", "shapes", "text_beta"),
    [
        ({}, ("channel", "channel"), 0.1),
        ({"mask_shape": "token"}, ("token", "token"), 0.1),
        ({"text_mask_shape": "token"}, ("channel", "token"), 0.1),
        ({"effort": "specific"}, ("channel", "token"), 0.3),
        ({"effort": "specific", "mask_shape": "channel"}, ("channel", "channel"), 0.1),
        ({"effort": "specific", "text_mask_shape": "channel"}, ("channel", "channel"), 0.1),
    ],
)
def test_fake_decides_the_mask_shape_of_each_side_as_the_contract_says(
    connect: Any, fake: FakeService, image: Any, options: Any, shapes: Any, text_beta: float
) -> None:
    settings = connect(fake).explain(image, TEXT, **options).provenance.settings
    assert (settings.mask_shape, settings.text_mask_shape) == shapes
    assert settings.text_beta == text_beta


def test_models_and_model_describe_the_same(connect: Any, fake: FakeService) -> None:
    client = connect(fake)
    assert client.models() == (client.model(),)
    assert client.model("fake").defaults.efforts["published"].mask_shape == "channel"
    assert client.model().limits.max_steps == 100


def test_unknown_model_names_those_that_are_loaded(connect: Any, fake: FakeService) -> None:
    with pytest.raises(m2ib_client.NotFoundError) as caught:
        connect(fake).model("another")
    assert caught.value.allowed == "fake"


def test_refused_setting_names_field_seen_and_allowed(connect: Any, fake: FakeService, image: Any) -> None:
    with pytest.raises(m2ib_client.InvalidRequestError) as caught:
        connect(fake).explain(image, TEXT, steps=1000)
    error = caught.value
    assert (error.field, error.seen, error.allowed) == ("settings.steps", "1000", "1 to 100")
    assert error.reason == "SETTING_OUT_OF_RANGE"


SERVER_CAUSED = [
    m2ib_client.InvalidRequestError("x", field="text", seen="a", allowed="b", reason="TEXT_TOO_LONG"),
    m2ib_client.NotFoundError("x", allowed="one"),
    m2ib_client.AccessError("x"),
    m2ib_client.BusyError("x", retry_after_seconds=0.25),
    m2ib_client.DeadlineError("x"),
    m2ib_client.CallCancelledError("x"),
    m2ib_client.ServerError("x"),
    m2ib_client.IncompatibleServerError("x"),
]


@pytest.mark.parametrize("error", SERVER_CAUSED, ids=lambda error: type(error).__name__)
def test_every_fault_of_the_server_arrives_whole(connect: Any, fake: FakeService, error: m2ib_client.M2IBError) -> None:
    error.request_id = "request-17"
    fake.fail_next(error, times=MAX_ATTEMPTS)
    with pytest.raises(m2ib_client.M2IBError) as caught:
        connect(fake).models()
    assert type(caught.value) is type(error)
    assert str(caught.value) == "x"
    assert vars(caught.value) == vars(error)


def test_fault_in_a_stream_arrives_too(connect: Any, fake: FakeService, image: Any) -> None:
    fake.fail_next(m2ib_client.BusyError("full", retry_after_seconds=0.25), times=MAX_ATTEMPTS)
    with pytest.raises(m2ib_client.BusyError) as caught:
        list(connect(fake).explain_stream(image, TEXT))
    assert caught.value.retry_after_seconds == 0.25


def test_unavailable_server_is_asked_again(connect: Any, fake: FakeService) -> None:
    fake.fail_next(m2ib_client.UnavailableError("starting"), times=2)
    assert len(connect(fake).models()) == 1
    assert len(fake.calls) == 3


def test_large_request_is_asked_again_too(connect: Any, fake: FakeService) -> None:
    noise = np.random.default_rng(1).integers(0, 65535, (800, 800), dtype=np.uint16)
    fake.fail_next(m2ib_client.UnavailableError("starting"))
    assert connect(fake).score(noise, "a").matrix.shape == (1, 1)
    assert len(fake.calls) == 2


def test_unavailable_server_is_given_up_in_the_end(connect: Any, fake: FakeService) -> None:
    fake.fail_next(m2ib_client.UnavailableError("starting"), times=3)
    with pytest.raises(m2ib_client.UnavailableError, match="starting"):
        connect(fake).models()


@pytest.mark.parametrize("fault", [m2ib_client.BusyError, m2ib_client.UnavailableError])
def test_server_is_asked_again_when_it_says(connect: Any, fake: FakeService, fault: Any) -> None:
    fake.fail_next(fault("full", retry_after_seconds=0.4), times=2)
    started = time.monotonic()
    assert len(connect(fake).models()) == 1
    assert time.monotonic() - started >= 0.8
    assert len(fake.calls) == 3


def test_stream_that_was_refused_is_asked_for_again(connect: Any, fake: FakeService, image: Any) -> None:
    fake.fail_next(m2ib_client.BusyError("full", retry_after_seconds=0.05))
    *_, last = connect(fake).explain_stream(image, TEXT)
    assert isinstance(last, Explanation)
    assert len(fake.calls) == 2


def test_busy_server_is_given_up_in_the_end(connect: Any, fake: FakeService) -> None:
    fake.fail_next(m2ib_client.BusyError("full", retry_after_seconds=0.05), times=MAX_ATTEMPTS)
    with pytest.raises(m2ib_client.BusyError):
        connect(fake).models()
    assert len(fake.calls) == MAX_ATTEMPTS


def test_who_cannot_wait_for_room_learns_at_once_that_there_is_none(connect: Any, fake: FakeService) -> None:
    fake.fail_next(m2ib_client.BusyError("full", retry_after_seconds=30))
    with pytest.raises(m2ib_client.BusyError):
        connect(fake, timeout=10).models()
    assert len(fake.calls) == 1


def test_retries_have_a_budget(connect: Any, fake: FakeService) -> None:
    client, calls = connect(fake), 10
    fake.fail_next(m2ib_client.BusyError("full", retry_after_seconds=0.02), times=calls * MAX_ATTEMPTS)
    for _ in range(calls):
        with pytest.raises(m2ib_client.BusyError):
            client.models()
    assert calls < len(fake.calls) < 2 * calls  # all would be 3 * calls; half the budget is 5 failures


def test_absent_server_is_unavailable(connect: Any) -> None:
    with serve_fake() as gone:
        pass
    with pytest.raises(m2ib_client.UnavailableError):
        connect(gone).models()


def test_closed_client_says_so(connect: Any, fake: FakeService, image: Any) -> None:
    client = connect(fake)
    client.models()
    client.close()
    client.close()
    with pytest.raises(m2ib_client.ClosedError):
        client.models()
    with pytest.raises(m2ib_client.ClosedError):
        list(client.explain_stream(image, TEXT))


def test_bad_argument_is_refused_before_anything_is_sent(connect: Any, fake: FakeService, image: Any) -> None:
    with pytest.raises(m2ib_client.InvalidRequestError, match="sides"):
        next(connect(fake).explain_stream(image, TEXT, sides=("sound",)))
    with pytest.raises(TypeError):
        connect(fake).explain(image, TEXT, colour="red")
    assert fake.calls == ()


@pytest.mark.parametrize("shell", [Client, AsyncClient])
@pytest.mark.parametrize("address", ["", "localhost", "http://localhost:50051", ":50051", "host:port", None])
def test_addresses_that_cannot_be_meant_are_refused(shell: Any, address: Any) -> None:
    with pytest.raises(m2ib_client.InvalidRequestError, match="address"):
        shell(address)


def test_message_limit_of_the_client_holds_both_ways(connect: Any, fake: FakeService) -> None:
    small = connect(fake, max_message_bytes=2_000)
    with pytest.raises(m2ib_client.InvalidRequestError, match="at most 2000 bytes"):
        small.explain(b"\xff\xd8\xff".ljust(2_001), "a")
    assert fake.calls == ()
    with pytest.raises(m2ib_client.M2IBError):
        connect(fake, max_message_bytes=10).models()
    assert len(fake.calls) == 1
    assert small.models()[0].name == "fake"


@pytest.mark.parametrize("limit", [0, -1, 2**30 + 1, 1.5, True, None], ids=repr)
def test_message_limits_that_cannot_be_meant_are_refused(connect: Any, fake: FakeService, limit: Any) -> None:
    with pytest.raises(m2ib_client.InvalidRequestError, match="max_message_bytes"):
        connect(fake, max_message_bytes=limit)


def test_context_manager_closes() -> None:
    with serve_fake() as fake, Client(fake.address) as client:
        client.models()
    with pytest.raises(m2ib_client.ClosedError):
        client.models()


async def test_async_context_manager_closes(fake: FakeService) -> None:
    async with AsyncClient(fake.address) as client:
        await client.models()
    with pytest.raises(m2ib_client.ClosedError):
        await client.models()


async def test_cancelling_the_task_cancels_the_call_on_the_server(slow_fake: FakeService, image: Any) -> None:
    async with AsyncClient(slow_fake.address) as client:
        task = asyncio.create_task(client.explain(image, TEXT, steps=100))
        assert await asyncio.to_thread(eventually, lambda: len(slow_fake.calls) == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(eventually, lambda: slow_fake.cancelled_calls == 1)


async def test_closing_under_a_call_is_a_cancelled_call(slow_fake: FakeService, image: Any) -> None:
    client = AsyncClient(slow_fake.address)
    task = asyncio.create_task(client.explain(image, TEXT, steps=100))
    assert await asyncio.to_thread(eventually, lambda: len(slow_fake.calls) == 1)
    await client.close()
    with pytest.raises(m2ib_client.CallCancelledError):
        await task


async def test_calls_run_side_by_side(slow_fake: FakeService, image: Any) -> None:
    async with AsyncClient(slow_fake.address) as client:
        started = time.monotonic()
        answers = await asyncio.gather(*(client.explain(image, TEXT, steps=10, seed=seed) for seed in range(4)))
    assert len({answer.similarity for answer in answers}) == 4
    assert time.monotonic() - started < 4 * 0.5
