"""No text, identifier, handle or header reaches what operators read or a refusal, whatever is called, well or badly."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

import canary_inference
import canary_repository
import m2ib
from auditing import audited_server
from canary import (
    BROKEN,
    CHANNEL_OPTIONS,
    FILM,
    HANDLE,
    IDENTIFIERS,
    METHOD,
    MODEL,
    NO_PIXELS,
    ODD_PIXELS,
    PAIR,
    PATIENT,
    PICTURES,
    TEXT,
    Said,
    Telling,
    birds_in,
)
from collector import collector
from m2ib.v1 import attribution_pb2 as pb
from m2ib.v1 import attribution_pb2_grpc, settings_pb2
from scrape import METRICS, scrape
from wire import explain_request

SECONDS = 60
QUICK = settings_pb2.Settings(steps=2, samples=2)
EVERY_OUTPUT = [output for output in pb.Output.values() if output]
ATTRIBUTION = "m2ib.v1.AttributionService"
LIBRARIES = {"grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}  # called too, and not ours to audit

GOOD = {
    "film": {"image": pb.Image(encoded=FILM), "outputs": EVERY_OUTPUT},
    **{name: {"image": pb.Image(encoded=picture)} for name, picture in PICTURES.items()},
    "truncated text": {"text": f"{TEXT} " * 200, "truncate_text": True},
}
BAD = {
    "no pixels": {"image": pb.Image(encoded=NO_PIXELS)},
    "odd pixels": {"image": pb.Image(encoded=ODD_PIXELS)},
    "broken film": {"image": pb.Image(encoded=BROKEN)},
    "broken picture": {"image": pb.Image(encoded=PICTURES["png"][:-400])},
    "no such frame": {"image": pb.Image(encoded=FILM, frame=7)},
    "no image": {"image": pb.Image(encoded=PATIENT.encode())},
    "no such handle": {"image": pb.Image(handle=HANDLE)},
    "long text": {"text": f"{TEXT} " * 200},
    "text in place of an image": {"image": pb.Image(encoded=TEXT.encode())},
    "text in place of a tensor": {"image": pb.Image(tensor=settings_pb2.FloatTensor(shape=[3], data=TEXT.encode()))},
    "only spaces": {"text": "   ", "model": "tiny"},
    "endless text": {"text": TEXT * 10_000},
    "no such model": {"model": MODEL},
    "no such version": {"model": f"tiny:{MODEL}"},
    "no such alias": {"model": f"tiny@{MODEL}"},
    "no steps": {"settings": settings_pb2.Settings(steps=0)},
}


def request_of(**changes: Any) -> pb.ExplainRequest:
    return explain_request(**{"text": TEXT, "settings": QUICK, **changes})


def score_request(image: bytes = FILM, **changes: Any) -> pb.ScoreRequest:
    fields = {"model": "tiny", "images": [pb.Image(encoded=image)], "texts": [TEXT, f"a {TEXT}"]}
    return pb.ScoreRequest(**{**fields, **changes})


def parts_of(encoded: bytes, sha256: str) -> Iterator[pb.UploadImageRequest]:
    yield pb.UploadImageRequest(header=pb.UploadHeader(size_bytes=len(encoded), sha256=sha256))
    yield pb.UploadImageRequest(chunk=encoded)


def explain(channel: grpc.Channel, said: Said) -> int:
    stub = attribution_pb2_grpc.AttributionServiceStub(channel)
    for changes in (*GOOD.values(), *BAD.values()):
        said.take(lambda changes=changes: stub.Explain(request_of(**changes), timeout=SECONDS))
    return len(BAD)


def explain_stream(channel: grpc.Channel, said: Said) -> int:
    stub = attribution_pb2_grpc.AttributionServiceStub(channel)
    for changes in (*GOOD.values(), *BAD.values()):
        request = pb.ExplainStreamRequest(request=request_of(**changes), partial_maps=True)
        said.take(lambda request=request: stub.ExplainStream(request, timeout=SECONDS))
    return len(BAD)


def explain_batch(channel: grpc.Channel, said: Said) -> int:
    """Answers are told apart by the caller's own id, which comes back; nothing else of it may."""
    stub = attribution_pb2_grpc.AttributionServiceStub(channel)
    cases = {f"{PAIR} {name}": changes for name, changes in (GOOD | BAD).items()} | {PAIR * 100: {}}
    requests = [pb.ExplainBatchRequest(id=name, request=request_of(**changes)) for name, changes in cases.items()]
    answers = list(stub.ExplainBatch(iter(requests), timeout=SECONDS))
    assert {answer.id for answer in answers} == set(cases)
    for answer in answers:
        if answer.HasField("status"):
            said.refusals.append(f"{answer.status.message} {answer.status.SerializeToString()}")
        else:
            said.answers.append(answer.explanation.SerializeToString())
    return len(BAD) + 1


