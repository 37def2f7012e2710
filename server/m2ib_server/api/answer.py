"""Writes answers: domain to proto. Computes maps and pictures, decides nothing."""

from collections.abc import Mapping, Sequence

import numpy as np
from google.protobuf.duration_pb2 import Duration
from numpy.typing import NDArray

from m2ib.v1 import attribution_pb2 as pb
from m2ib.v1 import settings_pb2
from m2ib_server import __version__
from m2ib_server.api.request import ReadImage
from m2ib_server.engine import LoadedModel, ReferenceRank, Stage
from m2ib_server.errors import InvalidField
from m2ib_server.imaging import (
    Affine,
    Fit,
    RenderedImage,
    Rendering,
    draw_overlay,
    encode_rendering,
    grid_to_original,
    model_map,
    normalise,
    original_map,
)
from m2ib_server.methods import M2IBSettings, MaskShape, Side, StepDone, spread_of
from m2ib_server.runtime import software_version
from m2ib_server.settings import RequestLimits
from m2ib_server.text import EncodedText, Span, score_text

PROTO_BY_SIDE = {Side.IMAGE: settings_pb2.SIDE_IMAGE, Side.TEXT: settings_pb2.SIDE_TEXT}
PROTO_BY_MASK_SHAPE = {
    MaskShape.CHANNEL: settings_pb2.MASK_SHAPE_CHANNEL,
    MaskShape.TOKEN: settings_pb2.MASK_SHAPE_TOKEN,
}
PROTO_BY_FIT = {
    None: settings_pb2.FIT_UNSPECIFIED,
    Fit.LETTERBOX: settings_pb2.FIT_LETTERBOX,
    Fit.CENTRE_CROP: settings_pb2.FIT_CENTRE_CROP,
    Fit.STRETCH: settings_pb2.FIT_STRETCH,
}
_RUNTIMES = ("onnxruntime", "onnxruntime-gpu", "torch", "numpy", "pillow", "pydicom", "tokenizers")


def write_tensor(values: NDArray[np.float32]) -> settings_pb2.FloatTensor:
    """Write float32 values of any shape."""
    return settings_pb2.FloatTensor(shape=values.shape, data=values.astype("<f4").tobytes())


def grid_of(step: StepDone, model: LoadedModel) -> NDArray[np.float32]:
    """Return the patch grid [rows, columns] of an image step, in bits: the tokens before the first patch dropped."""
    vision = model.manifest.vision
    patches: NDArray[np.float32] = step.bits[vision.leading_tokens :].numpy()
    return patches.reshape(vision.grid_rows, vision.grid_columns)


def bits_kept(step: StepDone, model: LoadedModel) -> float:
    """Return the information that a mask lets through, in bits: of an image its patches', of a text all tokens'."""
    return float(grid_of(step, model).sum()) if step.side is Side.IMAGE else step.bits_kept


def check_original_map(rendered: RenderedImage, outputs: frozenset[int], max_bytes: int) -> None:
    """Refuse a map at the original's size that does not fit into a message.

    Raises:
        InvalidField: naming the sizes, in bytes.
    """
    if pb.OUTPUT_ORIGINAL_MAP in outputs:
        _check_size(4 * rendered.width * rendered.height, max_bytes)


def write_progress(step: StepDone, model: LoadedModel, *, partial_maps: bool) -> pb.Progress:
    """Write one step."""
    progress = pb.Progress(
        side=PROTO_BY_SIDE[step.side],
        step=step.step,
        steps=step.steps,
        similarity=step.similarity,
        bits_kept=bits_kept(step, model),
    )
    if partial_maps and step.side is Side.IMAGE:
        progress.partial_grid.CopyFrom(write_tensor(grid_of(step, model)))
    return progress


def write_image(
    course: Sequence[StepDone],
    image: ReadImage,
    model: LoadedModel,
    outputs: frozenset[int],
    max_bytes: int,
) -> pb.ImageAttribution:
    """Write the image's map, with the pictures asked for. Slow: not for an event loop.

    Raises:
        InvalidField: what was asked for is larger than a message may be.
    """
    grid = grid_of(course[-1], model)
    rows, columns = grid.shape
    width, height = image.rendered.width, image.rendered.height
    at_model_size = model_map(grid, model.manifest.vision.image_size)
    answer = pb.ImageAttribution(
        grid_bits=write_tensor(grid),
        grid_normalised=write_tensor(normalise(grid)),
        grid_to_original=_affine(grid_to_original(image.fitted, rows=rows, columns=columns)),
        original_width=width,
        original_height=height,
        trace=_trace(course, model),
    )
    if (spread := spread_of(course[-1].repeat_bits[:, model.manifest.vision.leading_tokens :])) is not None:
        answer.grid_std_bits.CopyFrom(write_tensor(spread.std.reshape(grid.shape)))
        answer.stability = spread.stability
    if pb.OUTPUT_MODEL_MAP in outputs:
        answer.model_map.CopyFrom(write_tensor(at_model_size))
    if outputs & {pb.OUTPUT_ORIGINAL_MAP, pb.OUTPUT_OVERLAY}:
        registered = original_map(at_model_size, image.fitted, height=height, width=width)
        if pb.OUTPUT_ORIGINAL_MAP in outputs:
            answer.original_map.CopyFrom(write_tensor(registered))
        if pb.OUTPUT_OVERLAY in outputs:
            answer.overlay_png = draw_overlay(image.rendered, registered)
    if pb.OUTPUT_RENDERING in outputs:
        answer.rendering_png = encode_rendering(image.rendered)
    _check_size(answer.ByteSize(), max_bytes)
    return answer


