"""What a request leaves unset is taken from its effort or from the package, each side by its own mask shape."""

from types import SimpleNamespace

import pytest

from m2ib.v1 import manifest_pb2, settings_pb2
from m2ib_server.api.answer import write_settings
from m2ib_server.api.request import read_settings
from m2ib_server.errors import InvalidField
from m2ib_server.methods import MaskShape, Side
from m2ib_server.settings import RequestLimits

UNSAID, CHANNEL, TOKEN = 0, settings_pb2.MASK_SHAPE_CHANNEL, settings_pb2.MASK_SHAPE_TOKEN
PUBLISHED, FAST, SPECIFIC = (settings_pb2.EFFORT_PUBLISHED, settings_pb2.EFFORT_FAST, settings_pb2.EFFORT_SPECIFIC)
LIMITS = RequestLimits()


def defaults(beta, text_beta, steps):
    return manifest_pb2.MaskDefaults(beta=beta, text_beta=text_beta, steps=steps, samples=2, learning_rate=1.0)


def effort(name, mask_shape, text_mask_shape, settings):
    return manifest_pb2.EffortDefaults(
        effort=name, mask_shape=mask_shape, text_mask_shape=text_mask_shape, settings=settings, repeats=1
    )


MODEL = SimpleNamespace(
    manifest=manifest_pb2.Manifest(
        defaults=manifest_pb2.Defaults(
            channel=defaults(1.0, 0.25, 10),
            token=defaults(2.0, 0.5, 20),
            efforts=[
                effort(PUBLISHED, CHANNEL, UNSAID, defaults(1.0, 0.25, 10)),  # as packages were written before
                effort(FAST, TOKEN, TOKEN, defaults(4.0, 0.75, 5)),
                effort(SPECIFIC, CHANNEL, TOKEN, defaults(8.0, 0.125, 15)),
            ],
        )
    )
)


def read(**asked):
    return read_settings(settings_pb2.Settings(**asked), MODEL, LIMITS)


def shapes(settings):
    proto = {MaskShape.CHANNEL: CHANNEL, MaskShape.TOKEN: TOKEN}
    return tuple(proto[settings.mask_shape_of(side)] for side in Side)


@pytest.mark.parametrize(
    ("effort", "asked", "used"),
    [
        (PUBLISHED, {}, (CHANNEL, CHANNEL)),
        (PUBLISHED, {"mask_shape": TOKEN}, (TOKEN, TOKEN)),
        (PUBLISHED, {"text_mask_shape": TOKEN}, (CHANNEL, TOKEN)),
        (PUBLISHED, {"mask_shape": TOKEN, "text_mask_shape": CHANNEL}, (TOKEN, CHANNEL)),
        (FAST, {}, (TOKEN, TOKEN)),
        (FAST, {"text_mask_shape": CHANNEL}, (TOKEN, CHANNEL)),
        (SPECIFIC, {}, (CHANNEL, TOKEN)),
        (SPECIFIC, {"mask_shape": CHANNEL}, (CHANNEL, CHANNEL)),
        (SPECIFIC, {"mask_shape": TOKEN}, (TOKEN, TOKEN)),
        (SPECIFIC, {"text_mask_shape": CHANNEL}, (CHANNEL, CHANNEL)),
        (SPECIFIC, {"text_mask_shape": UNSAID}, (CHANNEL, TOKEN)),
        (SPECIFIC, {"mask_shape": TOKEN, "text_mask_shape": UNSAID}, (TOKEN, TOKEN)),
    ],
)
def test_the_texts_shape_is_the_requests_own_then_its_mask_shape_then_the_efforts(effort, asked, used):
    assert shapes(read(effort=effort, **asked)) == used


@pytest.mark.parametrize(
    ("effort", "asked", "used"),
    [
        (PUBLISHED, {}, (1.0, 0.25, 10)),
        (PUBLISHED, {"mask_shape": TOKEN}, (2.0, 0.5, 20)),
        (PUBLISHED, {"text_mask_shape": TOKEN}, (1.0, 0.5, 10)),
        (PUBLISHED, {"mask_shape": TOKEN, "text_mask_shape": CHANNEL}, (2.0, 0.25, 20)),
        (SPECIFIC, {}, (8.0, 0.125, 15)),
        (SPECIFIC, {"text_mask_shape": TOKEN}, (8.0, 0.125, 15)),
        (SPECIFIC, {"mask_shape": CHANNEL}, (8.0, 0.25, 15)),
        (SPECIFIC, {"mask_shape": CHANNEL, "text_mask_shape": TOKEN}, (8.0, 0.125, 15)),
        (SPECIFIC, {"text_mask_shape": CHANNEL}, (8.0, 0.25, 15)),
        (SPECIFIC, {"mask_shape": TOKEN}, (2.0, 0.125, 20)),
        (SPECIFIC, {"beta": 3.0}, (3.0, 3.0, 15)),
        (SPECIFIC, {"text_mask_shape": CHANNEL, "text_beta": 0.0625}, (8.0, 0.0625, 15)),
    ],
)
def test_what_is_unset_is_the_efforts_on_a_side_with_its_shape_and_else_the_packages(effort, asked, used):
    settings = read(effort=effort, **asked)
    assert (settings.beta_of(Side.IMAGE), settings.beta_of(Side.TEXT), settings.steps) == used


def test_a_shape_that_is_none_is_refused_by_its_own_name():
    with pytest.raises(InvalidField, match=r"settings\.text_mask_shape"):
        read(text_mask_shape=7)
    with pytest.raises(InvalidField, match=r"settings\.mask_shape"):
        read(mask_shape=7)


def test_the_settings_in_force_say_the_shape_of_each_side():
    written = write_settings(read(effort=SPECIFIC), SPECIFIC)
    assert (written.mask_shape, written.text_mask_shape) == (CHANNEL, TOKEN)
    assert read_settings(written, MODEL, LIMITS) == read(effort=SPECIFIC)
    assert write_settings(read(), PUBLISHED).text_mask_shape == CHANNEL


def test_requests_that_differ_in_the_texts_shape_alone_share_no_computation():
    assert read() == read(text_mask_shape=CHANNEL)
    assert read() != read(text_mask_shape=TOKEN, text_beta=0.25)  # the settings are in the key of single flight
