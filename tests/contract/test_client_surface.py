"""Checks that the client's public surface is what it says, and covers the wire contract field by field."""

import dataclasses
import types
from typing import Any

import pytest

import m2ib_client
from m2ib.v1 import attribution_pb2 as pb
from m2ib.v1 import manifest_pb2, model_repository_pb2, settings_pb2


def test_all_equals_the_exports() -> None:
    public = {
        name
        for name, value in vars(m2ib_client).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }
    assert public | {"__version__"} == set(m2ib_client.__all__)
    assert len(m2ib_client.__all__) == len(set(m2ib_client.__all__))  # their order is the linter's to check


def test_implementation_modules_are_private() -> None:
    modules = {name for name, value in vars(m2ib_client).items() if isinstance(value, types.ModuleType)}
    assert all(name.startswith("_") or name == "testing" for name in modules)


# What a message carries under another name or form, and what is the server's own affair.
RENAMED: dict[Any, dict[str, str]] = {
    pb.ImageAttribution: {"original_width": "original_size", "original_height": "original_size"},
    pb.Limits: {"image_time_to_live": "image_time_to_live_seconds"},
    pb.Rendering: {"format": "image_format"},
    pb.ScoreResponse: {"similarities": "matrix"},
    pb.Timings: {name: f"{name}_seconds" for name in pb.Timings.DESCRIPTOR.fields_by_name},
    pb.Window: {"center": "centre"},
}
OMITTED: dict[Any, set[str]] = {
    manifest_pb2.VisionEncoder: {"leading_tokens"},
    manifest_pb2.TextEncoder: {"end_token_id", "start_token_id"},
    manifest_pb2.EffortDefaults: {"effort"},  # the key under which `Defaults.efforts` has it
}
PAIRS = [
    (pb.Explanation, m2ib_client.Explanation),
    (pb.ImageAttribution, m2ib_client.ImageAttribution),
    (pb.TextAttribution, m2ib_client.TextAttribution),
    (pb.TokenScore, m2ib_client.Token),
    (pb.WordScore, m2ib_client.Word),
    (pb.StepTrace, m2ib_client.StepTrace),
    (pb.Span, m2ib_client.Span),
    (pb.Progress, m2ib_client.Progress),
    (pb.ReferenceRank, m2ib_client.ReferenceRank),
    (pb.Provenance, m2ib_client.Provenance),
    (pb.Rendering, m2ib_client.Rendering),
    (pb.TextLength, m2ib_client.TextLength),
    (pb.Timings, m2ib_client.Timings),
    (pb.Window, m2ib_client.Window),
    (pb.ScoreResponse, m2ib_client.Scores),
    (pb.Model, m2ib_client.Model),
    (pb.Limits, m2ib_client.Limits),
    (manifest_pb2.VisionEncoder, m2ib_client.VisionEncoder),
    (manifest_pb2.TextEncoder, m2ib_client.TextEncoder),
    (manifest_pb2.Defaults, m2ib_client.Defaults),
    (manifest_pb2.MaskDefaults, m2ib_client.MaskDefaults),
    (manifest_pb2.EffortDefaults, m2ib_client.EffortDefaults),
    (manifest_pb2.ParityFigure, m2ib_client.ParityFigure),
    (settings_pb2.Settings, m2ib_client.Settings),
    (settings_pb2.Affine, m2ib_client.Affine),
    (model_repository_pb2.ModelVersion, m2ib_client.ModelVersion),
    (model_repository_pb2.ListVersionsResponse, m2ib_client.RepositoryListing),
]


@pytest.mark.parametrize(("message", "result"), PAIRS, ids=lambda kind: kind.__name__)
def test_result_has_every_field_of_its_message(message: Any, result: Any) -> None:
    is_dataclass = dataclasses.is_dataclass(result)
    fields = {field.name for field in dataclasses.fields(result)} if is_dataclass else set(result._fields)
    sent = set(message.DESCRIPTOR.fields_by_name) - OMITTED.get(message, set())
    assert {RENAMED.get(message, {}).get(name, name) for name in sent} == fields


def test_every_option_of_a_request_can_be_given() -> None:
    wire = set(pb.ExplainRequest.DESCRIPTOR.fields_by_name) | set(settings_pb2.Settings.DESCRIPTOR.fields_by_name)
    wire |= set(pb.Image.DESCRIPTOR.fields_by_name)
    given_apart = {"image", "text", "settings", "encoded", "tensor", "handle"}
    options = m2ib_client.ExplainOptions.__annotations__
    assert set(options) == wire - given_apart
    assert set(m2ib_client.ScoreOptions.__annotations__) < set(options)
