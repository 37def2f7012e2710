import pytest

from m2ib_export.checkpoint import default_name, open_checkpoint, read_config
from m2ib_export.errors import CheckpointInvalid, CheckpointUnreachable


def test_a_directory_is_taken_as_it_is(tmp_path):
    with open_checkpoint(str(tmp_path)) as directory:
        assert directory == tmp_path


def test_demo_is_the_built_in_checkpoint_even_beside_a_directory_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()
    with open_checkpoint("demo") as directory:
        assert read_config(directory)["model_type"] == "clip"


def test_a_file_is_refused(tmp_path):
    file = tmp_path / "model.safetensors"
    file.touch()
    with pytest.raises(CheckpointInvalid, match="allowed: a directory"):
        open_checkpoint(str(file))


def test_what_is_no_directory_and_no_hub_name_is_refused(tmp_path):
    with pytest.raises(CheckpointUnreachable, match="not the form of a hub name"):
        open_checkpoint(str(tmp_path / "absent" / "checkpoint"))


@pytest.mark.parametrize(
    ("content", "seen"),
    [(None, "no such file"), ("{", "JSONDecodeError"), ("[]", "list"), (b"\xff\xfe", "UnicodeDecodeError")],
)
def test_a_broken_config_is_refused(tmp_path, content, seen):
    if content is not None:
        (tmp_path / "config.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(CheckpointInvalid, match=rf"config.json: seen .*{seen}"):
        read_config(tmp_path)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("openai/clip-vit-base-patch32", "clip-vit-base-patch32"),
        ("Some Model (v2)", "some-model-v2"),
        ("x" * 99, "x" * 64),
    ],
)
def test_a_name_is_made_of_the_sources_last_part(source, name):
    assert default_name(source) == name
