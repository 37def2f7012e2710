"""A kept result is verified by the real server: it comes out again, and a forged one does not."""

import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from fakes.dicom_files import dicom_file
from m2ib_client import AsyncClient, Client, NotFoundError
from m2ib_client._cli.app import app
from m2ib_client._cli.exits import ExitCode

TEXT = "a cat and a dog"
OPTIONS = {"model": "tiny", "steps": 3, "samples": 4, "seed": 11}
CLOSE = ("exact", "within_tolerance")  # what else the server computes beside it may round the last bits otherwise


def picture(seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (40, 48), dtype=np.uint8))


@pytest.fixture(scope="module")
def client(server):
    with Client(server.address, timeout=120) as client:
        yield client


@pytest.fixture(scope="module")
def kept(client):
    return client.explain(picture(), TEXT, **OPTIONS)


def test_a_result_comes_out_again(client, kept):
    verification = client.verify(kept.to_json(), picture(), TEXT)
    assert verification.verdict in CLOSE
    assert verification.same_image
    assert verification.same_text
    assert verification.grid.max_abs_difference < 1e-3
    assert verification.grid.rank_correlation > 0.999
    assert verification.provenance_differences == {}
    assert verification.replayed.provenance.settings == kept.provenance.settings


@pytest.mark.parametrize(
    "options",
    [
        {"sides": ("image",), "effort": "fast", "beta": 0.5},
        {"sides": ("text",), "fit": "stretch", "text_mask_shape": "token"},
        {"mask_shape": "token", "repeats": 2, "learning_rate": 0.5},
    ],
    ids=["image", "text", "repeats"],
)
def test_a_result_of_any_settings_comes_out_again(client, options):
    kept = client.explain(picture(3), TEXT, **OPTIONS, **options)
    assert client.verify(kept, picture(3), TEXT).verdict in CLOSE


def test_a_film_s_frame_and_window_and_a_text_that_was_cut_come_out_again(client):
    pixels = np.random.default_rng(5).integers(0, 4096, (3, 32, 40)).astype(np.uint16)
    film = dicom_file(pixels, BitsStored=12, HighBit=11, NumberOfFrames=3)
    text = f"{TEXT} " * 60
    kept = client.explain(film, text, **OPTIONS, frame=2, window=(1500.0, 900.0), truncate_text=True)
    verification = client.verify(kept.to_json(), film, text)
    assert verification.verdict in CLOSE
    assert verification.replayed.provenance.rendering == kept.provenance.rendering


def test_model_input_comes_out_again(client):
    size = client.model("tiny").vision.image_size
    values = np.random.default_rng(0).normal(size=(3, size, size)).astype(np.float32)
    kept = client.explain(values, TEXT, **OPTIONS)
    assert client.verify(kept.to_json(), values, TEXT).verdict in CLOSE


def test_a_map_that_was_tampered_with_differs(client, kept):
    forged = kept.to_dict()
    forged["image"]["grid_bits"][0][0] += 0.5 * float(kept.image.grid_bits.max())
    assert client.verify(forged, picture(), TEXT).verdict == "differs"


def test_another_image_text_or_seed_differs(client, kept):
    image = client.verify(kept, picture(1), TEXT)
    assert (image.verdict, image.same_image, image.same_text) == ("differs", False, True)
    text = client.verify(kept, picture(), "two birds")
    assert (text.verdict, text.same_image, text.same_text) == ("differs", True, False)
    forged = kept.to_dict()
    forged["provenance"]["settings"]["seed"] = 12
    seed = client.verify(forged, picture(), TEXT)
    assert (seed.verdict, seed.same_image, seed.same_text) == ("differs", True, True)


def test_another_model_of_the_same_name_is_refused_with_the_digest_that_is_needed(client, kept):
    other = kept.to_dict()
    other["provenance"]["digest"] = "0" * 64
    with pytest.raises(NotFoundError, match="0" * 64):
        client.verify(other, picture(), TEXT)


async def test_the_asynchronous_client_verifies_too(server, kept):
    async with AsyncClient(server.address, timeout=120) as client:
        assert (await client.verify(kept, picture(), TEXT)).verdict in CLOSE


def test_the_command_verifies_what_the_commands_kept(server, tmp_path):
    picture().save(tmp_path / "film.png")
    (tmp_path / "pairs.csv").write_text(f"id,image,text\nfirst,film.png,{TEXT}\nsecond,film.png,two birds\n")
    film, settings = str(tmp_path / "film.png"), ("--model", "tiny", "--steps", "3", "--samples", "4")
    run = CliRunner()

    def m2ib(*arguments):
        return run.invoke(app, arguments, env={"M2IB_SERVER": server.address})

    explained = m2ib("explain", film, TEXT, "--json", *settings)
    (tmp_path / "kept.json").write_text(explained.stdout)
    done = m2ib("verify", str(tmp_path / "kept.json"), film, TEXT)
    assert done.exit_code in (ExitCode.OK, ExitCode.WITHIN_TOLERANCE), done.output
    assert m2ib("explain-many", str(tmp_path / "pairs.csv"), "--out", str(tmp_path / "out"), *settings).exit_code == 0
    results = str(tmp_path / "out" / "results.jsonl")
    done = m2ib("verify", results, film, "two birds", "--id", "second", "--json")
    assert json.loads(done.stdout)["verdict"] in CLOSE
    assert m2ib("verify", results, film, "two birds", "--id", "first").exit_code == ExitCode.DIFFERS
