import json

import pytest

from m2ib.v1 import settings_pb2
from m2ib_export.errors import RecipeInvalid
from m2ib_export.recipe import (
    EFFORTS,
    FITS,
    MASK_SHAPES,
    EffortDefaults,
    MaskDefaults,
    Recipe,
    override,
    parse_recipe,
    read_recipe,
)

FULL = {
    "name": "chest",
    "version": "2.1",
    "vision_layer": 4,
    "text_layer": 3,
    "fit": "stretch",
    "defaults": {
        "channel": {"beta": 0.2, "text_beta": 0.4, "steps": 12, "samples": 4, "learning_rate": 0.5},
        "token": {"beta": 1},
        "efforts": {
            "fast": {"mask_shape": "token", "settings": {"steps": 20, "samples": 2}, "repeats": 2},
            "thorough": {
                "mask_shape": "channel",
                "text_mask_shape": "token",
                "settings": {"text_beta": 0.3},
                "repeats": 3,
            },
        },
    },
    "reference_texts": "radiology",
}


def test_a_checkpoint_without_a_recipe_has_the_defaults(tmp_path):
    recipe = read_recipe(tmp_path)
    assert recipe == Recipe()
    assert (recipe.fit, recipe.reference_texts) == ("letterbox", "general")
    assert recipe.channel == MaskDefaults(beta=0.1, text_beta=0.1, steps=10, samples=10, learning_rate=1.0)


def test_every_field_of_a_recipe_is_read():
    assert parse_recipe(FULL) == Recipe(
        name="chest",
        version="2.1",
        vision_layer=4,
        text_layer=3,
        fit="stretch",
        channel=MaskDefaults(beta=0.2, text_beta=0.4, steps=12, samples=4, learning_rate=0.5),
        token=MaskDefaults(beta=1),
        efforts={
            "fast": EffortDefaults(mask_shape="token", settings=MaskDefaults(steps=20, samples=2), repeats=2),
            "thorough": EffortDefaults(
                mask_shape="channel", text_mask_shape="token", settings=MaskDefaults(text_beta=0.3), repeats=3
            ),
        },
        reference_texts="radiology",
    )


def test_options_win_and_unset_ones_do_not():
    recipe = override(parse_recipe(FULL), name="other", version=None, vision_layer=0)
    assert (recipe.name, recipe.version, recipe.vision_layer) == ("other", "2.1", 0)


def test_reference_texts_beside_the_recipe_are_found(tmp_path):
    (tmp_path / "texts.txt").write_text("a cat\n", encoding="utf-8")
    (tmp_path / "m2ib.json").write_text(json.dumps({"reference_texts": "texts.txt"}), encoding="utf-8")
    assert read_recipe(tmp_path).reference_texts == str(tmp_path / "texts.txt")


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ([], "m2ib.json: seen list; allowed: a JSON object"),
        ({"nmae": "x"}, "m2ib.json: seen the field 'nmae'; allowed: name, version"),
        ({"name": "Chest"}, "name: seen 'Chest'; allowed: 1 to 64 of lower-case letters"),
        ({"name": 3}, "name: seen 3; allowed: text"),
        ({"version": "a" * 65}, "version: seen 'aaaa"),
        ({"vision_layer": "9"}, "vision_layer: seen '9'; allowed: a whole number"),
        ({"text_layer": True}, "text_layer: seen True; allowed: a whole number"),
        ({"fit": "crop"}, "fit: seen 'crop'; allowed: letterbox, centre_crop, stretch"),
        ({"defaults": {"efforts": {"quick": {}}}}, "defaults.efforts: seen the field 'quick'; allowed: published"),
        ({"defaults": {"efforts": {"fast": {}}}}, "defaults.efforts.fast.mask_shape: seen 'None'; allowed: channel"),
        (
            {"defaults": {"efforts": {"fast": {"mask_shape": "token", "text_mask_shape": "pixel"}}}},
            "defaults.efforts.fast.text_mask_shape: seen 'pixel'; allowed: channel, token",
        ),
        (
            {"defaults": {"token": {"text_mask_shape": "channel"}}},
            "defaults.token: seen the field 'text_mask_shape'; allowed: beta",
        ),
        (
            {"defaults": {"efforts": {"fast": {"mask_shape": "token", "repeats": 0}}}},
            "defaults.efforts.fast.repeats: seen 0; allowed: a whole number above 0",
        ),
        ({"defaults": {"token": 3}}, "defaults.token: seen int; allowed: a JSON object"),
        ({"defaults": {"token": {"beta": 0}}}, "defaults.token.beta: seen 0; allowed: above 0, at most 100"),
        ({"defaults": {"token": {"beta": float("nan")}}}, "defaults.token.beta: seen nan"),
        ({"defaults": {"channel": {"steps": 1.5}}}, "defaults.channel.steps: seen 1.5; allowed: a whole number"),
        ({"defaults": {"channel": {"learning_rate": 11}}}, "learning_rate: seen 11; allowed: above 0, at most 10"),
    ],
)
def test_a_wrong_recipe_is_refused_with_seen_and_allowed(document, text):
    with pytest.raises(RecipeInvalid) as refused:
        parse_recipe(document)
    assert text in str(refused.value)


