"""Checks uploaded images: sent once, taken in place of an image, sent again when the server let go of them."""

import asyncio
import gc
import hashlib
import pickle
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import m2ib_client
from m2ib.v1 import attribution_pb2
from m2ib_client import AsyncClient, Client, ImageHandle
from m2ib_client._channel import TimeLeft
from m2ib_client._image import image_message
from m2ib_client._request import UPLOAD_CHUNK_BYTES, upload_requests
from m2ib_client._uploads import Names, Uploads
from m2ib_client.testing import FakeService, serve_fake

TEXT = "an opacity in the left lung"


def methods(fake: FakeService) -> list[str]:
    return [call.method for call in fake.calls]


def test_upload_sends_the_header_and_then_chunks() -> None:
    image = ImageHandle.of(np.random.default_rng(0).bytes(2 * UPLOAD_CHUNK_BYTES + 17))
    first, *rest = upload_requests(image)
    assert first.header.size_bytes == image.size_bytes == 2 * UPLOAD_CHUNK_BYTES + 17
    assert first.header.sha256 == image.sha256 == hashlib.sha256(image.encoded).hexdigest()
    assert [len(part.chunk) for part in rest] == [UPLOAD_CHUNK_BYTES, UPLOAD_CHUNK_BYTES, 17]
    assert b"".join(part.chunk for part in rest) == image.encoded


def test_handle_stands_for_its_image_in_every_call(connect: Any, fake: FakeService, image: Any) -> None:
    client = connect(fake)
    handle = client.upload(image)
    whole = client.explain(image, TEXT, frame=1)
    assert client.explain(handle, TEXT, frame=1).to_dict() == whole.to_dict()
    assert [*client.explain_stream(handle, TEXT, frame=1)][-1].to_dict() == whole.to_dict()
    scores = client.score([handle, image], TEXT)
    assert scores.matrix[0, 0] == scores.matrix[1, 0]
    assert methods(fake) == ["UploadImage", "Explain", "Explain", "ExplainStream", "Score"]
    sent = fake.calls[2].request
    assert isinstance(sent, attribution_pb2.ExplainRequest)
    assert (sent.image.WhichOneof("source"), sent.image.encoded) == ("handle", b"")


def test_image_of_several_chunks_arrives_whole(connect: Any, fake: FakeService) -> None:
    noise = np.random.default_rng(1).integers(0, 65535, (800, 800), dtype=np.uint16)
    handle = connect(fake).upload(noise)
    assert handle.size_bytes > 2 * UPLOAD_CHUNK_BYTES
    assert handle.encoded == image_message(noise, frame=None, window=None).encoded


@pytest.mark.parametrize("method", ["explain", "explain_stream", "score"])
def test_forgotten_image_is_sent_again_and_the_call_repeated(
    connect: Any, fake: FakeService, image: Any, method: str
) -> None:
    client = connect(fake)
    handle = client.upload(image)
    fake.forget_images()
    answer = getattr(client, method)(handle, TEXT)
    assert answer if method != "explain_stream" else list(answer)
    name = {"explain": "Explain", "explain_stream": "ExplainStream", "score": "Score"}[method]
    assert methods(fake) == ["UploadImage", name, "UploadImage", name]


def test_image_that_is_forgotten_at_once_fails_after_one_repetition(
    connect: Any, fake: FakeService, image: Any
) -> None:
    client = connect(fake)
    handle = client.upload(image)
    fake.fail_next(m2ib_client.NotFoundError("gone", reason="IMAGE_HANDLE_UNKNOWN"))
    client.explain(handle, TEXT)
    before = len(fake.calls)
    client.upload(handle)
    assert len(fake.calls) == before

    fake.forget_images()
    fake.fail_next(m2ib_client.NotFoundError("other", reason="MODEL_UNKNOWN"))
    with pytest.raises(m2ib_client.NotFoundError, match="other"):
        client.explain(handle, TEXT)
    assert len(fake.calls) == before + 1


def test_unknown_image_twice_in_a_row_is_the_callers_to_know(connect: Any, fake: FakeService, image: Any) -> None:
    client = connect(fake)
    handle = client.upload(image)
    gone = m2ib_client.NotFoundError("gone", reason="IMAGE_HANDLE_UNKNOWN")
    fake.fail_next(gone, times=2)  # the call, and the upload that is to help
    with pytest.raises(m2ib_client.NotFoundError, match="gone"):
        client.explain(handle, TEXT)
    assert methods(fake) == ["UploadImage", "Explain", "UploadImage"]


def test_handle_works_with_another_client(connect: Any, fake: FakeService, image: Any) -> None:
    handle = connect(fake).upload(image)
    with serve_fake() as other:
        assert connect(other).explain(handle, TEXT).similarity > 0
        assert methods(other) == ["UploadImage", "Explain"]
    assert methods(fake) == ["UploadImage"]


