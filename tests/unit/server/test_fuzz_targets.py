"""What `make fuzz` feeds is in order: its seeds get through, and what is broken is told from what is not."""

import pytest

from fuzz.targets import Changes, Images, Inferences, Messages
from good_calls import infer


@pytest.fixture(scope="module")
def messages(tiny_package):
    target = Messages(tiny_package.parent)
    yield target
    target.close()


def test_the_seeds_of_images_are_images_and_their_heads_are_none():
    target = Images()
    seeds = list(target.seeds())
    assert all(target.feed(seed) for seed in seeds)
    assert not any(target.feed(seed[:40]) for seed in seeds)


def test_the_seeds_of_messages_are_good_calls_of_every_method(messages):
    seeds = list(messages.seeds())
    assert [seed[0] for seed in seeds] == list(range(7))
    assert [messages.feed(seed) for seed in seeds] == ["OK"] * 7


def test_broken_messages_are_refused(messages):
    assert messages.feed(b"") == messages.feed(b"\0") == "INVALID_ARGUMENT"  # of Explain, with nothing in it
    assert messages.feed(b"\0\xff") == "INVALID_ARGUMENT"
    assert messages.feed(b"\6\x0a\4none") == "NOT_FOUND"


@pytest.fixture(scope="module")
def inferences(tiny_package):
    target = Inferences(tiny_package.parent)
    yield target
    target.close()


@pytest.fixture(scope="module")
def changes(tiny_package):
    target = Changes(tiny_package.parent)
    yield target
    target.close()


def test_the_seeds_of_inferences_are_good_calls_of_every_method_that_is_offered(inferences):
    ended = {status: [] for status in ("OK", "UNIMPLEMENTED")}
    for seed in inferences.seeds():
        ended[inferences.feed(seed)].append(seed[0])
    assert (len(ended["OK"]), len(ended["UNIMPLEMENTED"])) == (10, 10)


def test_an_element_that_overruns_is_refused(inferences):
    method = next(index for index, each in enumerate(inferences.service.methods) if each.name == "ModelInfer")
    request = infer()
    request.raw_input_contents[1] = b"\xff\xff\0\0" + request.raw_input_contents[1][4:]
    assert inferences.feed(bytes([method]) + infer().SerializeToString()) == "OK"
    assert inferences.feed(bytes([method]) + request.SerializeToString()) == "INVALID_ARGUMENT"


def test_the_seeds_of_changes_are_good_calls_of_every_method_in_any_order(changes):
    seeds = list(changes.seeds())
    assert [changes.feed(seed) for seed in (*seeds, *reversed(seeds))] == ["OK"] * 12
