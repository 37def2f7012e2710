"""Turns a call's arguments into the request that carries them; the first half of the codec.

What the server decides (ranges, limits, lengths) is not decided here a second time.
"""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TypeVar, cast

from google.protobuf.message import Message

from m2ib.v1 import attribution_pb2, settings_pb2
from m2ib_client._channel import MAX_MESSAGE_BYTES
from m2ib_client._errors import InvalidRequestError
from m2ib_client._handle import ImageHandle
from m2ib_client._image import image_message
from m2ib_client._options import (
    EffortName,
    FitName,
    ImageSource,
    MaskName,
    OnDeadlineName,
    OutputName,
    PriorityName,
    SideName,
)

SIDE_BY_NAME: Mapping[str, settings_pb2.Side.ValueType] = MappingProxyType(
    {"image": settings_pb2.SIDE_IMAGE, "text": settings_pb2.SIDE_TEXT}
)
MASK_SHAPE_BY_NAME: Mapping[str, settings_pb2.MaskShape.ValueType] = MappingProxyType(
    {"channel": settings_pb2.MASK_SHAPE_CHANNEL, "token": settings_pb2.MASK_SHAPE_TOKEN}
)
EFFORT_BY_NAME: Mapping[str, settings_pb2.Effort.ValueType] = MappingProxyType(
    {
        "published": settings_pb2.EFFORT_PUBLISHED,
        "fast": settings_pb2.EFFORT_FAST,
        "specific": settings_pb2.EFFORT_SPECIFIC,
        "thorough": settings_pb2.EFFORT_THOROUGH,
    }
)
FIT_BY_NAME: Mapping[str, settings_pb2.Fit.ValueType] = MappingProxyType(
    {
        "letterbox": settings_pb2.FIT_LETTERBOX,
        "centre_crop": settings_pb2.FIT_CENTRE_CROP,
        "stretch": settings_pb2.FIT_STRETCH,
    }
)
OUTPUT_BY_NAME: Mapping[str, attribution_pb2.Output.ValueType] = MappingProxyType(
    {
        "model_map": attribution_pb2.OUTPUT_MODEL_MAP,
        "original_map": attribution_pb2.OUTPUT_ORIGINAL_MAP,
        "overlay": attribution_pb2.OUTPUT_OVERLAY,
        "rendering": attribution_pb2.OUTPUT_RENDERING,
    }
)
PRIORITY_BY_NAME: Mapping[str, attribution_pb2.Priority.ValueType] = MappingProxyType(
    {"interactive": attribution_pb2.PRIORITY_INTERACTIVE, "bulk": attribution_pb2.PRIORITY_BULK}
)
ON_DEADLINE_BY_NAME: Mapping[str, attribution_pb2.OnDeadline.ValueType] = MappingProxyType(
    {"refuse": attribution_pb2.ON_DEADLINE_REFUSE, "partial": attribution_pb2.ON_DEADLINE_PARTIAL}
)

UPLOAD_CHUNK_BYTES = 256 * 1024
REAL_SETTINGS = ("beta", "text_beta", "learning_rate")

Number = TypeVar("Number")
Sized = TypeVar("Sized", bound=Message)


def explain_request(  # noqa: PLR0913 - the call's options, one by one
    image: ImageSource,
    text: str,
    *,
    model: str = "",
    sides: Sequence[SideName] = ("image", "text"),
    effort: EffortName | None = None,
    beta: float | None = None,
    text_beta: float | None = None,
    steps: int | None = None,
    samples: int | None = None,
    learning_rate: float | None = None,
    mask_shape: MaskName | None = None,
    text_mask_shape: MaskName | None = None,
    seed: int | None = None,
    repeats: int | None = None,
    fit: FitName | None = None,
    outputs: Sequence[OutputName] = ("overlay",),
    priority: PriorityName | None = None,
    on_deadline: OnDeadlineName | None = None,
    truncate_text: bool = False,
    frame: int | None = None,
    window: tuple[float, float] | None = None,
    max_message_bytes: int = MAX_MESSAGE_BYTES,
) -> attribution_pb2.ExplainRequest:
    """Return the request for one pair; `ExplainOptions` says what each option means.

    Raises:
        InvalidRequestError: an argument is of a kind or has a name that cannot be sent.
        MissingPackageError: the image is DICOM and pydicom is not installed.
        OSError: the image's path cannot be read.
    """
    numbers = {
        "beta": beta,
        "text_beta": text_beta,
        "steps": steps,
        "samples": samples,
        "learning_rate": learning_rate,
        "seed": seed,
        "repeats": repeats,
    }
    request = attribution_pb2.ExplainRequest(
        model=_checked_text("model", model),
        text=_checked_text("text", text),
        sides=[_named("sides", name, SIDE_BY_NAME) for name in _names("sides", sides)],
        settings=_settings(effort, mask_shape, text_mask_shape, numbers),
        outputs=[_named("outputs", name, OUTPUT_BY_NAME) for name in _names("outputs", outputs)],
        truncate_text=truncate_text,
        image=image_message(image, frame=frame, window=window),
    )
    if fit is not None:
        request.fit = _named("fit", fit, FIT_BY_NAME)
    if priority is not None:
        request.priority = _named("priority", priority, PRIORITY_BY_NAME)
    if on_deadline is not None:
        request.on_deadline = _named("on_deadline", on_deadline, ON_DEADLINE_BY_NAME)
    return _within_limit(request, max_message_bytes)


