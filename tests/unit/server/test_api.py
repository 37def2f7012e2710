import asyncio
import threading

import pytest
import torch
from google.rpc import status_pb2

from m2ib.v1 import attribution_pb2 as pb
from m2ib.v1 import settings_pb2
from m2ib_server.api import answer, request
from m2ib_server.api.feed import MAX_UNREAD, StepFeed
from m2ib_server.engine import Stage
from m2ib_server.imaging import Fit
from m2ib_server.methods import MaskShape, Side, StepDone


def step(number):
    return StepDone(side=Side.IMAGE, step=number, steps=9, loss=0.0, similarity=0.5, repeat_bits=torch.ones(1, 3))


@pytest.mark.parametrize(
    ("table", "values", "unspecified"),
    [
        (request.SIDE_BY_PROTO, settings_pb2.Side.values(), settings_pb2.SIDE_UNSPECIFIED),
        (request.MASK_SHAPE_BY_PROTO, settings_pb2.MaskShape.values(), settings_pb2.MASK_SHAPE_UNSPECIFIED),
        (request.FIT_BY_PROTO, settings_pb2.Fit.values(), settings_pb2.FIT_UNSPECIFIED),
        (request.PRIORITY_BY_PROTO, pb.Priority.values(), pb.PRIORITY_UNSPECIFIED),
    ],
)
def test_every_enum_value_of_the_wire_is_read(table, values, unspecified):
    assert set(table) == set(values) - {unspecified}


def test_every_choice_of_what_happens_at_a_deadline_is_read():
    assert set(request.WANTS_PARTIAL_BY_PROTO) == set(pb.OnDeadline.values())


def test_every_field_and_number_of_a_batch_status_is_that_of_google_rpc_status():
    ours, theirs = pb.RequestStatus.DESCRIPTOR, status_pb2.Status.DESCRIPTOR
    assert [(field.name, field.number, field.type) for field in ours.fields] == [
        (field.name, field.number, field.type) for field in theirs.fields
    ]


def test_every_enum_value_of_the_domain_is_written():
    assert set(answer.PROTO_BY_SIDE) == set(Side)
    assert set(answer.PROTO_BY_MASK_SHAPE) == set(MaskShape)
    assert set(answer.PROTO_BY_FIT) == {None, *Fit}
    for table, written in (
        (request.SIDE_BY_PROTO, answer.PROTO_BY_SIDE),
        (request.MASK_SHAPE_BY_PROTO, answer.PROTO_BY_MASK_SHAPE),
        (request.FIT_BY_PROTO, answer.PROTO_BY_FIT),
    ):
        assert all(written[value] == proto for proto, value in table.items())


def test_every_stage_has_a_timing():
    assert {stage.value for stage in Stage} < {field.name for field in pb.Timings.DESCRIPTOR.fields}


async def test_a_feed_tells_every_step_and_then_ends():
    feed = StepFeed(asyncio.get_running_loop())

    def work():
        for number in range(5):
            feed.put(step(number))
        feed.end()

    threading.Thread(target=work).start()
    assert [told.step async for told in feed.steps()] == [0, 1, 2, 3, 4]


async def test_of_a_feed_that_nobody_reads_the_latest_step_wins():
    feed = StepFeed(asyncio.get_running_loop())
    for number in range(1000):
        feed.put(step(number))
    feed.end()
    await asyncio.sleep(0)
    assert [told.step async for told in feed.steps()] == [999]


async def test_a_reader_that_has_caught_up_is_told_of_every_step_again():
    feed = StepFeed(asyncio.get_running_loop())
    steps = feed.steps()
    for number in range(MAX_UNREAD + 1):
        feed.put(step(number))
    await asyncio.sleep(0)
    assert (await anext(steps)).step == MAX_UNREAD
    waiting = asyncio.create_task(anext(steps))
    await asyncio.sleep(0)
    for number in range(100, 103):
        feed.put(step(number))
    feed.end()
    assert [(await waiting).step, *[told.step async for told in steps]] == [100, 101, 102]


def test_a_feed_whose_loop_has_ended_takes_steps_without_complaint():
    loop = asyncio.new_event_loop()
    feed = StepFeed(loop)
    loop.close()
    feed.put(step(1))
    feed.end()
