import asyncio
import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from m2ib.v1 import attribution_pb2 as pb
from m2ib.v1 import manifest_pb2, settings_pb2
from m2ib_server.api.call import Call
from m2ib_server.api.desk import Desk
from m2ib_server.api.images import ImageReader
from m2ib_server.api.intake import Intake
from m2ib_server.api.pace import AnswerPace
from m2ib_server.api.reception import OpenGate, Reception
from m2ib_server.api.servicer import AttributionServicer
from m2ib_server.api.uploads import UploadStore
from m2ib_server.engine import Fleet
from m2ib_server.errors import (
    HandleUnknown,
    ImageEmpty,
    ImageUndecodable,
    ServerFull,
    ServiceError,
    TensorInvalid,
    UploadStoreFull,
)
from m2ib_server.imaging import ModelInput, Resampling
from m2ib_server.settings import RequestLimits, ServerSettings

MODEL = SimpleNamespace(
    digest="0" * 64,
    model_input=ModelInput(size=8, mean=(0.5,) * 3, std=(0.5,) * 3, resampling=Resampling.BICUBIC),
    manifest=manifest_pb2.Manifest(preprocessing=manifest_pb2.Preprocessing(default_fit=settings_pb2.FIT_STRETCH)),
)
IMAGE_BYTES = 20 * 10 + 4 * 3 * 8 * 8  # of the rendering and of the model's input


def png(seed=0):
    stream = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (10, 20), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


class Reader:
    """An image reader whose slow work is counted, and held back until it is let go."""

    def __init__(self, cache_bytes=1 << 20):
        self.noted = []
        self.jobs = self.decodings = self.decoded = 0
        self.gate = asyncio.Event()
        self.decoders_free = asyncio.Event()
        for gate in (self.gate, self.decoders_free):
            gate.set()
        self.uploads = UploadStore(max_bytes=1 << 20, seconds_to_live=60)
        self.images = ImageReader(
            self.uploads, RequestLimits(), aside=self.aside, decode=self.decode, cache_bytes=cache_bytes
        )

    async def aside(self, work):
        self.jobs += 1
        await self.gate.wait()
        return work()

    async def decode(self, work):
        self.decodings += 1
        await self.decoders_free.wait()
        read = await self.aside(work)
        self.decoded += 1
        return read

    async def decoders(self, count):
        """Hold the decoders back until so many images wait for one."""
        self.decoders_free.clear()
        for _ in range(20):
            await asyncio.sleep(0)
        assert self.decodings == count

    async def read(self, fit=0, **image):
        return await self.images.read(pb.Image(**image), fit, MODEL, self.noted.append)


@dataclass(frozen=True, eq=False)
class Film:
    """Something large that requests share."""

    size_bytes: int


@pytest.fixture
def reader():
    return Reader()


async def test_an_image_that_was_read_lately_is_not_read_again(reader):
    first = await reader.read(encoded=png())
    assert await reader.read(encoded=png()) is first
    assert reader.jobs == 3  # two digests, one reading


async def test_files_are_decoded_on_threads_of_their_own_and_nothing_else_is(reader):
    await reader.read(encoded=png())
    assert (reader.jobs, reader.decodings) == (2, 1)  # the digest is none
    values = np.zeros((3, 8, 8), "<f4")
    await reader.read(tensor=settings_pb2.FloatTensor(shape=values.shape, data=values.tobytes()))
    assert (reader.jobs, reader.decodings) == (4, 1)  # its digest, its values


async def test_the_digest_of_every_image_is_told_even_of_one_that_is_broken(reader):
    tensor = settings_pb2.FloatTensor(shape=(3, 1, 1), data=bytes(12))
    with pytest.raises(ImageUndecodable):
        await reader.read(encoded=b"no image")
    with pytest.raises(TensorInvalid):
        await reader.read(tensor=tensor)
    with pytest.raises(ImageEmpty):
        await reader.read()
    assert reader.noted == [hashlib.sha256(each).hexdigest() for each in (b"no image", tensor.data)]


async def test_what_changes_the_input_is_read_anew(reader):
    different = [
        await reader.read(encoded=png()),
        await reader.read(encoded=png(1)),
        await reader.read(encoded=png(), frame=1),
        await reader.read(encoded=png(), fit=settings_pb2.FIT_LETTERBOX),
    ]
    assert len({id(source) for source in different}) == 4


async def test_requests_that_send_one_image_at_once_read_it_once(reader):
    reader.gate.clear()
    readings = [asyncio.create_task(reader.read(encoded=png())) for _ in range(4)]
    await asyncio.sleep(0)
    reader.gate.set()
    sources = await asyncio.gather(*readings)
    assert len({id(source) for source in sources}) == 1
    assert reader.jobs == 5


async def test_a_caller_that_leaves_takes_nobodys_image_away(reader):
    first = asyncio.create_task(reader.read(encoded=png()))
    for _ in range(3):
        await asyncio.sleep(0)
    second = asyncio.create_task(reader.read(encoded=png()))
    first.cancel()
    assert (await second).sha256


