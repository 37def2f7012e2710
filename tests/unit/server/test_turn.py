import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from m2ib_server.engine.turn import cut, joined, rows_by_role, rows_of
from m2ib_server.methods import Evaluation
from m2ib_server.package import Role


def step_of(*rows):
    """Evaluations whose rows are numbered through all of them."""
    firsts = [sum(rows[:index]) for index in range(len(rows))]
    return [
        Evaluation(role=Role.TEXT_TAIL, inputs={"features": torch.arange(first, first + count)[:, None]}, digest="d")
        for first, count in zip(firsts, rows, strict=True)
    ]


def numbers(parts):
    return [part.inputs["features"].flatten().tolist() for part in parts]


def test_a_step_that_fits_is_one_turn():
    step = step_of(2, 3)
    assert cut(step, start=0, max_rows=5) == step


def test_a_large_step_is_cut_across_its_evaluations():
    step = step_of(2, 5)
    assert numbers(cut(step, start=0, max_rows=3)) == [[0, 1], [2]]
    assert numbers(cut(step, start=3, max_rows=3)) == [[3, 4, 5]]
    assert numbers(cut(step, start=6, max_rows=3)) == [[6]]
    assert cut(step, start=7, max_rows=3) == []


def test_a_part_is_not_taken_for_the_whole():
    whole, part = cut(step_of(2, 5), start=0, max_rows=3)
    assert whole.digest == "d"
    assert part.digest is None


@given(st.lists(st.integers(1, 12), min_size=1, max_size=5), st.integers(1, 16))
def test_the_turns_of_a_step_put_together_are_the_step(rows, max_rows):
    step, answers, done = step_of(*rows), [], 0
    while parts := cut(step, start=done, max_rows=max_rows):
        assert rows_of(parts) <= max_rows
        answers += [(part, (part.inputs["features"], -part.inputs["features"])) for part in parts]
        done += rows_of(parts)
    outputs = joined(step, answers)
    for index, evaluation in enumerate(step):
        assert torch.equal(outputs[2 * index], evaluation.inputs["features"])
        assert torch.equal(outputs[2 * index + 1], -evaluation.inputs["features"])


def test_answers_that_are_missing_are_not_made_up():
    with pytest.raises(StopIteration):
        joined(step_of(2, 3), [(step_of(2)[0], (torch.zeros(2, 1),))])


def test_rows_are_counted_by_graph():
    head = Evaluation(role=Role.VISION_HEAD, inputs={"pixel_values": torch.zeros(1, 3, 4, 4)})
    assert rows_by_role([*step_of(2, 3), head]) == {Role.TEXT_TAIL: 5, Role.VISION_HEAD: 1}