def score(channel: grpc.Channel, said: Said) -> int:
    stub = attribution_pb2_grpc.AttributionServiceStub(channel)
    bad = [
        score_request(NO_PIXELS),
        score_request(BROKEN),
        score_request(PATIENT.encode()),
        score_request(texts=[TEXT, TEXT * 10_000]),
        score_request(images=[pb.Image(handle=HANDLE)]),
        score_request(model=MODEL),
    ]
    for request in (score_request(), *bad):
        said.take(lambda request=request: stub.Score(request, timeout=SECONDS))
    return len(bad)


def list_models(channel: grpc.Channel, said: Said) -> int:
    stub = attribution_pb2_grpc.AttributionServiceStub(channel)
    said.take(lambda: stub.ListModels(pb.ListModelsRequest(), timeout=SECONDS))
    return 0


def get_model(channel: grpc.Channel, said: Said) -> int:
    stub = attribution_pb2_grpc.AttributionServiceStub(channel)
    for name in ("tiny", MODEL):
        said.take(lambda name=name: stub.GetModel(pb.GetModelRequest(model=name), timeout=SECONDS))
    return 1


def upload_image(channel: grpc.Channel, said: Said) -> int:
    """Upload a film, a broken one and what does not fit its header; explain what was uploaded, by its handle."""
    stub = attribution_pb2_grpc.AttributionServiceStub(channel)
    for encoded in (FILM, BROKEN):
        digest = hashlib.sha256(encoded).hexdigest()
        (uploaded,) = said.take(lambda: stub.UploadImage(parts_of(encoded, digest), timeout=SECONDS))  # noqa: B023
        said.handles.append(uploaded.handle)
        image = pb.Image(handle=uploaded.handle)
        said.take(lambda image=image: stub.Explain(request_of(image=image), timeout=SECONDS))
    for sha256 in ("0" * 64, PATIENT):
        said.take(lambda: stub.UploadImage(parts_of(FILM, sha256), timeout=SECONDS))  # noqa: B023
    return 3


CALLS: dict[tuple[str, str], Callable[[grpc.Channel, Said], int]] = {
    (ATTRIBUTION, "Explain"): explain,
    (ATTRIBUTION, "ExplainStream"): explain_stream,
    (ATTRIBUTION, "ExplainBatch"): explain_batch,
    (ATTRIBUTION, "Score"): score,
    (ATTRIBUTION, "ListModels"): list_models,
    (ATTRIBUTION, "GetModel"): get_model,
    (ATTRIBUTION, "UploadImage"): upload_image,
    **canary_inference.CALLS,
    **canary_repository.CALLS,
}
"""What calls each method, well and badly, and returns how many of its calls must be refused."""


def ask_libraries(channel: grpc.Channel, said: Said) -> None:
    """Call the services that are not ours with canaries for names.

    What they do not know they refuse, and reflection answers with the question, as its protocol says.
    """
    library = Said(refusals=said.refusals)
    health = health_pb2_grpc.HealthStub(channel)
    library.take(lambda: health.Check(health_pb2.HealthCheckRequest(service=PATIENT), timeout=SECONDS))
    asked = reflection_pb2.ServerReflectionRequest(file_containing_symbol=PATIENT)
    reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
    library.take(lambda: reflection.ServerReflectionInfo(iter([asked]), timeout=SECONDS))
    channelz = channelz_pb2_grpc.ChannelzStub(channel)
    library.take(lambda: channelz.GetServers(channelz_pb2.GetServersRequest(), timeout=SECONDS))


def send_rubbish(channel: grpc.Channel, said: Said, methods: Iterable[tuple[str, str]]) -> None:
    """Call what is not there, and every method with bytes that are no message, which hold canaries."""
    for path in (f"/{ATTRIBUTION}/{METHOD}", f"/{METHOD}.Service/{METHOD}"):
        said.take(lambda path=path: channel.unary_unary(path)(b"", timeout=SECONDS))
    for service, method in methods:
        call = channel.stream_stream(f"/{service}/{method}")
        said.take(lambda call=call: call(iter([f"\xff{PATIENT}{TEXT}".encode()]), timeout=SECONDS))


