"""The hostile inputs that servers of this kind are known to fall over, by name, each with what must come of it."""

import numpy as np
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from corpus.films import FILMS, RAMP, TWO_WINDOWS, film, with_garbage
from corpus.pictures import PICTURES
from corpus.row import Refused, Row, Shown
from knock import STATUSES, check, knock
from m2ib.v1 import attribution_pb2 as pb
from m2ib.v1 import settings_pb2
from wire import explain_request, png

SERVICE = pb.DESCRIPTOR.services_by_name["AttributionService"]
EXPLAIN = SERVICE.methods_by_name["Explain"]
QUICK = settings_pb2.Settings(steps=1, samples=2)
MEBIBYTE = 1 << 20

# A field of length 5 of which 2 bytes came; a tag of field 0; a group that never ends; a varint without an end.
NO_MESSAGES = {
    "short": b"\x0a\x05ab",
    "field zero": b"\x00\x00",
    "open group": b"\x0b",
    "endless": b"\x08" + b"\xff" * 11,
}
LIBRARY_METHODS = [
    health_pb2.DESCRIPTOR.services_by_name["Health"].methods_by_name["Check"],
    health_pb2.DESCRIPTOR.services_by_name["Health"].methods_by_name["Watch"],
    reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"].methods_by_name["ServerReflectionInfo"],
]


@pytest.mark.parametrize("method", LIBRARY_METHODS, ids=lambda method: method.name)
@pytest.mark.parametrize("raw", NO_MESSAGES.values(), ids=NO_MESSAGES)
def test_bytes_that_are_no_message_are_refused_by_the_methods_of_libraries_too(channel, server, method, raw):
    ending = knock(channel, method, [raw])
    check(ending, {"INVALID_ARGUMENT"})
    assert ending.reason == "MESSAGE_MALFORMED"
    assert not server.events("foreign")


def explained(channel, image: pb.Image, **changes) -> pb.Explanation:
    fields = {"text": "a cat", "settings": QUICK, "sides": [settings_pb2.SIDE_IMAGE], **changes}
    ending = knock(channel, EXPLAIN, [explain_request(image=image, **fields).SerializeToString()])
    assert ending.code == "OK", ending
    return pb.ExplainResponse.FromString(ending.answers[0]).explanation


def rendering(channel, encoded: bytes) -> bytes:
    return explained(channel, pb.Image(encoded=encoded), outputs=[pb.OUTPUT_RENDERING]).image.rendering_png


@pytest.mark.parametrize("row", (PICTURES | FILMS).values(), ids=PICTURES | FILMS)
def test_a_hostile_file_is_shown_or_refused_as_its_row_says(channel, row: Row):
    image = pb.Image(encoded=row.make(), **({} if row.frame is None else {"frame": row.frame}))
    request = explain_request(image=image, settings=QUICK, sides=[settings_pb2.SIDE_IMAGE])
    ending = knock(channel, EXPLAIN, [request.SerializeToString()])
    check(ending, STATUSES[SERVICE.full_name]["Explain"])
    match row.then:
        case Refused(reason=reason, said=said):
            assert (ending.code, ending.reason) == ("INVALID_ARGUMENT", reason), ending
            assert said in ending.said
        case Shown(source=source, inverted=inverted):
            assert ending.code == "OK", ending
            (answer,) = ending.answers
            assert b"Canary" not in answer
            explanation = pb.ExplainResponse.FromString(answer).explanation
            shown = explanation.provenance.rendering
            assert (shown.window_source, shown.inverted, shown.frame) == (source, inverted, row.frame or 1)
            assert np.isfinite(np.frombuffer(explanation.image.grid_bits.data, "<f4")).all()


def test_films_of_one_name_and_other_pixels_are_told_apart(channel):
    """Row 2: the SOP instance UID of both is the same, and what is kept goes by the bytes alone."""
    one, other = (explained(channel, pb.Image(encoded=film(pixels))) for pixels in (RAMP, RAMP[::-1].copy()))
    assert one.provenance.image_sha256 != other.provenance.image_sha256
    assert one.image.grid_bits != other.image.grid_bits


def test_what_is_inverted_twice_is_inverted_once(channel):
    """Row 3."""
    both = film(PhotometricInterpretation="MONOCHROME1", PresentationLUTShape="INVERSE")
    either = film(PhotometricInterpretation="MONOCHROME1")
    assert rendering(channel, both) == rendering(channel, either)
    assert rendering(channel, both) != rendering(channel, film())


def test_the_second_window_is_there_for_the_asking(channel):
    """Row 4."""
    encoded = film(**TWO_WINDOWS)
    first = explained(channel, pb.Image(encoded=encoded))
    asked = explained(channel, pb.Image(encoded=encoded, window=pb.Window(center=3000, width=200)))
    assert (first.provenance.rendering.window.center, first.provenance.rendering.window_source) == (1000, "window")
    assert (asked.provenance.rendering.window.center, asked.provenance.rendering.window_source) == (
        3000,
        "request window",
    )
    assert first.image.grid_bits != asked.image.grid_bits


