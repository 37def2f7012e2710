"""Checks the command `m2ib`: what it prints where, what it writes, and with which code it ends."""

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from rich.console import Console
from typer.testing import CliRunner

from m2ib_client import M2IBError, Span, Word, _errors
from m2ib_client._answer import read_explanation
from m2ib_client._channel import MAX_ATTEMPTS
from m2ib_client._cli import report
from m2ib_client._cli.app import app
from m2ib_client._cli.exits import EXIT_BY_ERROR, EXIT_CODES_HELP, ExitCode, fault_lines
from m2ib_client._request import explain_request
from m2ib_client.testing import FakeService, _answers, _model

TEXT = "an opacity in the left lung"
Run = Callable[..., Any]


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    file = tmp_path / "film.png"
    PIL.Image.fromarray(np.random.default_rng(2).integers(0, 255, (30, 40), dtype=np.uint8)).save(file)
    return file


@pytest.fixture
def run(fake: FakeService) -> Run:
    def invoke(*arguments: object, server: str | None = fake.address, **variables: str) -> Any:
        address = {"M2IB_SERVER": server} if server else {}
        return CliRunner().invoke(app, [str(argument) for argument in arguments], env={**address, **variables})

    return invoke


def explained(rank: int = 1, **options: Any) -> Any:
    request = explain_request(np.zeros((30, 40), np.uint8), TEXT, **options)
    message = _answers.fake_explanation(request, _model.fake_model("fake"))
    message.reference_rank.rank = rank
    return read_explanation(message)


def printed(lines: Any, **console: Any) -> str:
    out = io.StringIO()
    terminal = Console(file=out, soft_wrap=True, highlight=False, **console)
    for line in lines:
        terminal.print(line)
    return out.getvalue()


def test_explain_reports_words_similarity_and_origin(run: Run, picture: Path) -> None:
    result = run("explain", picture, TEXT)
    assert result.exit_code == ExitCode.OK
    for word in TEXT.split():
        assert f"  {word:<7}  " in result.stdout
    assert "bits" in result.stdout
    assert "similarity 0." in result.stdout
    assert "of 200 reference texts match this image better" in result.stdout
    assert "fake 1 on cpu: m2ib, effort published, mask channel, beta 0.1 (text 0.1), 10 steps" in result.stdout
    assert result.stderr == ""


def test_explain_tells_of_two_mask_shapes_where_there_are_two(run: Run, picture: Path) -> None:
    mixed = run("explain", picture, TEXT, "--effort", "specific").stdout
    assert "effort specific, mask channel (text token), beta 5 (text 0.3), 20 steps" in mixed
    one = run("explain", picture, TEXT, "--effort", "specific", "--text-mask", "channel").stdout
    assert "effort specific, mask channel, beta 5 (text 0.1), 20 steps" in one


def test_words_with_hardly_a_bit_are_told_apart() -> None:
    words = [Word(text="mid", span=Span(0, 3), bits=0.0041, normalised=0.0)]
    words.append(Word(text="mass", span=Span(4, 8), bits=0.0312, normalised=1.0))
    assert [line.plain for line in report.word_lines(words)] == [
        "  mid      0.004 bits",
        "  mass     0.031 bits  ####################",
    ]


def test_explain_writes_the_overlay(run: Run, picture: Path, tmp_path: Path) -> None:
    result = run("explain", picture, TEXT, "--overlay", tmp_path / "out.png")
    assert result.exit_code == ExitCode.OK
    assert f"overlay written to {tmp_path / 'out.png'}" in result.stderr
    with PIL.Image.open(tmp_path / "out.png") as overlay:
        assert overlay.size == (40, 30)


def test_json_is_alone_on_the_standard_output(run: Run, picture: Path, tmp_path: Path) -> None:
    result = run("explain", picture, TEXT, "--json", "--overlay", tmp_path / "out.png")
    answer = json.loads(result.stdout)
    assert np.shape(answer["image"]["grid_bits"]) == (7, 7)
    assert [word["text"] for word in answer["text"]["words"]] == TEXT.split()
    assert len(answer["text"]["tokens"]) == 8
    assert {"similarity", "reference_rank", "provenance", "timings"} <= set(answer)


def test_explain_passes_every_setting_on(run: Run, fake: FakeService, picture: Path) -> None:
    settings = ["--mask", "token", "--beta", "0.5", "--steps", "3", "--samples", "2", "--learning-rate", "0.25"]
    settings += ["--effort", "thorough", "--text-beta", "0.125", "--repeats", "3", "--text-mask", "channel"]
    image = ["--fit", "stretch", "--frame", "2", "--window", "-600,1500", "--seed", "9", "--truncate"]
    how = ["--priority", "bulk", "--on-deadline", "partial"]
    result = run("explain", picture, TEXT, "--side", "image", "--model", "fake", *settings, *image, *how, "--json")
    assert result.exit_code == ExitCode.OK, result.output
    sent = fake.calls[0].request.request  # type: ignore[attr-defined]
    expected = explain_request(
        picture,
        TEXT,
        model="fake",
        sides=("image",),
        effort="thorough",
        mask_shape="token",
        text_mask_shape="channel",
        beta=0.5,
        text_beta=0.125,
        repeats=3,
        priority="bulk",
        on_deadline="partial",
        steps=3,
        samples=2,
        learning_rate=0.25,
        seed=9,
        fit="stretch",
        frame=2,
        window=(-600, 1500),
        truncate_text=True,
        outputs=(),
    )
    assert sent == expected