def stream_request(
    request: attribution_pb2.ExplainRequest, *, partial_maps: bool
) -> attribution_pb2.ExplainStreamRequest:
    """Return the request for one pair, step by step."""
    return attribution_pb2.ExplainStreamRequest(request=request, partial_maps=partial_maps)


def score_request(
    images: ImageSource | Sequence[ImageSource],
    texts: str | Sequence[str],
    *,
    model: str = "",
    fit: FitName | None = None,
    truncate_text: bool = False,
    frame: int | None = None,
    window: tuple[float, float] | None = None,
    max_message_bytes: int = MAX_MESSAGE_BYTES,
) -> attribution_pb2.ScoreRequest:
    """Return the request for every image against every text; raises as `explain_request`."""
    many_texts = texts if _is_many(texts) else [texts]
    request = attribution_pb2.ScoreRequest(
        model=_checked_text("model", model),
        images=[image_message(image, frame=frame, window=window) for image in listed(images)],
        texts=[_checked_text("texts", text) for text in cast("Sequence[str]", many_texts)],
        truncate_text=truncate_text,
    )
    if fit is not None:
        request.fit = _named("fit", fit, FIT_BY_NAME)
    return _within_limit(request, max_message_bytes)


def listed(images: ImageSource | Sequence[ImageSource]) -> Sequence[ImageSource]:
    """Return the images as a sequence, also where there is one without a list."""
    return cast("Sequence[ImageSource]", images if _is_many(images) else [images])


def upload_requests(image: ImageHandle) -> Iterator[attribution_pb2.UploadImageRequest]:
    """Yield the parts of an upload: what it promises, then the bytes."""
    header = attribution_pb2.UploadHeader(size_bytes=image.size_bytes, sha256=image.sha256)
    yield attribution_pb2.UploadImageRequest(header=header)
    for start in range(0, image.size_bytes, UPLOAD_CHUNK_BYTES):
        yield attribution_pb2.UploadImageRequest(chunk=image.encoded[start : start + UPLOAD_CHUNK_BYTES])


def model_request(name: str) -> attribution_pb2.GetModelRequest:
    """Return the request for one model's description."""
    return attribution_pb2.GetModelRequest(model=_checked_text("model", name))


def _settings(
    effort: EffortName | None,
    mask_shape: MaskName | None,
    text_mask_shape: MaskName | None,
    numbers: Mapping[str, float | None],
) -> settings_pb2.Settings:
    settings = settings_pb2.Settings()
    if effort is not None:
        settings.effort = _named("settings.effort", effort, EFFORT_BY_NAME)
    if mask_shape is not None:
        settings.mask_shape = _named("settings.mask_shape", mask_shape, MASK_SHAPE_BY_NAME)
    if text_mask_shape is not None:
        settings.text_mask_shape = _named("settings.text_mask_shape", text_mask_shape, MASK_SHAPE_BY_NAME)
    for name, number in numbers.items():
        if number is not None:
            _set_number(settings, name, number)
    return settings


def _set_number(settings: settings_pb2.Settings, name: str, number: float) -> None:
    try:
        setattr(settings, name, number)
    except (TypeError, ValueError):
        is_number = isinstance(number, int | float)
        raise InvalidRequestError.of(
            f"settings.{name}",
            seen=repr(number) if is_number else f"a {type(number).__name__}",
            allowed="a number" if name in REAL_SETTINGS else "a whole number that is not negative",
            reason="SETTING_OUT_OF_RANGE",
        ) from None


def _names(field: str, names: Sequence[str]) -> Sequence[str]:
    """Refuse a lone string, which would be read letter by letter."""
    if isinstance(names, str):
        raise InvalidRequestError.of(field, seen="a string", allowed='a sequence of names, such as ("image",)')
    return names


def _named(field: str, name: str, table: Mapping[str, Number]) -> Number:
    if not isinstance(name, str) or name not in table:
        seen = "an unknown name" if isinstance(name, str) else f"a {type(name).__name__}"
        raise InvalidRequestError.of(field, seen=seen, allowed=", ".join(table))
    return table[name]


def _checked_text(field: str, text: str) -> str:
    if not isinstance(text, str):
        raise InvalidRequestError.of(field, seen=f"a {type(text).__name__}", allowed="a str")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise InvalidRequestError.of(field, seen="a lone surrogate", allowed="text that UTF-8 can carry")
    return text


def _is_many(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _within_limit(request: Sized, max_message_bytes: int) -> Sized:
    """Refuse here what gRPC would refuse anyway, but in words."""
    size_bytes = request.ByteSize()
    if size_bytes > max_message_bytes:
        raise InvalidRequestError.of(
            "message",
            seen=f"{size_bytes} bytes",
            allowed=f"at most {max_message_bytes} bytes in one request (the client's max_message_bytes)",
            reason="MESSAGE_TOO_LARGE",
        )
    return request
