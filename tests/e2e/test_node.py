"""The wire from another language: the Node client of docs/clients makes every call to the real server."""

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from m2ib.v1 import attribution_pb2, settings_pb2

ROOT = Path(__file__).parents[2]
NODE_CLIENT = ROOT / "docs/clients/node"

pytestmark = [
    pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed"),
    pytest.mark.skipif(
        not (NODE_CLIENT / "node_modules").is_dir(), reason="run `npm ci --prefix docs/clients/node` first"
    ),
]


def node(*arguments):
    return subprocess.run(
        ["node", *map(str, arguments)],  # noqa: S607 - node from the PATH
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    file = tmp_path_factory.mktemp("node") / "film.png"
    noise = np.random.default_rng(3).integers(0, 255, (300, 400), dtype=np.uint8)
    Image.fromarray(noise).save(file)
    assert file.stat().st_size > 2 * 32 * 1024
    return file


@pytest.fixture(scope="module")
def seen(server, picture):
    done = node(ROOT / "tests/node/calls.js", server.address, picture)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_models_and_health(seen):
    assert seen["models"] == ["demo", "tiny"]
    assert seen["health"] == seen["healthOfService"] == "SERVING"


def test_an_explanation_from_node_is_that_from_python(seen, stub, picture):
    settings = settings_pb2.Settings(steps=2, samples=2, seed=2**64 - 1)
    image = attribution_pb2.Image(encoded=picture.read_bytes())
    request = attribution_pb2.ExplainRequest(model="tiny", image=image, text="a cat", settings=settings)
    explanation = stub.Explain(request, timeout=60).explanation
    tensor = explanation.image.grid_bits
    grid = np.frombuffer(tensor.data, "<f4").reshape(tensor.shape)
    np.testing.assert_allclose(seen["explain"]["grid"], grid, rtol=1e-3, atol=1e-3)
    assert seen["explain"]["similarity"] == pytest.approx(explanation.similarity, abs=1e-5)
    assert seen["explain"]["words"] == ["a", "cat"]
    assert seen["explain"]["overlay"] == "PNG"


def test_a_seed_of_64_bits_survives_javascript(seen):
    assert seen["explain"]["seed"] == str(2**64 - 1)


@pytest.mark.parametrize("way", ["handle", "stream", "good", "named"])
def test_every_way_to_ask_gives_the_same_explanation(seen, picture, way):
    other = seen["batch"].get(way) or seen[way]
    np.testing.assert_allclose(other["grid"], seen["explain"]["grid"], rtol=1e-3, atol=1e-3)
    assert other["imageSha256"] == hashlib.sha256(picture.read_bytes()).hexdigest()


def test_progress_comes_step_by_step(seen):
    assert seen["steps"] == [[side, step, 2] for side in ("SIDE_IMAGE", "SIDE_TEXT") for step in (1, 2)]


def test_scores_are_a_row_for_each_image(seen):
    assert np.shape(seen["score"]) == (2, 2)
    assert seen["score"][0] == pytest.approx(seen["score"][1])
    assert seen["score"][0][0] == pytest.approx(seen["explain"]["similarity"], abs=1e-4)


def test_refusals_carry_their_reasons_to_node(seen):
    assert (seen["emptyText"]["code"], seen["emptyText"]["reason"]) == ("INVALID_ARGUMENT", "TEXT_EMPTY")
    assert [at["field"] for at in seen["manySteps"]["violations"]] == ["settings.steps"]
    assert "allowed: " in seen["manySteps"]["violations"][0]["description"]
    assert (seen["noModel"]["code"], seen["noModel"]["reason"]) == ("NOT_FOUND", "MODEL_UNKNOWN")
    assert (seen["noHandle"]["code"], seen["noHandle"]["reason"]) == ("NOT_FOUND", "IMAGE_HANDLE_UNKNOWN")
    assert seen["noModel"]["resource"]
    assert all(seen[name]["requestId"] for name in ("emptyText", "manySteps", "noModel", "noHandle"))
    assert seen["batch"]["bad"] == "TEXT_EMPTY"


def test_a_short_deadline_is_kept(seen):
    assert seen["late"]["code"] == "DEADLINE_EXCEEDED"


def test_the_example_prints_words_and_writes_the_overlay(server, picture, tmp_path, monkeypatch):
    monkeypatch.setenv("M2IB_MODEL", "tiny")
    done = node(NODE_CLIENT / "explain.js", server.address, picture, "a cat", tmp_path / "overlay.png")
    assert done.returncode == 0, done.stderr
    similarity, patch, *words = done.stdout.splitlines()
    assert similarity.startswith("similarity ")
    assert "bits around pixel (" in patch
    assert [line.split()[-1] for line in words] == ["a", "cat"]
    with Image.open(tmp_path / "overlay.png") as overlay:
        assert overlay.size == (400, 300)


def test_the_example_says_what_the_server_refused(server, picture):
    done = node(NODE_CLIENT / "explain.js", server.address, picture, "a cat")
    assert done.returncode == 1
    assert done.stderr.startswith("NOT_FOUND MODEL_UNKNOWN: ")  # it has two models
