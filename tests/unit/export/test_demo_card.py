"""The committed model card says what the committed figures say."""

from __future__ import annotations

import json
from pathlib import Path

from m2ib_export.demo import CHECKPOINT
from m2ib_export.demo.card import write_card
from m2ib_export.demo.recipe import RECIPE_FILE, REFERENCE_FILE, write_recipe

DEMO = CHECKPOINT.parent


def test_card_is_made_from_the_figures(tmp_path: Path) -> None:
    write_card(tmp_path / "card.md", DEMO / "evaluation.json", DEMO / "selection.jsonl", CHECKPOINT)
    assert (tmp_path / "card.md").read_text() == (DEMO / "MODEL_CARD.md").read_text()


def test_recipe_and_reference_texts_are_those_of_the_code(tmp_path: Path) -> None:
    write_recipe(tmp_path)
    for name in (RECIPE_FILE, REFERENCE_FILE):
        assert (tmp_path / name).read_text() == (CHECKPOINT / name).read_text()


def test_words_are_explained_with_the_token_mask_in_every_effort_but_the_published_one() -> None:
    efforts = json.loads((CHECKPOINT / RECIPE_FILE).read_text())["defaults"]["efforts"]
    assert set(efforts) == {"fast", "specific", "thorough"}
    assert {(each["mask_shape"], each["text_mask_shape"]) for each in efforts.values()} == {("channel", "token")}
    assert {each["settings"]["text_beta"] for each in efforts.values()} == {0.03}


def test_evaluation_measured_the_recipe() -> None:
    evaluation = json.loads((DEMO / "evaluation.json").read_text())
    recipe = json.loads((CHECKPOINT / RECIPE_FILE).read_text())
    for shape in ("channel", "token"):
        settings = recipe["defaults"][shape]
        for part in ("localisation", "absent_phrase", "two_findings", "wording"):
            assert evaluation[part][shape]["beta"] == settings["beta"]
            assert f"steps_{settings['steps']}" in evaluation[part][shape]


def test_the_control_is_measured_on_the_same_films() -> None:
    evaluation = json.loads((DEMO / "evaluation.json").read_text())
    for name, control in evaluation["absent_phrase"].items():
        for key in (key for key in evaluation["localisation"][name] if key.startswith("steps_")):
            assert control[key]["pointing"]["films"] == evaluation["localisation"][name][key]["pointing"]["films"]