def write_text(course: Sequence[StepDone], encoded: EncodedText, model: LoadedModel) -> pb.TextAttribution:
    """Write the scores of tokens and words."""
    scores = score_text(encoded, course[-1].bits.tolist())
    spread = spread_of(course[-1].repeat_bits)
    return pb.TextAttribution(
        tokens=[
            pb.TokenScore(
                text=token.text,
                token_id=token.token_id,
                span=_span(token.span),
                bits=token.bits,
                normalised=token.normalised,
                special=token.special,
                std_bits=None if spread is None else float(spread.std[index]),
            )
            for index, token in enumerate(scores.tokens)
        ],
        words=[
            pb.WordScore(text=word.text, span=_span(word.span), bits=word.bits, normalised=word.normalised)
            for word in scores.words
        ],
        trace=_trace(course, model),
        stability=None if spread is None else spread.stability,
    )


def write_settings(settings: M2IBSettings, effort: int) -> settings_pb2.Settings:
    """Write the settings in force, every field set."""
    return settings_pb2.Settings(
        effort=settings_pb2.Effort.ValueType(effort),
        beta=settings.beta,
        text_beta=settings.text_beta,
        repeats=settings.repeats,
        steps=settings.steps,
        samples=settings.samples,
        learning_rate=settings.learning_rate,
        mask_shape=PROTO_BY_MASK_SHAPE[settings.mask_shape],
        text_mask_shape=PROTO_BY_MASK_SHAPE[settings.text_mask_shape],
        seed=settings.seed,
    )


def write_rank(rank: ReferenceRank) -> pb.ReferenceRank:
    """Write a rank."""
    return pb.ReferenceRank(
        rank=rank.rank,
        references=rank.references,
        best_reference=rank.best_reference,
        best_similarity=rank.best_similarity,
        mean_similarity=rank.mean_similarity,
    )


def write_rendering(rendering: Rendering) -> pb.Rendering:
    """Write how an image was rendered."""
    window = rendering.window
    return pb.Rendering(
        format=rendering.format.value,
        frame=rendering.frame,
        window_source=rendering.window_source.value,
        window=None if window is None else pb.Window(center=window.center, width=window.width),
        inverted=rendering.inverted,
    )


def write_length(encoded: EncodedText) -> pb.TextLength:
    """Write a text's length in tokens."""
    return pb.TextLength(tokens_given=encoded.tokens_given, tokens_kept=encoded.tokens_kept)


def write_timings(seconds: Mapping[Stage, float], *, prepare: float, render: float, total: float) -> pb.Timings:
    """Write how long each stage took, from seconds."""
    timings = pb.Timings()
    named = {**{stage.value: spent for stage, spent in seconds.items()}, "prepare": prepare}
    for name, spent in {**named, "render": render, "total": total}.items():
        getattr(timings, name).FromNanoseconds(round(spent * 1e9))
    return timings


def write_model(model: LoadedModel, limits: RequestLimits, *, image_seconds: float) -> pb.Model:
    """Write what a caller may know of a model; `image_seconds` is how long an uploaded image is kept."""
    manifest = model.manifest
    return pb.Model(
        name=manifest.name,
        version=manifest.version,
        digest=model.digest,
        family=manifest.family,
        precision=manifest.precision,
        vision=manifest.vision,
        text=manifest.text,
        defaults=manifest.defaults,
        default_fit=manifest.preprocessing.default_fit,
        references=manifest.reference_texts.count,
        parity=manifest.parity,
        limits=pb.Limits(
            max_steps=limits.max_steps,
            max_samples=limits.max_samples,
            max_image_bytes=limits.max_image_bytes,
            max_image_pixels=limits.max_image_pixels,
            max_score_images=limits.max_score_images,
            max_score_texts=limits.max_score_texts,
            max_text_characters=limits.max_text_characters,
            max_repeats=limits.max_repeats,
            max_batch_in_flight=limits.max_batch_in_flight,
            image_time_to_live=duration_of(image_seconds),
        ),
    )


def duration_of(seconds: float) -> Duration:
    """Write a time span."""
    duration = Duration()
    duration.FromNanoseconds(round(seconds * 1e9))
    return duration


def software() -> dict[str, str]:
    """Return the versions of what computes an answer, by distribution name."""
    found = {name: software_version(name) for name in _RUNTIMES}
    return {"m2ib-server": __version__, **{name: found[name] for name in found if found[name]}}


def _check_size(size: int, max_bytes: int) -> None:
    if size > max_bytes:
        allowed = f"at most {max_bytes} bytes; ask for fewer outputs, the grid and its affine hold the same"
        raise InvalidField("outputs", seen=f"an answer of at least {size} bytes", allowed=allowed)


def _affine(affine: Affine) -> settings_pb2.Affine:
    return settings_pb2.Affine(xx=affine.xx, xy=affine.xy, x0=affine.x0, yx=affine.yx, yy=affine.yy, y0=affine.y0)


def _span(span: Span | None) -> pb.Span | None:
    return None if span is None else pb.Span(start=span.start, end=span.end)


def _trace(course: Sequence[StepDone], model: LoadedModel) -> list[pb.StepTrace]:
    return [
        pb.StepTrace(loss=step.loss, similarity=step.similarity, bits_kept=bits_kept(step, model)) for step in course
    ]
