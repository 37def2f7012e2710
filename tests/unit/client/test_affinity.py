"""Checks the header that keeps calls about one image on one server: what it holds, and that each call has it."""

import hashlib
from typing import Any

import numpy as np
import pytest

from m2ib.v1 import attribution_pb2
from m2ib_client._affinity import HEADER, affinity
from m2ib_client.testing import FakeService

TEXT = "an opacity in the left lung"


def sent(fake: FakeService) -> list[tuple[str, Any]]:
    return [(call.method, call.metadata.get(HEADER)) for call in fake.calls]


def test_every_call_about_one_image_names_its_digest(connect: Any, fake: FakeService, image: Any) -> None:
    client = connect(fake)
    client.explain(image, TEXT)
    list(client.explain_stream(image, TEXT))
    client.score(image, [TEXT, "a cat"])
    (explain, *_), sha256 = fake.calls, ""
    assert isinstance(explain.request, attribution_pb2.ExplainRequest)
    sha256 = hashlib.sha256(explain.request.image.encoded).hexdigest()
    assert sent(fake) == [("Explain", sha256), ("ExplainStream", sha256), ("Score", sha256)]


def test_a_handle_follows_its_upload(connect: Any, fake: FakeService, image: Any) -> None:
    client = connect(fake)
    handle = client.upload(image)
    client.explain(handle, TEXT)
    list(client.explain_stream(handle, TEXT))
    assert sent(fake) == [(method, handle.sha256) for method in ("UploadImage", "Explain", "ExplainStream")]


def test_the_digest_is_that_of_the_provenance(connect: Any, fake: FakeService, image: Any) -> None:
    explanation = connect(fake).explain(image, TEXT)
    assert sent(fake) == [("Explain", explanation.provenance.image_sha256)]


def test_a_tensor_is_named_by_its_values() -> None:
    message = attribution_pb2.Image()
    message.tensor.data = b"1234"
    assert affinity([np.zeros(1, np.float32)], [message]) == ((HEADER, hashlib.sha256(b"1234").hexdigest()),)


@pytest.mark.parametrize("count", [0, 2])
def test_a_call_about_several_images_has_no_header(count: int) -> None:
    assert affinity([b""] * count, [attribution_pb2.Image(encoded=b"x")] * count) == ()


def test_a_call_about_no_image_has_no_header(connect: Any, fake: FakeService) -> None:
    connect(fake).models()
    assert sent(fake) == [("ListModels", None)]