def test_bits_above_those_stored_change_nothing(channel):
    """Row 14."""
    assert rendering(channel, film(with_garbage())) == rendering(channel, film())


def test_two_models_and_one_payload_give_two_answers(channel):
    """The cache of another server answered model B with model A's map."""
    image = pb.Image(encoded=png(seed=31))
    answers = [explained(channel, image, model=model) for model in ("tiny", "demo", "tiny", "demo")]
    assert [answer.provenance.model for answer in answers] == ["tiny", "demo", "tiny", "demo"]
    assert answers[0].image.grid_bits == answers[2].image.grid_bits
    assert answers[1].image.grid_bits == answers[3].image.grid_bits
    assert answers[0].image.grid_bits != answers[1].image.grid_bits
    assert answers[0].similarity != answers[1].similarity


SETTINGS = [{"beta": 0.5}, {"steps": 5}, {"samples": 3}, {"learning_rate": 0.1}, {"seed": 9}, {"mask_shape": 2}]


@pytest.mark.parametrize("changed", SETTINGS, ids=lambda changed: next(iter(changed)))
def test_one_payload_and_another_setting_give_another_answer(channel, changed):
    """The cache of another server goes by the tensors and leaves the parameters out."""
    image = pb.Image(encoded=png(seed=32))
    plain = {"steps": 4, "samples": 2}  # the first step's map is of the mask as it was before the first step
    first, other, again = (
        explained(channel, image, settings=settings_pb2.Settings(**fields))
        for fields in (plain, plain | changed, plain)
    )
    assert other.image.grid_bits != first.image.grid_bits
    assert again.image.grid_bits == first.image.grid_bits


def test_a_message_of_one_byte_too_many_is_refused_and_the_next_one_answered(narrow_channel):
    def message(size: int) -> bytes:
        padding = size - len(pb.Image(encoded=bytes(3 * MEBIBYTE)).SerializeToString())
        request = explain_request(image=pb.Image(encoded=bytes(3 * MEBIBYTE + padding)))
        excess = request.ByteSize() - size
        request.image.encoded = request.image.encoded[:-excess]
        assert request.ByteSize() == size
        return request.SerializeToString()

    fits, exceeds = (knock(narrow_channel, EXPLAIN, [message(4 * MEBIBYTE + more)]) for more in (0, 1))
    check(fits, {"INVALID_ARGUMENT"})
    assert fits.reason == "IMAGE_TOO_LARGE"
    check(exceeds, {"RESOURCE_EXHAUSTED"})
    assert "larger than max" in exceeds.said
    assert explained(narrow_channel, pb.Image(encoded=png())).image.grid_bits.data


BOUNDS = {
    "beta": ([5e-324, 100.0], [0.0, -0.0, -1.0, np.nextafter(100.0, 101.0), np.inf, -np.inf, np.nan]),
    "text_beta": ([5e-324, 100.0], [0.0, -0.0, -1.0, np.nextafter(100.0, 101.0), np.inf, -np.inf, np.nan]),
    "learning_rate": ([5e-324, 10.0], [0.0, -0.0, -1.0, np.nextafter(10.0, 11.0), np.inf, -np.inf, np.nan]),
    "steps": ([1, 20], [0, 21, 2**31, 2**32 - 1]),
    "samples": ([1, 64], [0, 65, 2**31, 2**32 - 1]),
    "repeats": ([1, 16], [0, 17, 2**31, 2**32 - 1]),
    "seed": ([0, 2**63, 2**64 - 1], []),
    "mask_shape": ([0, 1, 2], [3, -1, 2**31 - 1, -(2**31)]),
    "text_mask_shape": ([0, 1, 2], [3, -1, 2**31 - 1, -(2**31)]),
    "effort": ([0, 1, 2, 3, 4], [5, -1, 2**31 - 1, -(2**31)]),
}


def test_the_bounds_of_every_setting_are_in_the_table():
    assert set(BOUNDS) == {field.name for field in settings_pb2.Settings.DESCRIPTOR.fields}


@pytest.mark.parametrize("name", BOUNDS)
def test_a_setting_is_taken_up_to_its_bounds_and_refused_beyond(narrow_channel, name):
    taken, refused = BOUNDS[name]
    image = pb.Image(encoded=png())
    for value in taken:
        fields = {"steps": 3, "samples": 2, name: value}
        explanation = explained(
            narrow_channel, image, settings=settings_pb2.Settings(**fields), sides=[], outputs=[pb.OUTPUT_OVERLAY]
        )
        assert np.isfinite(np.frombuffer(explanation.image.grid_bits.data, "<f4")).all()
        assert np.isfinite([token.bits for token in explanation.text.tokens]).all()
    for value in refused:
        request = explain_request(settings=settings_pb2.Settings(**{"steps": 1, "samples": 1, name: value}))
        ending = knock(narrow_channel, EXPLAIN, [request.SerializeToString()])
        check(ending, {"INVALID_ARGUMENT"})
        assert f"settings.{name}: seen" in ending.said
