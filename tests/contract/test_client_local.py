"""Checks that either client starts the real server by the flags it has, speaks to it, and ends it."""

import numpy as np
import pytest

from m2ib_client import AsyncClient, Client, Explanation, InvalidRequestError, LocalServerError, NotFoundError, Progress

IMAGE = np.random.default_rng(3).integers(0, 255, (40, 48), dtype=np.uint8)
TEXT = "a cat and a dog"


def test_client_of_a_real_private_server(tiny_package):
    with Client.local(models=tiny_package.parent) as client:
        (model,) = client.models()
        assert model == client.model()
        *steps, explanation = client.explain_stream(IMAGE, TEXT, seed=5, outputs=("overlay", "original_map"))
        again = client.explain(IMAGE, TEXT, seed=5, outputs=("original_map",))
        scores = client.score(IMAGE, [TEXT, "a bird"])
        with pytest.raises(NotFoundError) as unknown:
            client.model("another")
        with pytest.raises(InvalidRequestError) as steep:
            client.explain(IMAGE, TEXT, beta=-1)
    assert isinstance(explanation, Explanation)
    assert all(isinstance(step, Progress) for step in steps)
    assert explanation.overlay().size == (48, 40)
    assert np.array_equal(explanation.image.grid_bits, again.image.grid_bits)
    assert [word.text for word in explanation.words] == TEXT.split()
    assert scores.matrix[0, 0] == pytest.approx(explanation.similarity, abs=1e-5)
    assert unknown.value.allowed == model.name
    assert unknown.value.request_id
    assert (steep.value.field, steep.value.reason) == ("settings.beta", "SETTING_OUT_OF_RANGE")
    assert steep.value.seen
    assert steep.value.allowed


async def test_async_client_of_a_real_private_server(tiny_package):
    async with AsyncClient.local(models=tiny_package.parent) as client:
        explanation = await client.explain(IMAGE, TEXT, sides=("text",), steps=2)
    assert explanation.image is None
    assert len(explanation.text.trace) == 2


def test_real_server_without_models_says_why(tmp_path):
    with pytest.raises(LocalServerError, match=r"manifest\.json"):
        Client.local(models=tmp_path)