def methods_of(channel: grpc.Channel) -> set[tuple[str, str]]:
    """Return the methods of every service that the server says it has, but for the libraries'."""
    database = ProtoReflectionDescriptorDatabase(channel)
    pool = DescriptorPool(database)
    names = set(database.get_services())
    assert names >= LIBRARIES
    services = [pool.FindServiceByName(name) for name in names - LIBRARIES]
    return {(service.full_name, method.name) for service in services for method in service.methods}


def methods_of_protos() -> set[tuple[str, str]]:
    """Return the methods of every service that our proto files define, whether or not the server tells of it."""
    root = Path(m2ib.__path__[0])
    modules = ["m2ib." + ".".join(file.relative_to(root).with_suffix("").parts) for file in root.rglob("*_pb2.py")]
    services = [s for module in modules for s in import_module(module).DESCRIPTOR.services_by_name.values()]
    return {(service.full_name, method.name) for service in services for method in service.methods}


@pytest.fixture(scope="module")
def overheard(tiny_package, tmp_path_factory):
    """Make every call of a server that tells operators all it ever tells them; return what was said to whom."""
    folder = tmp_path_factory.mktemp("canary")
    models = shutil.copytree(tiny_package, folder / "models" / "tiny" / "1").parents[1]
    flags = ("--reflection", "--channelz", "--anonymous-admin", *METRICS)
    with collector() as kept, audited_server(models, folder, *flags, *kept.flags) as audited:
        running, said = audited.running, Said()
        with grpc.insecure_channel(running.address, options=CHANNEL_OPTIONS) as plain:
            channel = grpc.intercept_channel(plain, Telling())
            methods = methods_of(channel)
            must_refuse = sum(call(channel, said) for call in CALLS.values())
            refused = len(said.refusals)
            ask_libraries(channel, said)
            send_rubbish(channel, said, sorted(methods))
        metrics = scrape(running).text
        calls = audited.records()
        assert running.stop() == 0
        yield {
            "said": said,
            "methods": methods,
            "refused": (refused, must_refuse),
            "calls": calls,
            "read": {
                "log": running.log(),
                "audit log": audited.log.read_text(),
                "metrics": metrics,
                "spans": kept.text(),
            },
        }


def test_every_method_of_every_service_is_called(overheard):
    assert set(CALLS) == overheard["methods"] == methods_of_protos()
    seen = {(call["service"], call["method"]) for call in overheard["calls"]}
    assert seen >= overheard["methods"]
    answered = {(call["service"], call["method"]) for call in overheard["calls"] if call["code"] == "OK"}
    never = {(canary_inference.SERVICE.full_name, method) for method in canary_inference.NOT_OFFERED}
    assert answered >= overheard["methods"] - never


def test_every_bad_call_is_refused(overheard):
    refused, must_refuse = overheard["refused"]
    assert refused == must_refuse


@pytest.mark.parametrize("name", ["log", "audit log", "metrics", "spans"])
def test_nothing_of_a_caller_reaches_what_operators_read(overheard, name):
    read = overheard["read"][name]
    assert len(read) > 1000
    assert birds_in(read) == []
    assert not any(handle in read for handle in overheard["said"].handles)


def test_nothing_of_a_caller_reaches_a_refusal(overheard):
    said = overheard["said"]
    assert [(refusal, birds_in(refusal)) for refusal in said.refusals if birds_in(refusal)] == []
    assert not any(handle in refusal for handle in said.handles for refusal in said.refusals)


def test_no_identifier_of_a_patient_reaches_an_answer(overheard):
    assert len(overheard["said"].answers) > 7 * len(GOOD)  # an answer, a stream of five and a batch's for each of them
    told = [answer for answer in overheard["said"].answers if any(word.encode() in answer for word in IDENTIFIERS)]
    assert told == []


def test_every_call_is_in_the_log_and_in_the_audit_log_under_one_id(overheard):
    lines = map(json.loads, overheard["read"]["log"].splitlines())
    logged = sorted(line["request_id"] for line in lines if line["event"] == "call ended")
    assert logged == sorted(call["request_id"] for call in overheard["calls"])
