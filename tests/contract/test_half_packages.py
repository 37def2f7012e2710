"""Packages of half precision: what the exporter writes, and that the server explains with them as with fp32."""

import numpy as np
import onnx
import pytest
import torch
from google.protobuf import json_format
from scipy.stats import spearmanr

from m2ib.v1 import manifest_pb2 as pb
from m2ib_export.demo.batch import normalised
from m2ib_export.demo.corpus import TEST_SEED, render_films
from m2ib_export.demo.finding import ALL_FINDINGS
from m2ib_export.demo.phrase import plain_phrase
from m2ib_server.methods import M2IBSettings, MaskShape, Side, explain
from packages import export
from stages import open_stage

HALVES = ["fp16", "bf16"]
MIN_RANK_CORRELATION = 0.995
FILMS = 4


@pytest.fixture(scope="module", params=HALVES)
def half(request, tiny_checkpoint, tmp_path_factory, kept_packages):
    folder = tmp_path_factory.mktemp("half") / request.param
    flags = ("--name", "tiny", "--version", "1", "--precision", request.param)
    return export(tiny_checkpoint, folder, *flags, kept=kept_packages)


def manifest_of(package):
    return json_format.Parse((package / "manifest.json").read_text(encoding="utf-8"), pb.Manifest())


def maps(package, pairs, seed=1):
    """The server's maps of (pixel values, text) pairs, both sides, on the CPU."""
    stage = open_stage(package)
    model = stage.model
    defaults = model.manifest.defaults.channel
    settings = M2IBSettings(
        beta=defaults.beta,
        text_beta=defaults.text_beta,
        steps=10,
        samples=10,
        learning_rate=1.0,
        mask_shape=MaskShape.CHANNEL,
        text_mask_shape=MaskShape.CHANNEL,
        seed=seed,
    )
    inputs = [
        (model.image_input(pixels), model.text_input(model.tokeniser.encode(text, truncate=False)))
        for pixels, text in pairs
    ]
    try:
        found = stage.run(*(explain(*each, settings, tuple(Side)) for each in inputs))
    finally:
        stage.engine.close()
    return [{side: outcome.course[side][-1].bits.numpy() for side in Side} for outcome in found]


def random_pixels(package):
    vision = manifest_of(package).vision
    shape = (vision.channels, vision.image_size, vision.image_size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(8)).numpy()


def assert_nearly_the_same(ours, plain):
    for side in Side:
        assert np.isfinite(ours[side]).all()
        assert not np.array_equal(ours[side], plain[side])
        largest = np.abs(ours[side] - plain[side]).max()
        assert largest < 0.1 * (plain[side].max() - plain[side].min())


def test_the_manifest_names_the_precision_and_a_portable_file_of_every_graph(half):
    manifest = manifest_of(half)
    listed = {file.name for file in manifest.files}
    assert manifest.precision == half.name
    assert {graph.portable_file for graph in manifest.graphs} <= listed
    assert len({graph.portable_file for graph in manifest.graphs}) == 6


def test_an_fp32_package_has_no_portable_file(tiny_package):
    manifest = manifest_of(tiny_package)
    assert manifest.precision == "fp32"
    assert {graph.portable_file for graph in manifest.graphs} == {""}
    assert not list(tiny_package.glob("*.portable.onnx"))


def test_the_maps_ranks_are_among_the_figures(half):
    thresholds = {figure.name: figure.threshold for figure in manifest_of(half).parity}
    assert thresholds["vision_map.rank"] == thresholds["text_map.rank"] == pytest.approx(1 - MIN_RANK_CORRELATION)


def places(path):
    graph = onnx.load(str(path), load_external_data=False).graph
    found = {i.name: {entry.key: entry.value for entry in i.external_data} for i in graph.initializer}
    return {name: place for name, place in found.items() if place}


@pytest.mark.parametrize("side", ["vision", "text"])
def test_all_graphs_of_a_tail_share_every_weight(half, side):
    tail, *others = (
        places(half / f"{side}_{part}.onnx") for part in ("tail", "tail.portable", "tail_grad", "tail_grad.portable")
    )
    assert tail
    assert all(other == tail for other in others)
    last = max(int(place["offset"]) + int(place["length"]) for place in tail.values())
    assert (half / f"{side}_tail.weights").stat().st_size == last


def test_the_server_explains_with_a_half_package_nearly_as_with_fp32(half, tiny_package):
    pairs = [(random_pixels(half), "a cat and a dog on a red sofa")]
    (ours,), (plain,) = maps(half, pairs), maps(tiny_package, pairs)
    assert_nearly_the_same(ours, plain)
    assert spearmanr(ours[Side.IMAGE], plain[Side.IMAGE]).statistic > MIN_RANK_CORRELATION


def films_with_their_phrases():
    """The first held-out films that show something, each with the phrase for one of its findings."""
    films = render_films(range(TEST_SEED, TEST_SEED + 3 * FILMS))
    pixels = normalised(torch.from_numpy(films.images) / 255).numpy()
    shown = [film for film in range(3 * FILMS) if films.codes[film].max() >= 0]
    assert len(shown) >= FILMS
    for film in shown[:FILMS]:
        yield pixels[film], plain_phrase(ALL_FINDINGS[films.codes[film].max()])


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("precision", HALVES)
def test_maps_of_films_keep_their_order_in_half_precision(demo_package, tmp_path, precision):
    package = export("demo", tmp_path / "demo", "--precision", precision)
    pairs = list(films_with_their_phrases())
    for ours, plain in zip(maps(package, pairs), maps(demo_package, pairs), strict=True):
        assert_nearly_the_same(ours, plain)
        assert spearmanr(ours[Side.IMAGE], plain[Side.IMAGE]).statistic > MIN_RANK_CORRELATION