def test_score_prints_a_line_per_pair(run: Run, picture: Path) -> None:
    result = run("score", picture, picture, "--text", "a", "--text", "b c")
    assert result.exit_code == ExitCode.OK
    assert result.stdout.count(str(picture)) == 2
    assert result.stdout.count("  b c\n") == 2


def test_score_as_json_names_rows_and_columns(run: Run, picture: Path) -> None:
    answer = json.loads(run("score", picture, "--text", "a", "--text", "b c", "--json").stdout)
    assert answer["images"] == [str(picture)]
    assert answer["texts"] == ["a", "b c"]
    assert np.shape(answer["matrix"]) == (1, 2)


def test_models_are_described(run: Run) -> None:
    result = run("models")
    assert result.exit_code == ExitCode.OK
    assert "fake 1" in result.stdout
    assert "patches 7 x 7" in result.stdout
    assert (
        "effort fast: mask token, beta 0.2 (text 0.1), 4 steps, 4 samples, learning rate 1, 1 repeat" in result.stdout
    )
    assert "effort specific: mask channel (text token), beta 5 (text 0.3), 20 steps" in result.stdout
    assert json.loads(run("models", "--json").stdout)[0]["limits"]["max_steps"] == 100


def test_every_exception_has_an_exit_code() -> None:
    kinds = {kind for kind in vars(_errors).values() if isinstance(kind, type) and issubclass(kind, M2IBError)}
    assert set(EXIT_BY_ERROR) == kinds


def test_every_exit_code_is_explained() -> None:
    assert all(f"{code.value} " in EXIT_CODES_HELP for code in ExitCode)


@pytest.mark.parametrize(
    ("error", "code", "hint"),
    [
        (_errors.ServerError("broken", request_id="r-1"), ExitCode.FAULT, "request r-1"),
        (_errors.InvalidRequestError("text: too long"), ExitCode.INVALID, "text: too long"),
        (_errors.NotFoundError("no such model"), ExitCode.NOT_FOUND, "no such model"),
        (_errors.BusyError("full", retry_after_seconds=0.2), ExitCode.UNAVAILABLE, "Try again in 0.2 s"),
        (_errors.DeadlineError("late"), ExitCode.DEADLINE, "--timeout"),
    ],
)
def test_fault_is_told_on_the_standard_error(
    run: Run, fake: FakeService, picture: Path, error: M2IBError, code: ExitCode, hint: str
) -> None:
    for arguments in (["explain", picture, TEXT], ["score", picture, "--text", TEXT], ["models"]):
        fake.fail_next(error, times=MAX_ATTEMPTS if isinstance(error, _errors.TransientError) else 1)
        result = run(*arguments)
        assert result.exit_code == code
        assert hint in result.stderr
        assert "Traceback" not in result.stderr
        assert result.stdout == ""


def test_absent_server_is_unavailable_and_says_what_to_do(run: Run) -> None:
    result = run("models", server="127.0.0.1:1")
    assert result.exit_code == ExitCode.UNAVAILABLE
    assert "--server" in result.stderr


def test_refused_setting_is_invalid(run: Run, picture: Path) -> None:
    result = run("explain", picture, TEXT, "--steps", 1000)
    assert result.exit_code == ExitCode.INVALID
    assert "settings.steps: seen 1000; allowed: 1 to 100" in result.stderr


def test_what_is_no_image_is_invalid(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("nothing to see")
    assert run("explain", file, TEXT).exit_code == ExitCode.INVALID


@pytest.mark.parametrize(
    "arguments",
    [
        ["explain"],
        ["explain", "absent.png", TEXT],
        ["explain", "FILM", TEXT, "--overlay", "out.jpg"],
        ["explain", "FILM", TEXT, "--overlay", "no-such-folder/out.png"],
        ["explain", "FILM", TEXT, "--overlay", "out.png", "--side", "text"],
        ["explain", "FILM", TEXT, "--mask", "pixel"],
        ["explain", "FILM", TEXT, "--text-mask", "pixel"],
        ["explain", "FILM", TEXT, "--side", "sound"],
        ["explain", "FILM", TEXT, "--window", "40"],
        ["explain", "FILM", TEXT, "--window", "a,b"],
        ["explain", "FILM", TEXT, "--frame", "0"],
        ["explain", "FILM", TEXT, "--local"],
        ["score", "FILM"],
        ["models", "--max-message-mebibytes", "1025"],
        ["models", "--models", "."],
        ["models", "--device", "cuda"],
        ["models", "--local", "--models", ".", "--server", "127.0.0.1:1"],
        ["absent"],
    ],
    ids=lambda arguments: " ".join(arguments[-3:]),
)
def test_wrong_command_line_is_a_usage_error(run: Run, fake: FakeService, picture: Path, arguments: Any) -> None:
    result = run(*(picture if argument == "FILM" else argument for argument in arguments))
    assert result.exit_code == ExitCode.USAGE
    assert fake.calls == ()


def test_address_of_the_command_line_overrides_the_variable(run: Run, fake: FakeService) -> None:
    assert run("models", "--server", fake.address, server="127.0.0.1:1").exit_code == ExitCode.OK


def test_message_limit_comes_from_the_flag_or_the_variable(run: Run, tmp_path: Path) -> None:
    film = tmp_path / "large.png"
    film.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(1 << 20))
    for result in (
        run("explain", film, TEXT, "--max-message-mebibytes", "1"),
        run("explain", film, TEXT, M2IB_MAX_MESSAGE_MEBIBYTES="1"),
    ):
        assert result.exit_code == ExitCode.INVALID
        assert "at most 1048576 bytes" in result.stderr
    assert "at most" not in run("explain", film, TEXT).stderr


