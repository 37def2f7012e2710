import pytest

from m2ib_export.errors import LayerOutOfRange
from m2ib_export.geometry import Geometry, Layers, TextGeometry, VisionGeometry, default_layer, resolve_layers

GEOMETRY = Geometry(
    embedding_width=16,
    vision=VisionGeometry(depth=12, width=32, image_size=224, patch_size=32, leading_tokens=1, channels=3),
    text=TextGeometry(depth=6, width=24, context_length=77, vocabulary_size=400),
)


@pytest.mark.parametrize(
    ("depth", "layer"), [(2, 0), (3, 1), (6, 4), (8, 6), (9, 6), (12, 9), (24, 19), (32, 26), (48, 39)]
)
def test_default_layer_keeps_the_papers_share(depth, layer):
    assert default_layer(depth) == layer


def test_unset_layers_are_the_papers():
    assert resolve_layers(GEOMETRY, vision=None, text=None) == Layers(vision=9, text=4)


@pytest.mark.parametrize("layer", [0, 10])
def test_a_layer_with_a_block_behind_it_is_taken(layer):
    assert resolve_layers(GEOMETRY, vision=layer, text=0) == Layers(vision=layer, text=0)


@pytest.mark.parametrize("layer", [-1, 11, 12])
def test_a_layer_without_a_block_behind_it_is_refused(layer):
    with pytest.raises(LayerOutOfRange, match=rf"vision layer: seen {layer}; allowed with 12 blocks: 0 to 10"):
        resolve_layers(GEOMETRY, vision=layer, text=None)


def test_an_encoder_of_one_block_has_no_place_for_a_bottleneck():
    with pytest.raises(LayerOutOfRange, match="allowed with 1 blocks: none"):
        raise LayerOutOfRange("text", layer=0, depth=1)


def test_grid_and_tokens_follow_from_the_sizes():
    assert (GEOMETRY.vision.grid, GEOMETRY.vision.tokens) == (7, 50)
