"""A reference text ranks as itself: no copy of it in the package counts as a better one."""

import pytest
import torch

from m2ib_server.engine import Engine, Evaluator, FeatureCache, Job, load_model
from m2ib_server.engine.ranking import SAME_WITHIN
from m2ib_server.methods import M2IBSettings, MaskShape, explain
from m2ib_server.package import open_package
from m2ib_server.runtime import DeviceKind, open_device
from m2ib_server.settings import EngineLimits

SETTINGS = M2IBSettings(beta=1, steps=1, samples=1, learning_rate=1, mask_shape=MaskShape.CHANNEL, seed=0)
IMAGES = 4


@pytest.fixture(scope="module", params=["tiny_package", "demo_package"])
def encoded(request):
    """A model, image embeddings [images, width], and similarities [images, texts] of texts encoded one by one."""
    device = open_device(DeviceKind.CPU, threads=2)
    model = load_model(open_package(request.getfixturevalue(request.param)), device)
    engine = Engine(
        Evaluator({model.digest: model}, max_rows=256, cache=FeatureCache(1 << 26)), limits=EngineLimits(), threads=2
    )
    engine.start()
    draw = torch.Generator().manual_seed(1)
    pixels = [torch.randn(model.model_input.shape, generator=draw).numpy() for _ in range(IMAGES)]
    texts = [model.text_input(model.tokeniser.encode(text)) for text in model.references.texts]
    found = [[pair(engine, model, model.image_input(image), text) for text in texts] for image in pixels]
    engine.close()
    similarities = torch.tensor([[attribution.similarity for attribution in row] for row in found])
    return model, [row[0].image_embedding for row in found], similarities


def pair(engine, model, image, text):
    job = Job(explain(image, text, SETTINGS, ()), model=model.digest)
    engine.submit(job)
    return job.reply.result(timeout=60)


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