def test_address_that_is_none_is_invalid(run: Run) -> None:
    assert run("models", "--server", "nowhere").exit_code == ExitCode.INVALID


def test_overlay_that_cannot_be_written_is_a_fault(run: Run, picture: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "blocked.png"
    blocked.symlink_to(tmp_path / "absent" / "film.png")
    result = run("explain", picture, TEXT, "--overlay", blocked)
    assert result.exit_code == ExitCode.FAULT
    assert "No such file" in result.stderr


@pytest.mark.parametrize(("rank", "is_warned"), [(1, False), (51, False), (52, True), (201, True)])
def test_poor_rank_is_warned_of(rank: int, is_warned: bool) -> None:
    told = printed(report.explanation_lines(explained(rank), TEXT))
    assert ("may not fit the image" in told) == is_warned


def test_repeated_explanation_tells_its_stability(run: Run, picture: Path) -> None:
    result = run("explain", picture, TEXT, "--repeats", 3)
    assert (
        "mean of 3 repeats; stability (rank correlation between them, at most 1): image 0.90, text 0.80"
        in result.stdout
    )
    assert "stability" not in run("explain", picture, TEXT).stdout


def test_partial_explanation_tells_how_far_it_came() -> None:
    request = explain_request(np.zeros((9, 9), np.uint8), TEXT, sides=("image",))
    message = _answers.fake_explanation(request, _model.fake_model("fake"), steps=4)
    told = printed(report.explanation_lines(read_explanation(message), TEXT))
    assert "the deadline ended this early, the map is the best so far: image 4 of 10 steps" in told
    message.ClearField("image")
    assert "no step done" in printed(report.explanation_lines(read_explanation(message), TEXT))
    assert "deadline" not in printed(report.explanation_lines(explained(), TEXT))


def test_words_are_coloured_by_their_share_on_a_terminal() -> None:
    explanation = explained()
    told = printed([report.coloured(TEXT, explanation.words)], force_terminal=True, color_system="truecolor")
    strongest = max(explanation.words, key=lambda word: word.normalised)
    assert f"\x1b[30;48;2;255;140;0m{strongest.text}\x1b[0m" in told
    weakest = min(explanation.words, key=lambda word: word.normalised)
    assert f"\x1b[30;48;2;255;255;255m{weakest.text}\x1b[0m" in told


def test_report_without_colours_is_plain_text() -> None:
    told = printed(report.explanation_lines(explained(201), TEXT), no_color=True)
    assert "\x1b" not in told
    assert f"\n{TEXT}\n" in told


def test_text_is_never_read_as_markup() -> None:
    text = "[red]left[/red] lung [/]"
    request = explain_request(np.zeros((9, 9), np.uint8), text)
    explanation = read_explanation(_answers.fake_explanation(request, _model.fake_model("fake")))
    assert f"\n{text}\n" in printed(report.explanation_lines(explanation, text))


def test_truncated_text_is_warned_of() -> None:
    request = explain_request(np.zeros((9, 9), np.uint8), TEXT)
    message = _answers.fake_explanation(request, _model.fake_model("fake"))
    message.provenance.text_length.tokens_given = 90
    told = printed(report.explanation_lines(read_explanation(message), TEXT))
    assert "the text was cut, 8 of its 90 tokens" in told


def test_faults_quote_no_more_than_the_error() -> None:
    assert list(fault_lines(_errors.M2IBError("what"))) == ["m2ib: what"]


def test_module_runs_as_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "m2ib_client", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == "m2ib 0.1.0\n"


@pytest.mark.parametrize("command", [[], ["explain"], ["explain-many"], ["score"], ["models"]])
def test_help_explains_itself(run: Run, command: list[str]) -> None:
    result = run(*command, "--help", COLUMNS="120")
    assert result.exit_code == ExitCode.OK
    assert "Exit codes" in result.stdout
