"""A reference text ranks as itself: no copy of it in the package counts as a better one."""

import pytest
import torch

from m2ib_server.engine.ranking import SAME_WITHIN
from m2ib_server.methods import M2IBSettings, MaskShape, explain
from stages import open_stage

SETTINGS = M2IBSettings(
    beta=1,
    text_beta=1,
    steps=1,
    samples=1,
    learning_rate=1,
    mask_shape=MaskShape.CHANNEL,
    text_mask_shape=MaskShape.CHANNEL,
    seed=0,
)
IMAGES = 4


@pytest.fixture(scope="module", params=["tiny_package", "demo_package"])
def encoded(request):
    """A model, image embeddings [images, width], and similarities [images, texts] of texts encoded one by one."""
    stage = open_stage(request.getfixturevalue(request.param))
    model = stage.model
    draw = torch.Generator().manual_seed(1)
    pixels = [torch.randn(model.model_input.shape, generator=draw).numpy() for _ in range(IMAGES)]
    texts = [model.text_input(model.tokeniser.encode(text)) for text in model.references.texts]
    images = [model.image_input(image) for image in pixels]
    found = [stage.run(*(explain(image, text, SETTINGS, ()) for text in texts)) for image in images]
    stage.engine.close()
    similarities = torch.tensor([[attribution.similarity for attribution in row] for row in found])
    return model, [row[0].image_embedding for row in found], similarities


def test_each_reference_text_ranks_behind_the_truly_better_ones_only(encoded):
    model, embeddings, similarities = encoded
    for embedding, row in zip(embeddings, similarities, strict=True):
        for similarity in row:
            better = int((row > similarity + SAME_WITHIN).sum())
            assert model.references.rank(embedding, float(similarity)).rank == 1 + better


def test_the_best_reference_text_ranks_first_as_itself(encoded):
    model, embeddings, similarities = encoded
    for embedding, row in zip(embeddings, similarities, strict=True):
        ranked = model.references.rank(embedding, float(row.max()))
        assert ranked.rank == 1
        assert ranked.best_reference == model.references.texts[int(row.argmax())]


def test_stored_similarities_differ_from_fresh_ones_by_less_than_the_tolerance(encoded):
    model, embeddings, similarities = encoded
    stored = torch.cat(
        [embedding @ torch.from_numpy(model.package.reference_embeddings()).T for embedding in embeddings]
    )
    assert float((stored - similarities).abs().max()) < SAME_WITHIN / 3
