"""What `make fuzz` feeds is in order: its seeds get through, and what is broken is told from what is not."""

import pytest

from fuzz.targets import Images, Messages


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