def test_tensor_is_not_uploaded(connect: Any, fake: FakeService) -> None:
    with pytest.raises(m2ib_client.InvalidRequestError, match="a tensor to upload"):
        connect(fake).upload(np.zeros((3, 8, 8), np.float32))
    assert fake.calls == ()


def test_upload_that_fails_is_raised_and_may_be_repeated(connect: Any, fake: FakeService, image: Any) -> None:
    client = connect(fake)
    fake.fail_next(m2ib_client.BusyError("full"))
    with pytest.raises(m2ib_client.BusyError):
        client.upload(image)
    assert client.upload(image).size_bytes > 0


def test_handle_shows_no_bytes_and_survives_the_way_to_another_process(image: Any) -> None:
    handle = ImageHandle.of(b"CANARY")
    assert "CANARY" not in repr(handle)
    copy = pickle.loads(pickle.dumps(handle))  # noqa: S301 - our own bytes
    assert (copy.encoded, copy.sha256) == (handle.encoded, handle.sha256)


def test_threads_that_share_a_forgotten_image_send_it_once(fake: FakeService, image: Any) -> None:
    with Client(fake.address) as client, ThreadPoolExecutor(8) as pool:
        handle = client.upload(image)
        fake.forget_images()
        answers = list(pool.map(lambda seed: client.explain(handle, TEXT, seed=seed), range(8)))
    assert len({answer.similarity for answer in answers}) == 8
    assert methods(fake).count("UploadImage") == 2


async def test_tasks_that_share_a_forgotten_image_send_it_once(fake: FakeService, image: Any) -> None:
    async with AsyncClient(fake.address) as client:
        handle = await client.upload(image)
        fake.forget_images()
        answers = await asyncio.gather(*(client.explain(handle, TEXT, seed=seed) for seed in range(8)))
    assert len({answer.similarity for answer in answers}) == 8
    assert methods(fake).count("UploadImage") == 2


async def test_sender_that_is_cancelled_leaves_the_image_to_the_next(image: Any) -> None:
    async with AsyncClient("127.0.0.1:1") as client:
        handle, began = ImageHandle.of(b"x"), asyncio.Event()
        sent: list[str] = []

        async def send(image: ImageHandle, seconds: float | None) -> str:
            began.set()
            await asyncio.sleep(0.05)
            sent.append("once")
            return "name"

        client._uploads._send = send
        first = asyncio.create_task(client._uploads.name(handle, TimeLeft(None)))
        await began.wait()
        second = asyncio.create_task(client._uploads.name(handle, TimeLeft(None)))
        await asyncio.sleep(0)
        first.cancel()
        assert await second == "name"
        assert sent == ["once"]


def test_waiting_for_anothers_upload_does_not_hold_up_other_images() -> None:
    slow, quick, release = ImageHandle.of(b"slow"), ImageHandle.of(b"quick"), threading.Event()

    def send(image: ImageHandle, seconds: float | None) -> str:
        if image is slow:
            assert release.wait(5)
        return image.sha256

    uploads = Uploads(send)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(uploads.name, slow, TimeLeft(None))
        assert uploads.name(quick, TimeLeft(None)) == quick.sha256
        release.set()
        assert waiting.result(5) == slow.sha256


def test_newer_name_is_not_forgotten_for_an_older_ones_sake() -> None:
    image, names = ImageHandle.of(b"x"), Names()
    names.note(image, "old")
    names.forget(image, "old")
    names.note(image, "new")
    names.forget(image, "old")
    assert names.of(image) == "new"


def test_client_does_not_keep_the_bytes_of_a_dropped_handle(fake: FakeService, image: Any) -> None:
    with Client(fake.address) as client:
        handle = client.upload(image)
        gone = weakref.ref(handle)
        del handle
        gc.collect()
        assert gone() is None


def test_upload_and_call_share_one_timeout(slow_fake: FakeService, image: Any) -> None:
    left = TimeLeft(0.2)
    first = left.seconds()
    assert first is not None
    assert 0.1 < first <= 0.2
    assert TimeLeft(None).seconds() is None
    with Client(slow_fake.address) as client:
        handle = client.upload(image)
        slow_fake.forget_images()
        with pytest.raises(m2ib_client.DeadlineError):
            client.explain(handle, TEXT, steps=100, timeout=0.2)


def test_partial_answer_comes_before_the_deadline(connect: Any, slow_fake: FakeService, image: Any) -> None:
    client = connect(slow_fake)
    answer = client.explain(image, TEXT, steps=100, on_deadline="partial", timeout=1.0)
    assert answer.partial
    assert 1 <= len(answer.image.trace) < 100
    *steps, last = client.explain_stream(image, TEXT, steps=100, on_deadline="partial", timeout=1.0)
    assert last.partial
    assert {step.steps for step in steps} == {100}
    assert max(step.step for step in steps) == len(last.image.trace) < 100
