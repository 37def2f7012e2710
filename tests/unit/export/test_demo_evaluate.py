"""Checks which settings the demo's evaluation measures, and where their figures go."""

from __future__ import annotations

import json
from typing import get_args

import pytest

from m2ib_export.demo import CHECKPOINT
from m2ib_export.demo.__main__ import Part, Setting
from m2ib_export.demo.evaluate import PARTS, plans_of, read_recipe, with_setting


def test_every_mask_shape_is_read_at_ten_and_at_twenty_steps() -> None:
    recipe = read_recipe(CHECKPOINT)
    plans = plans_of(recipe)
    for shape in ("channel", "token"):
        assert plans[shape].mask_shape == shape
        assert plans[shape].beta == recipe["defaults"][shape]["beta"]
    assert {plan.steps for plan in plans.values()} == {(10, 20)}


def test_every_setting_and_part_can_be_named_on_the_command_line() -> None:
    assert set(get_args(Setting)) == set(plans_of(read_recipe(CHECKPOINT)))
    assert get_args(Part) == PARTS


@pytest.mark.parametrize("name", ["token", "new"])
def test_a_setting_measured_anew_leaves_the_other_figures(name: str) -> None:
    figures = {"films": {"mixed": 9}, "wording": {"channel": {"beta": 1.0}, "token": {"beta": 2.0}}}
    before = json.dumps(figures)
    joined = with_setting(figures, name, {"wording": {"beta": 3.0}})
    assert joined["wording"] == figures["wording"] | {name: {"beta": 3.0}}
    assert joined["films"] == figures["films"]
    assert json.dumps(figures) == before
