"""No text, identifier or handle reaches the log or a refusal, whatever is called, well or badly."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np

from fakes.dicom_files import dicom_file
from m2ib.v1 import attribution_pb2 as pb
from m2ib.v1 import attribution_pb2_grpc, settings_pb2
from serving import running_server
from wire import explain_request

SECONDS = 60
PATIENT, ACCESSION, INSTITUTION = "Zebrafinch^Quincy", "ACC7731905", "Wombleton"
TEXT, PAIR, MODEL, HANDLE = "Oxbowlake", "pair-Tamarind", "model-Quokka", "handle-Narwhal"
IDENTIFIERS = (*PATIENT.split("^"), ACCESSION, INSTITUTION)
CANARIES = (*IDENTIFIERS, TEXT, "Tamarind", "Quokka", "Narwhal")
PIXELS = np.random.default_rng(0).integers(0, 4096, (40, 48)).astype(np.uint16)
FILM = dicom_file(
    PIXELS,
    BitsStored=12,
    HighBit=11,
    PatientName=PATIENT,
    PatientID=PATIENT,
    AccessionNumber=ACCESSION,
    InstitutionName=INSTITUTION,
)
NO_PIXELS = dicom_file(PIXELS, PatientName=PATIENT, AccessionNumber=ACCESSION, PixelData=None)
BROKEN = FILM[: len(FILM) // 2]
QUICK = settings_pb2.Settings(steps=2, samples=2)
EVERY_OUTPUT = [output for output in pb.Output.values() if output]

GOOD = {
    "film": {"image": pb.Image(encoded=FILM), "outputs": EVERY_OUTPUT},
    "text": {},
    "truncated text": {"text": f"{TEXT} " * 200, "truncate_text": True},
}
BAD = {
    "no pixels": {"image": pb.Image(encoded=NO_PIXELS)},
    "broken film": {"image": pb.Image(encoded=BROKEN)},
    "no such frame": {"image": pb.Image(encoded=FILM, frame=7)},
    "no image": {"image": pb.Image(encoded=PATIENT.encode())},
    "no such handle": {"image": pb.Image(handle=HANDLE)},
    "long text": {"text": f"{TEXT} " * 200},
    "text in place of an image": {"image": pb.Image(encoded=TEXT.encode())},
    "only spaces": {"text": "   ", "model": "tiny"},
    "endless text": {"text": TEXT * 10_000},
    "no such model": {"model": MODEL},
    "no steps": {"settings": settings_pb2.Settings(steps=0)},
}


@dataclass
class Said:
    """What came back: answers, and what was said of failures."""

    answers: list[bytes] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)

    def take(self, call: Any) -> list[Any]:
        """Make a call, unary or streaming."""
        try:
            outcome = call()
            messages = list(outcome) if isinstance(outcome, Iterator) else [outcome]
        except grpc.RpcError as error:
            self.refusals.append(f"{error.details()} {error.trailing_metadata()}")
            return []
        self.answers += [message.SerializeToString() for message in messages]
        return messages


def request_of(**changes: Any) -> pb.ExplainRequest:
    return explain_request(**{"text": TEXT, "settings": QUICK, **changes})


def score_request(image: bytes = FILM, **changes: Any) -> pb.ScoreRequest:
    fields = {"model": "tiny", "images": [pb.Image(encoded=image)], "texts": [TEXT, f"a {TEXT}"]}
    return pb.ScoreRequest(**{**fields, **changes})


def parts_of(encoded: bytes, sha256: str) -> Iterator[pb.UploadImageRequest]:
    yield pb.UploadImageRequest(header=pb.UploadHeader(size_bytes=len(encoded), sha256=sha256))
    yield pb.UploadImageRequest(chunk=encoded)


def explain(stub: Any, said: Said) -> int:
    for changes in (*GOOD.values(), *BAD.values()):
        said.take(lambda changes=changes: stub.Explain(request_of(**changes), timeout=SECONDS))
    return len(BAD)


def explain_stream(stub: Any, said: Said) -> int:
    for changes in (*GOOD.values(), *BAD.values()):
        request = pb.ExplainStreamRequest(request=request_of(**changes), partial_maps=True)
        said.take(lambda request=request: stub.ExplainStream(request, timeout=SECONDS))
    return len(BAD)


def explain_batch(stub: Any, said: Said) -> int:
    """Answers are told apart by the caller's own id, which comes back; nothing else of it may."""
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


def score(stub: Any, said: Said) -> int:
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


def describe(stub: Any, said: Said) -> int:
    said.take(lambda: stub.ListModels(pb.ListModelsRequest(), timeout=SECONDS))
    for name in ("tiny", MODEL):
        said.take(lambda name=name: stub.GetModel(pb.GetModelRequest(model=name), timeout=SECONDS))
    return 1


def upload(stub: Any, said: Said) -> list[str]:
    """Upload a film, a broken one and what does not fit its header; return the handles."""
    handles = []
    for encoded in (FILM, BROKEN):
        digest = hashlib.sha256(encoded).hexdigest()
        (uploaded,) = said.take(lambda: stub.UploadImage(parts_of(encoded, digest), timeout=SECONDS))  # noqa: B023
        handles.append(uploaded.handle)
    for sha256 in ("0" * 64, PATIENT):
        said.take(lambda: stub.UploadImage(parts_of(FILM, sha256), timeout=SECONDS))  # noqa: B023
    return handles


def test_no_call_brings_a_text_or_an_identifier_into_the_log_or_a_refusal(tiny_package, tmp_path):
    said = Said()
    with running_server(tiny_package, tmp_path) as running, grpc.insecure_channel(running.address) as channel:
        stub = attribution_pb2_grpc.AttributionServiceStub(channel)
        refused = sum(call(stub, said) for call in (explain, explain_stream, explain_batch, score, describe))
        handles = upload(stub, said)
        for handle in handles:
            said.take(lambda handle=handle: stub.Explain(request_of(image=pb.Image(handle=handle)), timeout=SECONDS))
        assert running.stop() == 0
        log = running.log()
    assert len(said.refusals) == refused + 2 + 1  # two uploads, and the broken film by its handle
    # Unary answers, streams of two steps a side and an explanation, batch's; scores, models, uploads, the film again.
    assert len(said.answers) == len(GOOD) * (1 + 5 + 1) + 1 + 2 + 2 + 1
    for word in (*CANARIES, *map(str.lower, CANARIES), *handles):
        assert word not in log
        assert not any(word in refusal for refusal in said.refusals)
    for word in IDENTIFIERS:
        assert not any(word.encode() in answer for answer in said.answers)
    methods = [line.get("method") for line in map(json.loads, log.splitlines()) if line["event"] == "call ended"]
    assert set(methods) == {
        "Explain",
        "ExplainStream",
        "ExplainBatch",
        "ExplainBatch.pair",
        "Score",
        "UploadImage",
        "ListModels",
        "GetModel",
    }
