"""Static tokens: the file keeps hashes, one line a caller; whoever has the secret is the caller and nobody else."""

import os
import stat

import pytest
from typer.testing import CliRunner

from m2ib_server.__main__ import app
from m2ib_server.access import tokens
from m2ib_server.errors import AccessFileUnusable, CredentialsInvalid

SALT, HASH = "ab" * 16, "cd" * 32


def command(*arguments, **variables):
    return CliRunner(env={"COLUMNS": "300", "NO_COLOR": "1", **variables}).invoke(app, ["token", *arguments])


def test_a_token_is_its_caller_s_and_nobody_else_s():
    viewer, line = tokens.new_token("viewer", ["explain"])
    other, other_line = tokens.new_token("other", ["explain", "admin"])
    lines = {"viewer": line, "other": other_line}
    identity = tokens.identify(viewer, lines)
    assert (identity.name, identity.scopes) == ("token:viewer", {"explain"})
    secret = other.partition(".")[2]
    for wrong in (f"m2ib_viewer.{secret}", viewer[:-1], viewer + "x", "m2ib_viewer", "m2ib_viewer.", "m2ib_nobody.x"):
        with pytest.raises(CredentialsInvalid):
            tokens.identify(wrong, lines)


def test_two_tokens_of_one_caller_have_nothing_in_common():
    (first, one), (second, two) = (tokens.new_token("viewer", ["explain"]) for _ in range(2))
    assert first != second
    assert one.salt != two.salt
    assert one.hashed != two.hashed


def test_the_file_gives_back_what_was_written_and_is_its_owner_s_alone(tmp_path):
    file = tmp_path / "tokens"
    token, line = tokens.new_token("viewer", ["explain", "admin"])
    tokens.write_tokens(file, {"viewer": line})
    assert tokens.read_tokens(file) == {"viewer": line}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert token.partition(".")[2] not in file.read_text()
    file.chmod(0o640)  # an operator's choice, for the server's group
    tokens.write_tokens(file, {})
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert os.listdir(tmp_path) == ["tokens"]


@pytest.mark.parametrize(
    "row",
    [
        f"viewer explain {SALT}",
        f"viewer explain {SALT} {HASH} more",
        f"viewer everything {SALT} {HASH}",
        f"viewer explain, {SALT} {HASH}",
        f"viewer explain {SALT[:-2]} {HASH}",
        f"viewer explain {SALT} {HASH[:-1]}g",
        f"view.er explain {SALT} {HASH}",
        f"viewer explain {SALT} {HASH}\nviewer admin {SALT} {HASH}",
        "Zebrafinch é",
    ],
)
def test_a_line_of_another_form_makes_the_file_unusable_and_is_not_repeated(tmp_path, row):
    file = tmp_path / "tokens"
    file.write_text(f"# a comment\n\n{row}\n")
    with pytest.raises(AccessFileUnusable) as caught:
        tokens.read_tokens(file)
    assert str(file) in str(caught.value)
    for secret in (SALT, HASH[:-2], "Zebrafinch"):
        assert secret not in str(caught.value)


def test_the_command_shows_a_token_once_and_lists_and_removes_callers(tmp_path):
    file = str(tmp_path / "tokens")
    added = command("add", "viewer", "--scope", "explain", M2IB_TOKENS=file)
    assert added.exit_code == 0
    token = added.stdout.strip()
    assert tokens.identify(token, tokens.read_tokens(tmp_path / "tokens")).name == "token:viewer"
    command("add", "ops", "--scope", "explain", "--scope", "admin", "--file", file)
    listed = command("list", "--file", file)
    assert listed.stdout == "viewer\texplain\nops\tadmin,explain\n"
    assert command("remove", "viewer", "--file", file).exit_code == 0
    assert list(tokens.read_tokens(tmp_path / "tokens")) == ["ops"]
    assert command("remove", "viewer", "--file", file).exit_code == 2


def test_a_caller_that_has_a_token_gets_another_only_if_the_old_one_may_end(tmp_path):
    file = str(tmp_path / "tokens")
    first = command("add", "viewer", "--scope", "explain", "--file", file).stdout.strip()
    refused = command("add", "viewer", "--scope", "explain", "--file", file)
    assert refused.exit_code == 2
    assert "--replace" in refused.output
    second = command("add", "viewer", "--scope", "explain", "--file", file, "--replace").stdout.strip()
    lines = tokens.read_tokens(tmp_path / "tokens")
    assert tokens.identify(second, lines).name == "token:viewer"
    with pytest.raises(CredentialsInvalid):
        tokens.identify(first, lines)


@pytest.mark.parametrize("name", ["Zebra Finch", "", "-x", "a" * 65, "é", "a.b"])
def test_a_name_that_could_be_a_sentence_is_refused_and_not_repeated(tmp_path, name):
    refused = command("add", "--scope", "explain", "--file", str(tmp_path / "tokens"), "--", name)
    assert refused.exit_code == 2
    assert "Zebra" not in refused.output
    assert not (tmp_path / "tokens").exists()
