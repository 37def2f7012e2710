"""What operators do to a server's models, by either shell and by the command line."""

import asyncio
import json

import grpc
import pytest
from typer.testing import CliRunner

from fakes.repository_service import VERSIONS, serve_repository
from m2ib.v1 import model_repository_pb2 as pb
from m2ib_client import AsyncClient, Client, ClosedError, IncompatibleServerError, InvalidRequestError, NotFoundError
from m2ib_client._cli.app import app
from m2ib_client._cli.exits import ExitCode


@pytest.fixture
def service():
    with serve_repository() as running:
        yield running


@pytest.fixture(params=["sync", "async"])
def ask(request, service):
    """Call a method of the repository of the shell under test."""

    async def asked(name, arguments):
        async with AsyncClient(service.address) as client:
            return await getattr(client.repository, name)(*arguments)

    def call(name, *arguments):
        if request.param == "async":
            return asyncio.run(asked(name, arguments))
        with Client(service.address) as client:
            return getattr(client.repository, name)(*arguments)

    return call


def test_versions_are_read_field_by_field(ask, service):
    listing = ask("versions", "tiny")
    first, second = listing.versions
    assert (first.name, first.version, first.state, first.aliases) == ("tiny", "1", "ready", ("champion",))
    assert (first.is_default, first.on_disk, first.memory_bytes) == (True, False, 3 << 20)
    assert (second.state, second.fault, second.digest) == ("unusable", "half of it", "2" * 64)
    assert (listing.used_memory_bytes, listing.allowed_memory_bytes) == (3 << 20, 8 << 20)
    assert json.loads(json.dumps(listing.to_dict()))["versions"][0]["aliases"] == ["champion"]
    assert service.requests == [pb.ListVersionsRequest(name="tiny")]


def test_changes_are_asked_for_as_told_and_their_outcomes_returned(ask, service):
    assert ask("load", "tiny").version == "1"
    assert ask("load", "tiny", "1").version == "1"
    assert [ask("unload", "tiny", version) for version in ("1", "2")] == [True, False]
    assert ask("swap", "tiny", "1")[1] == ("0.9",)
    assert ask("set_alias", "tiny", "champion", "1") == "0.9"
    assert ask("delete_alias", "tiny", "champion") == "1"
    assert service.requests == [
        pb.LoadModelRequest(name="tiny"),
        pb.LoadModelRequest(name="tiny", version="1"),
        pb.UnloadModelRequest(name="tiny", version="1"),
        pb.UnloadModelRequest(name="tiny", version="2"),
        pb.SwapModelRequest(name="tiny", version="1"),
        pb.SetAliasRequest(name="tiny", alias="champion", version="1"),
        pb.DeleteAliasRequest(name="tiny", alias="champion"),
    ]


@pytest.mark.parametrize(
    ("code", "error"),
    [(grpc.StatusCode.FAILED_PRECONDITION, InvalidRequestError), (grpc.StatusCode.NOT_FOUND, NotFoundError)],
)
def test_a_refusal_is_raised_with_its_reason(ask, service, code, error):
    service.refuse_next(code, "MODEL_MEMORY_EXCEEDED", "the model needs 2 bytes and there is 1")
    with pytest.raises(error, match="needs 2 bytes") as caught:
        ask("load", "tiny")
    assert (caught.value.reason, caught.value.request_id) == ("MODEL_MEMORY_EXCEEDED", "some-id")


def test_a_state_of_a_later_server_is_no_guess(ask, service):
    service.listed = [pb.ModelVersion(name="tiny", version="1", state=99)]
    with pytest.raises(IncompatibleServerError, match="state is 99"):
        ask("versions")


def test_an_operator_s_token_goes_along(service, tmp_path):
    with Client(service.address, token="secret") as client:  # noqa: S106 - nobody's
        client.repository.versions()
    assert service.metadata["authorization"] == "Bearer secret"
    service.metadata.clear()

    async def asked():
        async with AsyncClient(service.address, token="secret") as client:  # noqa: S106 - nobody's
            await client.repository.versions()

    asyncio.run(asked())
    assert service.metadata["authorization"] == "Bearer secret"
    (tmp_path / "token").write_text("kept")
    command = ["models", "list", "--token-file", str(tmp_path / "token"), "--server", service.address]
    assert CliRunner().invoke(app, command).exit_code == ExitCode.OK
    assert service.metadata["authorization"] == "Bearer kept"


def test_a_closed_client_asks_nothing(service):
    client = Client(service.address)
    client.close()
    with pytest.raises(ClosedError):
        client.repository.versions()


@pytest.fixture
def run(service):
    def invoke(*arguments):
        return CliRunner().invoke(app, ["models", *arguments], env={"M2IB_SERVER": service.address})

    return invoke


@pytest.mark.parametrize(
    ("arguments", "request_", "said"),
    [
        (["load", "tiny:1"], pb.LoadModelRequest(name="tiny", version="1"), "tiny:1 serves"),
        (["load", "tiny"], pb.LoadModelRequest(name="tiny"), "tiny:1 serves"),
        (["unload", "tiny:1"], pb.UnloadModelRequest(name="tiny", version="1"), "tiny:1 is out of service"),
        (["unload", "tiny:2"], pb.UnloadModelRequest(name="tiny", version="2"), "tiny:2 was not in service"),
        (["swap", "tiny:1"], pb.SwapModelRequest(name="tiny", version="1"), "tiny:1 serves in place of 0.9"),
        (
            ["alias", "tiny@champion", "1"],
            pb.SetAliasRequest(name="tiny", alias="champion", version="1"),
            "tiny@champion leads to 1; before 0.9",
        ),
        (
            ["alias", "tiny@champion", "--delete"],
            pb.DeleteAliasRequest(name="tiny", alias="champion"),
            "tiny@champion leads nowhere; before 1",
        ),
    ],
)
def test_a_command_asks_for_the_change_and_says_what_came_of_it(run, service, arguments, request_, said):
    result = run(*arguments)
    assert (result.exit_code, result.stdout.strip()) == (ExitCode.OK, said), result.output
    assert service.requests == [request_]


def test_the_list_shows_versions_what_leads_to_them_and_the_memory(run):
    lines = run("list").stdout.splitlines()
    assert lines == [
        "tiny:1  ready  3 MiB  @champion  answers to tiny  not in the folder",
        "tiny:2  unusable",
        "  half of it",
        "memory 3 MiB by estimate, of 8 MiB",
    ]
    listed = json.loads(run("list", "tiny", "--json").stdout)
    assert [each["version"] for each in listed["versions"]] == [version.version for version in VERSIONS]


@pytest.mark.parametrize(
    "arguments",
    [
        ["load", ":1"],
        ["load", "tiny:"],
        ["unload", "tiny"],
        ["alias", "tiny", "1"],
        ["alias", "tiny@champion"],
        ["alias", "tiny@champion", "1", "--delete"],
        ["--json", "load", "tiny:1"],
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_asked(run, service, arguments):
    assert run(*arguments).exit_code == ExitCode.USAGE
    assert service.requests == []


def test_a_refusal_is_reported_with_its_code(run, service):
    service.refuse_next(grpc.StatusCode.FAILED_PRECONDITION, "VERSION_ALIASED", "aliases lead to it")
    result = run("unload", "tiny:1")
    assert result.exit_code == ExitCode.INVALID
    assert "aliases lead to it" in result.stderr
    assert "some-id" in result.stderr
