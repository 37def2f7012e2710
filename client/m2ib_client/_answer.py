"""Turns answers into results; the second half of the codec, and without I/O.

A malformed answer raises `IncompatibleServerError`; nothing is made up in its place.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar, cast

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from m2ib.v1 import attribution_pb2, settings_pb2
from m2ib_client import _request, _results, _tensor
from m2ib_client._errors import IncompatibleServerError
from m2ib_client._options import EffortName, FitName, MaskName, SideName, Window

Name = TypeVar("Name")
Result = TypeVar("Result")


def _inverted(table: Mapping[str, Any]) -> Mapping[int, Any]:
    return MappingProxyType({number: name for name, number in table.items()})


NAME_BY_SIDE: Mapping[int, SideName] = _inverted(_request.SIDE_BY_NAME)
NAME_BY_MASK_SHAPE: Mapping[int, MaskName] = _inverted(_request.MASK_SHAPE_BY_NAME)
NAME_BY_EFFORT: Mapping[int, EffortName] = _inverted(_request.EFFORT_BY_NAME)
NAME_BY_FIT: Mapping[int, FitName] = _inverted(_request.FIT_BY_NAME)


def read_explanation(message: attribution_pb2.Explanation) -> _results.Explanation:
    """Return the explanation of one pair.

    Raises:
        IncompatibleServerError: the answer is malformed.
    """
    return _results.Explanation(
        image=_image(message.image) if message.HasField("image") else None,
        text=_text(message.text) if message.HasField("text") else None,
        similarity=message.similarity,
        reference_rank=copied(_results.ReferenceRank, message.reference_rank),
        provenance=_provenance(message.provenance),
        timings=_timings(message.timings),
        partial=message.partial,
    )


def read_event(message: attribution_pb2.ExplainStreamResponse) -> _results.Progress | _results.Explanation:
    """Return what one message of the stream carries; raises as `read_explanation`."""
    match message.WhichOneof("event"):
        case "progress":
            return _progress(message.progress)
        case "explanation":
            return read_explanation(message.explanation)
        case _:
            raise IncompatibleServerError("the stream holds an event that this client does not know")


def read_scores(message: attribution_pb2.ScoreResponse) -> _results.Scores:
    """Return the similarities; raises as `read_explanation`."""
    return _results.Scores(
        matrix=_tensor.unpack(message.similarities, dimensions=2),
        model=message.model,
        version=message.version,
        digest=message.digest,
        text_lengths=tuple(copied(_results.TextLength, length) for length in message.text_lengths),
    )


def copied(kind: type[Result], message: Message, **given: object) -> Result:
    """Return a result whose fields are those of the message by name, but for the ones given."""
    fields = cast(Any, kind).__dataclass_fields__
    return kind(**{name: given[name] if name in given else getattr(message, name) for name in fields})


def known(table: Mapping[int, Name], number: int, field: str) -> Name:
    """Return the name of an enumerator.

    Raises:
        IncompatibleServerError: this client does not know it.
    """
    if number not in table:
        raise IncompatibleServerError(f"the answer's {field} is {number}, which this client does not know")
    return table[number]


def _progress(message: attribution_pb2.Progress) -> _results.Progress:
    has_grid = message.HasField("partial_grid")
    return copied(
        _results.Progress,
        message,
        side=known(NAME_BY_SIDE, message.side, "side"),
        partial_grid=_tensor.unpack(message.partial_grid, dimensions=2) if has_grid else None,
    )


def _image(message: attribution_pb2.ImageAttribution) -> _results.ImageAttribution:
    return copied(
        _results.ImageAttribution,
        message,
        grid_bits=_tensor.unpack(message.grid_bits, dimensions=2),
        grid_normalised=_tensor.unpack(message.grid_normalised, dimensions=2),
        grid_to_original=copied(_results.Affine, message.grid_to_original),
        original_size=_results.Size(message.original_width, message.original_height),
        trace=_trace(message.trace),
        model_map=_tensor.unpack(message.model_map, dimensions=2) if message.HasField("model_map") else None,
        original_map=_tensor.unpack(message.original_map, dimensions=2) if message.HasField("original_map") else None,
        grid_std_bits=_tensor.unpack(message.grid_std_bits, dimensions=2)
        if message.HasField("grid_std_bits")
        else None,
        stability=_optional(message, "stability"),
    )


def _text(message: attribution_pb2.TextAttribution) -> _results.TextAttribution:
    return _results.TextAttribution(
        tokens=tuple(
            copied(
                _results.Token,
                token,
                span=_span(token.span) if token.HasField("span") else None,
                std_bits=_optional(token, "std_bits"),
            )
            for token in message.tokens
        ),
        words=tuple(copied(_results.Word, word, span=_span(word.span)) for word in message.words),
        trace=_trace(message.trace),
        stability=_optional(message, "stability"),
    )


def _optional(message: Message, field: str) -> float | None:
    """Return the number, or None where the message has none."""
    return float(getattr(message, field)) if message.HasField(field) else None


def _span(message: attribution_pb2.Span) -> _results.Span:
    return _results.Span(message.start, message.end)


def _trace(messages: Iterable[attribution_pb2.StepTrace]) -> tuple[_results.StepTrace, ...]:
    return tuple(copied(_results.StepTrace, message) for message in messages)


def _provenance(message: attribution_pb2.Provenance) -> _results.Provenance:
    return copied(
        _results.Provenance,
        message,
        settings=_settings(message.settings),
        fit=known(NAME_BY_FIT, message.fit, "fit") if message.fit else None,
        rendering=_rendering(message.rendering),
        text_length=copied(_results.TextLength, message.text_length),
        software=dict(message.software),
    )


def _settings(message: settings_pb2.Settings) -> _results.Settings:
    """Return the settings in force; what an older server leaves unset has the contract's meaning."""
    return copied(
        _results.Settings,
        message,
        effort=known(NAME_BY_EFFORT, message.effort or settings_pb2.EFFORT_PUBLISHED, "settings.effort"),
        text_beta=message.text_beta if message.HasField("text_beta") else message.beta,
        mask_shape=known(NAME_BY_MASK_SHAPE, message.mask_shape, "settings.mask_shape"),
        text_mask_shape=known(
            NAME_BY_MASK_SHAPE, message.text_mask_shape or message.mask_shape, "settings.text_mask_shape"
        ),
        repeats=message.repeats or 1,
    )


def _rendering(message: attribution_pb2.Rendering) -> _results.Rendering:
    window = Window(message.window.center, message.window.width) if message.HasField("window") else None
    return copied(_results.Rendering, message, image_format=message.format, window=window)


def _timings(message: attribution_pb2.Timings) -> _results.Timings:
    names = (field.name for field in dataclasses.fields(_results.Timings))
    return _results.Timings(**{name: seconds(getattr(message, name.removesuffix("_seconds"))) for name in names})


def seconds(duration: Duration) -> float:
    """Return a duration in seconds."""
    return duration.seconds + duration.nanos / 1e9
