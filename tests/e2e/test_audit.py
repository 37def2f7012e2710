"""Every call of a real server is in its audit log once, and none is answered that cannot be."""

import hashlib
import hmac
import resource
import subprocess
import sys
import time
from collections import Counter

import grpc
import pytest

from auditing import audited_server
from m2ib.v1 import attribution_pb2 as pb
from m2ib.v1 import attribution_pb2_grpc, settings_pb2
from m2ib_server.access import tokens
from m2ib_server.sight.audit_refusals import BURST, PER_SECOND
from scrape import METRICS, scrape
from wire import explain_request

SECONDS = 60
KNOCKS = 1000
LOG_ROOM_BYTES = 8192  # of the server's own log while files must not grow
REFUSED = ("UNAVAILABLE", "AUDIT_UNAVAILABLE")
QUICK = settings_pb2.Settings(steps=2, samples=2, seed=7)


@pytest.fixture(scope="module")
def audited(tiny_package, tmp_path_factory):
    with audited_server(tiny_package, tmp_path_factory.mktemp("audited"), *METRICS) as audited:
        yield audited


@pytest.fixture
def calls(audited):
    with grpc.insecure_channel(audited.running.address) as channel:
        yield attribution_pb2_grpc.AttributionServiceStub(channel)


def request(**changes) -> pb.ExplainRequest:
    return explain_request(**{"settings": QUICK, **changes})


def id_of(call) -> str:
    return dict(call.trailing_metadata())["m2ib-request-id"]


def make_every_call(stub) -> list[str]:
    """Make calls of every kind, good and bad, and return their ids; of a batch the stream's."""
    encoded = request().image.encoded
    parts = [
        pb.UploadImageRequest(
            header=pb.UploadHeader(size_bytes=len(encoded), sha256=hashlib.sha256(encoded).hexdigest())
        ),
        pb.UploadImageRequest(chunk=encoded),
    ]
    score = pb.ScoreRequest(model="tiny", images=[pb.Image(encoded=encoded)] * 2, texts=["a", "b"])
    ids = [
        id_of(stub.Explain.with_call(request(), timeout=SECONDS)[1]),
        id_of(stub.Score.with_call(score, timeout=SECONDS)[1]),
        id_of(stub.UploadImage.with_call(iter(parts), timeout=SECONDS)[1]),
        id_of(stub.ListModels.with_call(pb.ListModelsRequest(), timeout=SECONDS)[1]),
        id_of(stub.GetModel.with_call(pb.GetModelRequest(), timeout=SECONDS)[1]),
    ]
    stream = stub.ExplainStream(pb.ExplainStreamRequest(request=request()), timeout=SECONDS)
    assert list(stream)
    pairs = [
        pb.ExplainBatchRequest(id="a", request=request()),
        pb.ExplainBatchRequest(id="b", request=request(text="")),
    ]
    batch = stub.ExplainBatch(iter(pairs), timeout=SECONDS)
    assert len(list(batch)) == 2
    ids += [id_of(stream), id_of(batch)]
    with pytest.raises(grpc.RpcError) as caught:
        stub.Explain(request(image=pb.Image(encoded=b"no image")), timeout=SECONDS)
    return [*ids, id_of(caught.value)]


def test_every_call_is_recorded_once_and_the_chain_holds(audited, calls):
    before = len(audited.records())
    ids = make_every_call(calls)
    records = audited.records()[before:]
    of_pairs = [each for each in records if each["method"] == "ExplainBatch.pair"]
    assert sorted(each["request_id"] for each in records if each not in of_pairs) == sorted(ids)
    assert Counter(each["method"] for each in records) == {
        "Explain": 2,
        "ExplainStream": 1,
        "ExplainBatch": 1,
        "ExplainBatch.pair": 2,
        "Score": 1,
        "UploadImage": 1,
        "ListModels": 1,
        "GetModel": 1,
    }
    refused = [(each["method"], each["code"], each["reason"]) for each in records if each["code"] != "OK"]
    assert sorted(refused) == [
        ("Explain", "INVALID_ARGUMENT", "IMAGE_UNDECODABLE"),
        ("ExplainBatch.pair", "INVALID_ARGUMENT", "TEXT_EMPTY"),
    ]
    checked = audited.verify()
    assert checked.returncode == 0, checked.stderr
    assert f"{len(audited.records())} of them calls" in checked.stdout


def test_a_record_names_its_image_by_a_hash_that_needs_the_key(audited, calls):
    encoded = request().image.encoded
    sha256 = hashlib.sha256(encoded)
    _, call = calls.Explain.with_call(request(), timeout=SECONDS)
    (record,) = (each for each in audited.records() if each["request_id"] == id_of(call))
    key = audited.log.with_name("audit.key").read_bytes()
    assert record["images"] == [hmac.new(key, sha256.digest(), hashlib.sha256).hexdigest()]
    assert sha256.hexdigest() not in audited.log.read_text()
    assert record["settings"].items() >= {"steps": 2, "samples": 2, "seed": 7}.items()
    assert {"prepare", "encode", "optimise_image", "optimise_text", "total"} <= record["timings"].keys()
    assert (record["model"], record["version"], len(record["digest"])) == ("tiny", "1", 64)


def test_a_caller_that_leaves_is_in_the_log(audited, calls):
    before = len(audited.records())
    long = request(settings=settings_pb2.Settings(steps=1000, samples=20))
    stream = calls.ExplainStream(pb.ExplainStreamRequest(request=long), timeout=SECONDS)
    next(stream)
    stream.cancel()
    deadline = time.monotonic() + SECONDS
    while len(audited.records()) == before:
        assert time.monotonic() < deadline, "the call that was left is not recorded"
        time.sleep(0.05)
    assert [each["code"] for each in audited.records()[before:]] == ["CANCELLED"]


