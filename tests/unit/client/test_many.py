"""Holds both shells to what `explain_many` promises, against the fake over a real channel."""

import itertools
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

import m2ib_client
from m2ib_client import (
    ManyProgress,
    Pair,
)
from m2ib_client.testing import FakeService
from pairs import TEXT, films, numbered, sources, uploads


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


def test_answer_does_not_wait_until_all_that_may_be_read_is_read(connect: Any, fake: FakeService) -> None:
    read = list[str]()

    def pairs() -> Iterator[Pair]:
        for pair in numbered(40):
            time.sleep(0.02)
            read.append(pair.id)
            yield pair

    results = connect(fake).explain_many(pairs(), ahead=40)
    assert next(results).index == 0
    assert len(read) < 30
    assert [result.index for result in results] == list(range(1, 40))


def test_image_of_many_texts_is_uploaded_once(connect: Any, fake: FakeService, image: Any) -> None:
    results = list(connect(fake).explain_many((image, f"text {index}") for index in range(10)))
    assert all(result.error is None for result in results)
    assert uploads(fake) == 1
    assert sorted(sources(fake)) == ["encoded"] + ["handle"] * 9


def test_images_that_come_once_are_not_uploaded(connect: Any, fake: FakeService) -> None:
    assert len(list(connect(fake).explain_many(numbered(4)))) == 4
    assert sources(fake) == ["encoded"] * 4


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


def test_bar_loads_rich_for_those_only_who_want_it(fake: FakeService) -> None:
    program = (
        "import sys; from m2ib_client import Client; client = Client(sys.argv[1]); "
        "list(client.explain_many([(b'\\xff\\xd8\\xff', 'a')])); before = 'rich' in sys.modules; "
        "list(client.explain_many([(b'\\xff\\xd8\\xff', 'a')], progress=True)); print(before, 'rich' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program, fake.address], capture_output=True, text=True, check=True)
    assert done.stdout == "False True\n"
