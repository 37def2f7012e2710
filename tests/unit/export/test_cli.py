import pytest
from typer.testing import CliRunner

from m2ib_export.__main__ import ExitCode, app, exit_code
from m2ib_export.errors import ExportError, OutputExists, ParityMissed


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_help_explains_every_option():
    answer = run("--help")
    assert answer.exit_code == ExitCode.DONE
    for option in (
        "--vision-layer",
        "--text-layer",
        "--name",
        "--fit",
        "--reference-texts",
        "--precision",
        "--force",
        "--threads",
    ):
        assert option in answer.output


def test_a_checkpoint_that_is_nowhere_ends_with_an_error(tmp_path):
    answer = run(tmp_path / "absent", tmp_path / "package")
    assert answer.exit_code == ExitCode.INVALID_INPUT
    assert "cannot be downloaded" in answer.output
    assert list(tmp_path.iterdir()) == []


def test_an_existing_output_is_refused_before_any_work(tiny_checkpoint, tmp_path):
    answer = run(tiny_checkpoint, tmp_path)
    assert answer.exit_code == ExitCode.OUTPUT_REFUSED
    assert "--force" in answer.output
    assert "Reading" not in answer.output


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (("--vision-layer", "2"), "vision layer: seen 2; allowed with 3 blocks: 0 to 1"),
        (("--fit", "squash"), "fit: seen 'squash'; allowed: letterbox, centre_crop, stretch"),
        (("--name", "Not A Name"), "name: seen 'Not A Name'"),
        (("--reference-texts", "absent.txt"), "reference texts absent.txt: seen FileNotFoundError"),
    ],
)
def test_a_wrong_option_ends_with_seen_and_allowed(tiny_checkpoint, tmp_path, flags, text):
    answer = run(tiny_checkpoint, tmp_path / "package", *flags)
    assert answer.exit_code == ExitCode.INVALID_INPUT
    assert text in answer.output
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_precision_is_no_command_line(tmp_path):
    answer = run(tmp_path, tmp_path / "package", "--precision", "fp8")
    assert answer.exit_code == 2
    assert "fp16" in answer.output


def test_each_kind_of_fault_has_its_exit_code():
    assert exit_code(ParityMissed(["x"])) == ExitCode.PARITY_MISSED
    assert exit_code(OutputExists("x")) == ExitCode.OUTPUT_REFUSED
    assert exit_code(ExportError("x")) == ExitCode.INVALID_INPUT
