"""Draws what the soak's callers ask for: kinds of calls, requests, and the fate that each is meant to have."""

import io
import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from PIL import Image

from fakes.dicom_files import dicom_file
from m2ib.v1 import attribution_pb2 as pb
from m2ib.v1 import settings_pb2

MODELS = ("tiny", "demo")
TEXTS = ("a cat", "a dog and a cat", "two birds", "a small red house", "right mid zone mass", "left pleural effusion")
IMAGES = 24
HOT_SEEDS = 3  # so few that identical requests meet


class Kind(StrEnum):
    """The calls."""

    EXPLAIN = "explain"
    STREAM = "stream"
    BATCH = "batch"
    HANDLE = "handle"
    SCORE = "score"


class Fate(StrEnum):
    """What becomes of a call."""

    PLAIN = "plain"
    CANCELLED = "cancelled"
    EXPIRING = "expiring"
    BROKEN = "broken"


class Outcome(StrEnum):
    """How a call ended; each call has exactly one of these."""

    ANSWERED = "answered"
    PARTIAL = "partial"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    REFUSED = "refused"  # the request's own fault
    LOST = "lost"  # no end in time
    WRONG = "wrong"  # answered, but not to what was asked, or with an unforeseen status


KIND_SHARES = {Kind.EXPLAIN: 40, Kind.STREAM: 20, Kind.BATCH: 10, Kind.HANDLE: 15, Kind.SCORE: 15}
FATE_SHARES = {Fate.PLAIN: 80, Fate.CANCELLED: 10, Fate.EXPIRING: 5, Fate.BROKEN: 5}
ALLOWED = {
    Fate.PLAIN: frozenset({Outcome.ANSWERED}),
    Fate.CANCELLED: frozenset({Outcome.CANCELLED, Outcome.ANSWERED}),
    Fate.EXPIRING: frozenset({Outcome.EXPIRED, Outcome.PARTIAL, Outcome.ANSWERED}),
    Fate.BROKEN: frozenset({Outcome.REFUSED}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """One call to make. Of a batch, `requests` are the pairs; of a score, the one request says image and text."""

    kind: Kind
    fate: Fate
    requests: tuple[pb.ExplainRequest, ...]
    broken_pairs: frozenset[int] = frozenset()
    seconds: float | None = None  # the call's deadline, or when it is cancelled


class Errands:
    """An endless supply of errands, the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._pictures = [*(_png(number) for number in range(IMAGES)), _dicom(0), _dicom(1)]

    def draw(self) -> Errand:
        kind, fate = self._pick(KIND_SHARES), self._pick(FATE_SHARES)
        if fate is Fate.EXPIRING:
            return self._expiring(self._random.choice((Kind.EXPLAIN, Kind.STREAM)))
        if fate is Fate.BROKEN:
            kind = Kind.EXPLAIN if kind is Kind.BATCH else kind
            return Errand(kind=kind, fate=fate, requests=(self._broken(),))
        if kind is Kind.BATCH:
            return self._batch(fate)
        return Errand(kind=kind, fate=fate, requests=(self._request(),), seconds=self._leaves_after(fate))

    def _pick(self, shares):
        return self._random.choices(list(shares), weights=list(shares.values()))[0]

    def _leaves_after(self, fate: Fate) -> float | None:
        return self._random.uniform(0, 0.5) if fate is Fate.CANCELLED else None

    def _request(self, **changes) -> pb.ExplainRequest:
        draw = self._random
        settings = settings_pb2.Settings(
            steps=draw.randint(1, 10),
            samples=draw.randint(1, 10),
            repeats=draw.choice((1, 1, 1, 2, 3)),
            seed=draw.choice((draw.randrange(HOT_SEEDS), draw.getrandbits(64))),
            mask_shape=draw.choice((settings_pb2.MASK_SHAPE_CHANNEL, settings_pb2.MASK_SHAPE_TOKEN)),
        )
        request = {
            "model": draw.choice(MODELS),
            "image": pb.Image(encoded=draw.choice(self._pictures)),
            "text": draw.choice(TEXTS),
            "sides": draw.choice(((), (settings_pb2.SIDE_IMAGE,), (settings_pb2.SIDE_TEXT,))),
            "settings": settings,
            "outputs": draw.choice(((), (pb.OUTPUT_OVERLAY,), (pb.OUTPUT_MODEL_MAP, pb.OUTPUT_ORIGINAL_MAP))),
            "priority": draw.choice((pb.PRIORITY_UNSPECIFIED, pb.PRIORITY_INTERACTIVE, pb.PRIORITY_BULK)),
        }
        return pb.ExplainRequest(**(request | changes))

    def _batch(self, fate: Fate) -> Errand:
        pairs = self._random.randint(2, 12)
        broken = frozenset(index for index in range(pairs) if self._random.random() < 0.05)
        requests = tuple(self._request(text="") if index in broken else self._request() for index in range(pairs))
        return Errand(
            kind=Kind.BATCH, fate=fate, requests=requests, broken_pairs=broken, seconds=self._leaves_after(fate)
        )

    def _expiring(self, kind: Kind) -> Errand:
        """Too much work for the deadline, by far or by a little, refused or answered in part."""
        draw = self._random
        steps, samples = draw.choice(((1000, 200), (200, 60)))
        settings = settings_pb2.Settings(steps=steps, samples=samples, seed=draw.getrandbits(64))
        on_deadline = draw.choice((pb.ON_DEADLINE_REFUSE, pb.ON_DEADLINE_PARTIAL))
        request = self._request(settings=settings, on_deadline=on_deadline)
        return Errand(kind=kind, fate=Fate.EXPIRING, requests=(request,), seconds=draw.uniform(0.2, 10))

    def _broken(self) -> pb.ExplainRequest:
        png = self._pictures[0]
        changes = self._random.choice(
            (
                {"text": ""},
                {"text": "a cat " * 200},
                {"model": "nothing"},
                {"image": pb.Image()},
                {"image": pb.Image(encoded=png[: len(png) // 2])},
                {"image": pb.Image(encoded=self._pictures[-1][:700])},
                {"image": pb.Image(encoded=self._random.randbytes(500))},
            )
        )
        return self._request(**changes)


def uploads(encoded: bytes, sha256: str) -> Sequence[pb.UploadImageRequest]:
    """The parts of an upload."""
    half = len(encoded) // 2
    header = pb.UploadHeader(size_bytes=len(encoded), sha256=sha256)
    chunks = [pb.UploadImageRequest(chunk=part) for part in (encoded[:half], encoded[half:])]
    return [pb.UploadImageRequest(header=header), *chunks]


def _png(number: int) -> bytes:
    generator = np.random.default_rng(number)
    pixels = generator.integers(0, 255, (40 + 9 * number, 48 + 5 * number), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _dicom(number: int) -> bytes:
    return dicom_file(np.random.default_rng(number).integers(0, 4000, (96, 80), dtype=np.uint16))