def test_while_the_log_cannot_grow_calls_are_refused_and_the_server_lives(audited, calls):
    """The kernel refuses to let the server's files grow, as a full disk does; afterwards it lets them again."""
    while audited.log.stat().st_size < audited.running.log_path.stat().st_size + LOG_ROOM_BYTES:
        describe(calls)  # the server's own log must not be the file that is too large
    process, before = audited.running.process.pid, len(audited.records())
    unlimited = resource.prlimit(process, resource.RLIMIT_FSIZE)
    resource.prlimit(process, resource.RLIMIT_FSIZE, (audited.log.stat().st_size + 100, unlimited[1]))
    reasons, ids = [], []
    for ask in (lambda: calls.Explain(request(), timeout=SECONDS), lambda: stream_of(calls), lambda: describe(calls)):
        with pytest.raises(grpc.RpcError) as caught:
            ask()
        reasons.append((caught.value.code(), "AUDIT_UNAVAILABLE" in str(caught.value.trailing_metadata())))
        ids.append(id_of(caught.value))
    assert reasons == [(grpc.StatusCode.UNAVAILABLE, True)] * 3
    assert audited.running.process.poll() is None
    assert len(audited.running.events("audit log unavailable")) == 1
    ends = {line["request_id"]: (line["code"], line.get("reason")) for line in audited.running.events("call ended")}
    assert [ends[each] for each in ids] == [REFUSED] * len(ids)
    assert scrape(audited.running).value("m2ib_calls_ended_total", code=REFUSED[0], reason=REFUSED[1]) == len(ids)
    assert scrape(audited.running).value("m2ib_audit_failing") == 1
    resource.prlimit(process, resource.RLIMIT_FSIZE, unlimited)
    deadline = time.monotonic() + SECONDS
    while not audited.records("resumed"):
        assert time.monotonic() < deadline, "the log does not go on"
        time.sleep(0.05)
    assert calls.Explain(request(), timeout=SECONDS).explanation.similarity
    checked = audited.verify()
    assert checked.returncode == 0, checked.stderr
    assert len(audited.records()) == before + 1
    assert audited.records("resumed")[0]["unrecorded"] == 3
    seen = scrape(audited.running)
    assert (seen.value("m2ib_audit_failing"), seen.value("m2ib_audit_lost_calls_total")) == (0, 3)
    assert "could not be recorded, as the log itself says: 3" in checked.stdout


def test_who_knocks_without_credentials_a_thousand_times_leaves_a_hundred_records_and_the_count(tiny_package, tmp_path):
    _, line = tokens.new_token("ward", ["explain"])
    tokens.write_tokens(tmp_path / "tokens", {"ward": line})
    with audited_server(tiny_package, tmp_path, "--tokens", str(tmp_path / "tokens"), *METRICS) as audited:
        began = time.monotonic()
        with grpc.insecure_channel(audited.running.address) as channel:
            stub = attribution_pb2_grpc.AttributionServiceStub(channel)
            for _ in range(KNOCKS):
                with pytest.raises(grpc.RpcError) as caught:
                    describe(stub)
                assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        seconds = time.monotonic() - began
        counted = scrape(audited.running).value("m2ib_audit_suppressed_calls_total")
        assert audited.running.stop() == 0
        refused = [each["reason"] for each in audited.records()]
        assert set(refused) == {"CREDENTIALS_MISSING"}
        assert len(refused) <= BURST + PER_SECOND * seconds + 1
        assert len(refused) + counted == KNOCKS
        assert len(refused) + sum(each["calls"] for each in audited.records("suppressed")) == KNOCKS
        checked = audited.verify()
        assert checked.returncode == 0, checked.stderr
        assert f"without a record of their own, as the log itself says: {KNOCKS - len(refused)}" in checked.stdout


def serve(tiny_package, *flags: str) -> subprocess.CompletedProcess:
    """Start a server that must not start, and return what it ended with."""
    command = [sys.executable, "-m", "m2ib_server", "serve", "--models", str(tiny_package), "--listen", "127.0.0.1:0"]
    return subprocess.run([*command, *flags], capture_output=True, text=True, timeout=120, check=False)


def test_a_log_whose_last_record_was_changed_stops_the_start_and_is_left_as_it_is(tiny_package, audited, tmp_path):
    key, log = audited.log.with_name("audit.key"), tmp_path / "audit.jsonl"
    changed = audited.log.read_text().splitlines()[0].replace('"kind":"start"', '"kind":"stop"') + "\n"
    log.write_text(changed)
    done = serve(tiny_package, "--audit-log", str(log), "--audit-salt-file", str(key))
    assert done.returncode == 3
    assert "AUDIT_UNUSABLE" in done.stderr
    assert "m2ib-server audit verify" in done.stderr
    assert log.read_text() == changed


def test_a_log_without_a_key_is_refused_by_name(tiny_package, tmp_path):
    done = serve(tiny_package, "--audit-log", str(tmp_path / "audit.jsonl"))
    assert done.returncode == 2
    assert "M2IB_AUDIT_SALT_FILE" in done.stderr


def stream_of(calls) -> list[pb.ExplainStreamResponse]:
    """Return a stream's messages; its answer must not be among them when the call is refused."""
    messages = calls.ExplainStream(pb.ExplainStreamRequest(request=request()), timeout=SECONDS)
    return list(messages)


def describe(calls) -> pb.ListModelsResponse:
    return calls.ListModels(pb.ListModelsRequest(), timeout=SECONDS)