async def test_an_image_that_nobody_waits_for_any_more_is_not_read(reader):
    waiting = [asyncio.create_task(reader.read(encoded=png(seed))) for seed in (0, 0, 1)]
    await reader.decoders(2)
    for task in waiting[:2]:
        task.cancel()
    await asyncio.wait(waiting[:2])
    reader.decoders_free.set()
    assert (await waiting[2]).sha256
    assert reader.decoded == 1


async def test_an_image_that_was_given_up_can_be_asked_for_at_once(reader):
    given_up = asyncio.create_task(reader.read(encoded=png()))
    await reader.decoders(1)
    given_up.cancel()
    asked_again = asyncio.create_task(reader.read(encoded=png()))
    await reader.decoders(2)
    reader.decoders_free.set()
    assert (await asked_again).sha256
    assert given_up.cancelled()
    assert reader.decoded == 1


async def test_images_are_kept_up_to_a_number_of_bytes():
    reader = Reader(cache_bytes=2 * IMAGE_BYTES)
    for seed in range(3):
        await reader.read(encoded=png(seed))
    jobs = reader.jobs
    await reader.read(encoded=png(2))
    assert reader.jobs == jobs + 1
    await reader.read(encoded=png(0))
    assert reader.jobs == jobs + 3


async def test_a_broken_image_fails_every_reader_and_is_not_kept(reader):
    for _ in range(2):
        with pytest.raises(ServiceError):
            await reader.read(encoded=b"no image")


async def test_an_upload_lives_from_its_last_use():
    store = UploadStore(max_bytes=10_000, seconds_to_live=0.2)
    store.reserve(10)
    handle = store.keep(b"0123456789")
    for _ in range(4):
        await asyncio.sleep(0.1)
        assert store.find(handle) == b"0123456789"
    await asyncio.sleep(0.3)
    with pytest.raises(HandleUnknown):
        store.find(handle)
    assert (len(store), store.size_bytes) == (0, 0)


async def test_an_upload_store_takes_no_more_than_it_may():
    store = UploadStore(max_bytes=10_000, seconds_to_live=60)
    store.reserve(6000)
    with pytest.raises(UploadStoreFull, match="6000 of 10000 bytes"):
        store.reserve(4001)
    store.release(6000)
    store.reserve(10_000)
    store.keep(bytes(10_000))
    store.close()
    assert store.size_bytes == 0


def test_the_intake_bounds_requests_and_bytes():
    intake = Intake(max_requests=2, max_bytes=100)
    with intake.place(60) as first:
        with pytest.raises(ServerFull, match="60 of 100 bytes"), intake.place(41):
            pass
        with intake.place(30), pytest.raises(ServerFull, match="2 of 2 requests"), intake.place(1):
            pass
        with intake.place(30), pytest.raises(ServerFull, match="90 of 100 bytes"):
            first.grow(11)
        first.grow(40)
    assert (intake.requests, intake.used_bytes) == (0, 0)
    with intake.place(1000) as alone:  # alone it fits, or it would never be served
        alone.grow(1000)


def test_an_image_that_many_requests_share_is_counted_once():
    intake = Intake(max_requests=9, max_bytes=100)
    film = Film(60)
    with intake.place(10) as first:
        first.share(film)
        with intake.place(10) as second:
            second.share(film)
            assert intake.used_bytes == 80
            with pytest.raises(ServerFull, match="80 of 100 bytes"):
                second.share(Film(60))
        assert intake.used_bytes == 70
    assert (intake.used_bytes, len(intake.everybody.holders)) == (0, 0)


async def test_what_a_score_request_holds_of_its_images_is_counted():
    settings = ServerSettings(models=Path(), listen="", device="cpu", threads=1)
    desk = Desk([], Fleet([]), settings)
    servicer = AttributionServicer(desk, Reception(OpenGate(), []), settings)
    model = SimpleNamespace(**vars(MODEL), image_input=lambda pixel_values: pixel_values)
    call = Call(service="", method="", deadline_ns=None)
    with desk.intake.place(10) as place:
        for seed in range(2):
            await servicer._image_input(pb.Image(encoded=png(seed)), 0, model, call, place)
        assert desk.intake.used_bytes == 10 + 2 * 4 * 3 * 8 * 8
    desk.close()


def test_a_partial_answer_is_asked_for_so_much_earlier_as_answers_take():
    pace = AnswerPace()
    outputs = frozenset({pb.OUTPUT_OVERLAY})
    nothing_known = pace.seconds(outputs, 10, left=60)
    pace.observe(outputs, 100, 2.0)
    pace.observe(outputs, 100, 1.0)
    pace.observe(frozenset(), 100, 0.5)
    assert pace.seconds(outputs, 50, left=60) == pytest.approx(nothing_known + 2.0)
    assert pace.seconds(outputs, 300, left=60) == pytest.approx(nothing_known + 6.0)
    assert pace.seconds(frozenset(), 10**9, left=60) == pytest.approx(nothing_known + 0.5)
    assert pace.seconds(outputs, 10**9, left=60) == 15


def test_even_the_smallest_upload_is_charged_for_what_it_takes():
    store = UploadStore(max_bytes=10_000, seconds_to_live=60)
    for _ in range(2):
        store.reserve(1)
    with pytest.raises(UploadStoreFull):
        store.reserve(1)