def test_a_recipe_that_is_no_json_is_refused(tmp_path):
    (tmp_path / "m2ib.json").write_text("{", encoding="utf-8")
    with pytest.raises(RecipeInvalid, match="a JSON object"):
        read_recipe(tmp_path)


def test_a_manifest_has_every_effort_and_the_recipe_wins():
    efforts = {each.effort: each for each in parse_recipe(FULL).to_defaults().efforts}
    assert set(efforts) == set(EFFORTS.values()) == set(settings_pb2.Effort.values()) - {0}
    assert efforts[settings_pb2.EFFORT_FAST].repeats == 2
    specific = efforts[settings_pb2.EFFORT_SPECIFIC]
    assert (specific.mask_shape, specific.settings.beta) == (settings_pb2.MASK_SHAPE_TOKEN, 1)
    assert efforts[settings_pb2.EFFORT_THOROUGH].repeats > 1
    published = efforts[settings_pb2.EFFORT_PUBLISHED]
    assert published.mask_shape == settings_pb2.MASK_SHAPE_CHANNEL
    assert (published.settings.beta, published.settings.text_beta) == (0.2, 0.4)


def test_a_manifest_says_the_mask_shape_of_each_side_of_every_effort():
    efforts = {each.effort: each for each in parse_recipe(FULL).to_defaults().efforts}
    shapes = {effort: (each.mask_shape, each.text_mask_shape) for effort, each in efforts.items()}
    channel, token = settings_pb2.MASK_SHAPE_CHANNEL, settings_pb2.MASK_SHAPE_TOKEN
    assert shapes == {
        settings_pb2.EFFORT_PUBLISHED: (channel, channel),
        settings_pb2.EFFORT_FAST: (token, token),
        settings_pb2.EFFORT_SPECIFIC: (token, token),
        settings_pb2.EFFORT_THOROUGH: (channel, token),
    }


def test_an_export_compares_the_text_map_of_a_shape_of_its_own_too():
    plans = parse_recipe(FULL).to_plans()
    assert (plans.image.beta, plans.text.beta) == (0.2, 0.4)
    assert plans.image.is_per_channel and plans.text.is_per_channel
    own = plans.text_of_own_shape
    assert (own.beta, own.is_per_channel, own.steps, own.rows) == (0.3, False, 10, 10)
    assert Recipe().to_plans().text_of_own_shape is None


def test_every_fit_and_mask_shape_of_the_contract_has_a_word():
    assert set(FITS.values()) == set(settings_pb2.Fit.values()) - {settings_pb2.FIT_UNSPECIFIED}
    assert set(MASK_SHAPES.values()) == set(settings_pb2.MaskShape.values()) - {settings_pb2.MASK_SHAPE_UNSPECIFIED}
