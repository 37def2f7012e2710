"""The model repository under broken requests: versions come and go, and one good request puts it right."""

import grpc
import pytest
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given
from hypothesis import strategies as st

from fakes.repository import copy_package
from knock import CANARY, SECONDS, STATUSES, check, check_serves_on, knock
from m2ib.v1 import model_repository_pb2 as pb
from m2ib.v1 import model_repository_pb2_grpc
from mutants import TEXTS, damaged, fuzzed, mutants
from serving import running_server

SERVICE = pb.DESCRIPTOR.services_by_name["ModelRepository"]
METHODS = {method.name: method for method in SERVICE.methods}
ALLOWED = STATUSES[SERVICE.full_name]
EVERY_METHOD = pytest.mark.parametrize("name", METHODS)
NARROW = ("--max-message-mebibytes", "4", "--max-image-mebibytes", "3")
GOOD = {
    "ListVersions": pb.ListVersionsRequest(name="tiny"),
    "LoadModel": pb.LoadModelRequest(name="tiny", version="1"),
    "UnloadModel": pb.UnloadModelRequest(name="tiny", version="2"),
    "SwapModel": pb.SwapModelRequest(name="tiny", version="1"),
    "SetAlias": pb.SetAliasRequest(name="tiny", alias="champion", version="1"),
    "DeleteAlias": pb.DeleteAliasRequest(name="tiny", alias="champion"),
}


@pytest.fixture(scope="module")
def own_server(tiny_package, tmp_path_factory):
    """A server of this file's own, for what is sent here takes models away; the folder holds two versions."""
    models = tmp_path_factory.mktemp("fuzzed") / "models"
    for version in ("1", "2"):
        copy_package(tiny_package, models / "tiny" / version, version=version)
    with running_server(models, tmp_path_factory.mktemp("repository"), *NARROW) as running:
        yield running


@pytest.fixture(scope="module")
def own_channel(own_server):
    with grpc.insecure_channel(own_server.address) as channel:
        yield channel


def send(channel, name: str, sent: bytes) -> None:
    check(knock(channel, METHODS[name], [sent]), ALLOWED[name])


def good_of(name: str):
    """Return what makes a good message of a method, a new one each time."""
    return lambda: type(GOOD[name]).FromString(GOOD[name].SerializeToString())


def put_right(channel) -> None:
    """Let version 1 serve alone, whatever was done before."""
    stub = model_repository_pb2_grpc.ModelRepositoryStub(channel)
    assert stub.SwapModel(GOOD["SwapModel"], timeout=SECONDS).version.state == pb.VERSION_STATE_READY


def test_every_method_has_a_good_message_and_its_statuses_written_down():
    assert set(METHODS) == set(ALLOWED) == set(GOOD)
    for name, message in GOOD.items():
        assert type(message) is GetMessageClass(METHODS[name].input_type)


@EVERY_METHOD
def test_good_messages_are_answered(own_channel, name):
    """Else the fuzzing would begin at a closed door."""
    put_right(own_channel)
    assert knock(own_channel, METHODS[name], [GOOD[name].SerializeToString()]).code == "OK"


@EVERY_METHOD
@fuzzed(25)
@given(data=st.data())
def test_changed_messages_and_damaged_bytes_are_answered(own_channel, name, data):
    good = good_of(name)
    send(own_channel, name, data.draw(mutants(good)).SerializeToString())
    send(own_channel, name, data.draw(damaged(good().SerializeToString())))


@EVERY_METHOD
@fuzzed(10)
@given(sent=st.binary(max_size=200))
def test_random_bytes_are_answered(own_channel, name, sent):
    send(own_channel, name, sent)


NAMES = (
    st.just("tiny")
    | st.sampled_from(["", ".", "..", "tiny/1", "../tiny", "tiny:1", "tiny@latest", "x" * 64, "x" * 65])
    | TEXTS
)
VERSIONS = st.sampled_from(["1", "2"]) | st.sampled_from(["3", "", "01", "latest", "champion", "..", "9" * 64]) | TEXTS
ALIASES = (
    st.sampled_from(["champion", "next"])
    | st.sampled_from(["latest", "", "1", "..", CANARY, "x" * 64, "x" * 65])
    | TEXTS
)
FIELDS = {"name": NAMES, "version": VERSIONS, "alias": ALIASES}


@st.composite
def changes(draw) -> tuple[str, bytes]:
    """A call of some method, each field of it right, nearly right or wrong."""
    name = draw(st.sampled_from(sorted(METHODS)))
    kind = GetMessageClass(METHODS[name].input_type)
    return name, kind(**{field.name: draw(FIELDS[field.name]) for field in kind.DESCRIPTOR.fields}).SerializeToString()


@fuzzed(80)
@given(calls=st.lists(changes(), min_size=1, max_size=6))
def test_any_sequence_of_changes_is_answered_and_one_swap_puts_it_right(own_channel, calls):
    for name, sent in calls:
        send(own_channel, name, sent)
    put_right(own_channel)


def test_after_all_that_the_server_serves_and_has_said_nothing(own_server, own_channel):
    put_right(own_channel)
    check_serves_on(own_server, own_channel)
