"""Checks `m2ib explain-many`: what it reads, what it writes, and what a second run does."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from typer.testing import CliRunner

from m2ib.v1 import attribution_pb2, settings_pb2
from m2ib_client import AccessError, BusyError, ServerError
from m2ib_client._cli.app import app
from m2ib_client._cli.exits import ExitCode
from m2ib_client.testing import FakeService

Run = Callable[..., Any]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(3):
        noise = np.random.default_rng(number).integers(0, 255, (30, 40), dtype=np.uint8)
        PIL.Image.fromarray(noise).save(tmp_path / f"film{number}.png")
    return tmp_path


@pytest.fixture
def run(fake: FakeService, folder: Path) -> Run:
    def invoke(pairs: str, *arguments: object, name: str = "pairs.csv") -> Any:
        (folder / name).write_text(pairs, encoding="utf-8")
        command = ["explain-many", folder / name, "--out", folder / "out", "--server", fake.address, *arguments]
        return CliRunner().invoke(app, [str(argument) for argument in command])

    return invoke


def lines(folder: Path) -> list[dict[str, Any]]:
    written = (folder / "out" / "results.jsonl").read_text(encoding="utf-8").splitlines()
    return sorted((json.loads(line) for line in written), key=lambda line: (line["image"], line["text"]))


def asked(fake: FakeService) -> list[attribution_pb2.ExplainRequest]:
    return [call.request.request for call in fake.calls if call.method == "ExplainBatch"]  # type: ignore[attr-defined]


def test_every_pair_of_a_csv_has_a_line(run: Run, folder: Path) -> None:
    result = run('image,text,id\nfilm0.png,a nodule,one\nfilm1.png,"left, below",\n')
    assert result.exit_code == ExitCode.OK, result.output
    assert "2 explained, 0 failed, 0 passed over" in result.stderr
    first, second = lines(folder)
    assert (first["id"], first["image"], first["text"]) == ("one", "film0.png", "a nodule")
    assert np.shape(first["explanation"]["image"]["grid_bits"]) == (7, 7)
    assert [word["text"] for word in second["explanation"]["text"]["words"]] == ["left,", "below"]
    assert not (folder / "out" / "overlays").exists()


def test_every_pair_of_json_lines_has_a_line(run: Run, folder: Path) -> None:
    rows = [{"image": str(folder / "film0.png"), "text": "é", "id": 7}, {"text": "b", "image": "film1.png"}]
    text = "\n\n".join(json.dumps(row) for row in rows)
    result = run(text, name="pairs.jsonl")
    assert result.exit_code == ExitCode.OK, result.output
    assert {(line["id"], line["text"]) for line in lines(folder)} == {("7", "é"), ("", "b")}


def test_overlays_are_written_under_safe_names(run: Run, folder: Path) -> None:
    result = run("image,text,id\nfilm0.png,a,../../up\nfilm1.png,b,\n", "--overlays")
    assert result.exit_code == ExitCode.OK, result.output
    places = [line["overlay"] for line in lines(folder)]
    assert places == ["overlays/000001-.._.._up.png", "overlays/000002.png"]
    for place in places:
        with PIL.Image.open(folder / "out" / place) as overlay:
            assert overlay.size == (40, 30)


def test_failed_pairs_have_a_line_and_an_exit_code_of_their_own(run: Run, folder: Path) -> None:
    result = run("image,text\nabsent.png,a\nfilm0.png,b\nfilm1.png, \n")
    assert result.exit_code == ExitCode.SOME_FAILED
    assert "1 explained, 2 failed" in result.stderr
    absent, good, empty = lines(folder)
    assert absent["error"] == {"kind": "FileNotFoundError", "message": "No such file or directory"}
    assert good["explanation"]["similarity"] > 0
    assert (empty["error"]["kind"], empty["error"]["reason"]) == ("InvalidRequestError", "TEXT_EMPTY")


def test_error_of_the_server_keeps_its_request_id(run: Run, fake: FakeService, folder: Path) -> None:
    fake.fail_next_pairs(ServerError("broken", request_id="r-1"))
    assert run("image,text\nfilm0.png,a\n").exit_code == ExitCode.SOME_FAILED
    assert lines(folder)[0]["error"] == {"kind": "ServerError", "message": "broken", "request_id": "r-1"}


def test_second_run_explains_only_what_failed(run: Run, fake: FakeService, folder: Path) -> None:
    pairs = "image,text\nfilm0.png,a\nfilm1.png,b\nlate.png,c\n"
    assert run(pairs).exit_code == ExitCode.SOME_FAILED
    before = len(asked(fake))
    (folder / "film2.png").rename(folder / "late.png")
    result = run(pairs)
    assert result.exit_code == ExitCode.OK
    assert "1 explained, 0 failed, 2 passed over" in result.stderr
    assert len(asked(fake)) == before + 1
    assert all("explanation" in line for line in lines(folder))
    assert len(lines(folder)) == 3


def test_force_explains_again_and_leaves_one_line_each(run: Run, fake: FakeService, folder: Path) -> None:
    pairs = "image,text\nfilm0.png,a\nfilm1.png,b\n"
    run(pairs)
    before = len(asked(fake))
    assert run(pairs, "--force").exit_code == ExitCode.OK
    assert len(asked(fake)) == before + 2
    assert len(lines(folder)) == 2


def test_other_settings_are_another_result(run: Run, folder: Path) -> None:
    pairs = "image,text\nfilm0.png,a\n"
    run(pairs)
    assert "1 explained" in run(pairs, "--effort", "fast").stderr
    assert "0 explained, 0 failed, 1 passed over" in run(pairs, "--effort", "fast", "--priority", "bulk").stderr
    assert [line["options"].get("effort") for line in lines(folder)] == [None, "fast"]


def test_server_that_fails_leaves_the_results_of_before(run: Run, fake: FakeService, folder: Path) -> None:
    pairs = "image,text\nfilm0.png,a\n"
    run(pairs)
    fake.fail_next(AccessError("not you"))
    assert run(pairs, "--force").exit_code == ExitCode.FAULT
    assert "explanation" in lines(folder)[0]


def test_line_that_was_cut_off_is_written_again(run: Run, folder: Path) -> None:
    pairs = "image,text\nfilm0.png,a\nfilm1.png,b\n"
    run(pairs)
    file = folder / "out" / "results.jsonl"
    whole = file.read_text(encoding="utf-8")
    file.write_text(whole[: len(whole) - 40], encoding="utf-8")
    result = run(pairs)
    assert result.exit_code == ExitCode.OK
    assert "1 explained, 0 failed, 1 passed over" in result.stderr
    assert len(lines(folder)) == 2


def test_settings_reach_every_request(run: Run, fake: FakeService) -> None:
    settings = ["--effort", "specific", "--beta", "0.5", "--text-beta", "0.25", "--steps", "3", "--samples", "2"]
    settings += ["--learning-rate", "0.5", "--mask", "token", "--seed", "9", "--repeats", "2"]
    settings += ["--text-mask", "channel"]
    image = ["--fit", "stretch", "--frame", "2", "--window", "-600,1500", "--truncate", "--side", "image"]
    result = run("image,text\nfilm0.png,a\n", *settings, *image, "--priority", "interactive", "--model", "fake")
    assert result.exit_code == ExitCode.OK, result.output
    (sent,) = asked(fake)
    assert sent.settings == settings_pb2.Settings(
        effort=settings_pb2.EFFORT_SPECIFIC,
        beta=0.5,
        text_beta=0.25,
        steps=3,
        samples=2,
        learning_rate=0.5,
        mask_shape=settings_pb2.MASK_SHAPE_TOKEN,
        text_mask_shape=settings_pb2.MASK_SHAPE_CHANNEL,
        seed=9,
        repeats=2,
    )
    assert (sent.fit, sent.image.frame, sent.image.window.width) == (settings_pb2.FIT_STRETCH, 2, 1500)
    assert (sent.truncate_text, list(sent.sides), list(sent.outputs)) == (True, [settings_pb2.SIDE_IMAGE], [])
    assert (sent.priority, sent.model) == (attribution_pb2.PRIORITY_INTERACTIVE, "fake")


def test_busy_server_is_waited_for(run: Run, fake: FakeService) -> None:
    fake.fail_next_pairs(BusyError("full", retry_after_seconds=0.01), times=3)
    assert run("image,text\nfilm0.png,a\nfilm1.png,b\n").exit_code == ExitCode.OK


@pytest.mark.parametrize(
    ("name", "pairs", "told"),
    [
        ("pairs.txt", "image,text\n", ".csv or .jsonl"),
        ("pairs.csv", "image,words\nfilm0.png,SECRET\n", "no column text"),
        ("pairs.csv", "", "no column image and no column text"),
        ("pairs.csv", "image,text\nfilm0.png,SECRET\n,SECRET\n", "line 3"),
        ("pairs.csv", "image,text\nfilm0.png\n", "line 2"),
        ("pairs.jsonl", '{"image": "film0.png", "text": "a"}\nSECRET\n', "line 2"),
        ("pairs.jsonl", '{"image": "SECRET.png"}\n', "line 1"),
        ("pairs.jsonl", '["SECRET.png"]\n', "line 1"),
    ],
)
def test_file_that_cannot_be_meant_is_refused_before_any_work(
    run: Run, fake: FakeService, name: str, pairs: str, told: str
) -> None:
    result = run(pairs, name=name)
    assert result.exit_code == ExitCode.USAGE
    assert told in " ".join(result.stderr.replace("│", " ").split())
    assert "SECRET" not in result.stderr
    assert fake.calls == ()


def test_file_in_another_encoding_is_refused(run: Run, folder: Path, fake: FakeService) -> None:
    (folder / "latin.csv").write_bytes("image,text\nfilm0.png,für\n".encode("latin-1"))
    command = ["explain-many", str(folder / "latin.csv"), "--out", str(folder / "out"), "--server", fake.address]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == ExitCode.USAGE
    assert "UTF-8" in result.stderr


@pytest.mark.parametrize("arguments", [["--overlays", "--side", "text"], ["--local"], ["--effort", "heroic"]])
def test_wrong_command_line_is_a_usage_error(run: Run, fake: FakeService, arguments: list[str]) -> None:
    assert run("image,text\nfilm0.png,a\n", *arguments).exit_code == ExitCode.USAGE
    assert fake.calls == ()


def test_refused_setting_fails_every_pair(run: Run, folder: Path) -> None:
    assert run("image,text\nfilm0.png,a\n", "--steps", 1000).exit_code == ExitCode.SOME_FAILED
    assert lines(folder)[0]["error"]["field"] == "settings.steps"


def test_byte_order_mark_of_a_spreadsheet_is_no_part_of_the_header(run: Run, folder: Path) -> None:
    assert run("\ufeffimage,text\nfilm0.png,a\n").exit_code == ExitCode.OK


def test_no_pairs_are_done_at_once(run: Run, fake: FakeService) -> None:
    assert "0 explained, 0 failed, 0 passed over" in run("image,text\n").stderr
    assert fake.calls == ()
