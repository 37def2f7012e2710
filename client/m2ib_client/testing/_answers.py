"""Makes up the fake service's answers: the same request always gets the same one. Pure, and knows no channel."""

import hashlib
import io
import re
from collections.abc import Iterator, Sequence

import numpy as np
import PIL.Image
from google.protobuf.duration_pb2 import Duration

from m2ib.v1 import attribution_pb2, settings_pb2
from m2ib_client._errors import InvalidRequestError
from m2ib_client._tensor import FloatArray, pack, unpack
from m2ib_client.testing._model import (
    COLUMNS,
    END_TOKEN_ID,
    IMAGE_SIZE,
    REFERENCES,
    ROWS,
    START_TOKEN_ID,
    settings_in_force,
)

UNREADABLE_SIZE = (256, 192)


def fake_explanation(
    request: attribution_pb2.ExplainRequest, model: attribution_pb2.Model, *, steps: int | None = None
) -> attribution_pb2.Explanation:
    """Return an explanation that has the shape of a true one; a partial one after so many steps.

    Raises:
        InvalidRequestError: image or text are missing, or the image is neither DICOM nor a picture.
    """
    settings = settings_in_force(request, model)
    chance = _chance(request.image.SerializeToString(), request.text, settings.seed)
    sides = set(request.sides) or {settings_pb2.SIDE_IMAGE, settings_pb2.SIDE_TEXT}
    picture = _picture(request.image)
    words = _words(request.text)
    similarity = float(chance.uniform(0.15, 0.35))
    done = settings.steps if steps is None else steps
    image = _image(request, picture, chance, done) if settings_pb2.SIDE_IMAGE in sides else None
    text = _text(words, chance, done) if settings_pb2.SIDE_TEXT in sides else None
    if settings.repeats > 1:
        _add_spread(image, text)
    return attribution_pb2.Explanation(
        image=image,
        text=text,
        partial=done < settings.steps,
        similarity=similarity,
        reference_rank=_rank(similarity),
        provenance=_provenance(request, model, settings, len(words) + 2),
        timings=attribution_pb2.Timings(
            prepare=Duration(nanos=2_000_000),
            encode=Duration(nanos=30_000_000),
            optimise_image=Duration(nanos=400_000_000),
            optimise_text=Duration(nanos=100_000_000),
            render=Duration(nanos=5_000_000),
            total=Duration(nanos=540_000_000),
        ),
    )


def fake_progress(
    request: attribution_pb2.ExplainStreamRequest, model: attribution_pb2.Model
) -> Iterator[attribution_pb2.Progress]:
    """Yield the steps of either side, image first."""
    settings = settings_in_force(request.request, model)
    sides = list(request.request.sides) or [settings_pb2.SIDE_IMAGE, settings_pb2.SIDE_TEXT]
    for side in sorted(set(sides)):
        has_grid = request.partial_maps and side == settings_pb2.SIDE_IMAGE
        for step, trace in enumerate(_trace(settings.steps), start=1):
            grid = np.full((ROWS, COLUMNS), trace.bits_kept / (ROWS * COLUMNS), np.float32)
            yield attribution_pb2.Progress(
                side=side,
                step=step,
                steps=settings.steps,
                similarity=trace.similarity,
                bits_kept=trace.bits_kept,
                partial_grid=pack(grid) if has_grid else None,
            )


def fake_scores(request: attribution_pb2.ScoreRequest, model: attribution_pb2.Model) -> attribution_pb2.ScoreResponse:
    """Return similarities that depend on nothing but their own image and text.

    Raises:
        InvalidRequestError: as `fake_explanation`.
    """
    if not request.images or not request.texts:
        raise InvalidRequestError.of("images" if not request.images else "texts", seen="none", allowed="at least one")
    for image in request.images:
        _picture(image)
    rows = [[_similarity(image, text) for text in request.texts] for image in request.images]
    lengths = [len(_words(text)) + 2 for text in request.texts]
    return attribution_pb2.ScoreResponse(
        similarities=pack(np.array(rows, np.float32)),
        model=model.name,
        version=model.version,
        digest=model.digest,
        text_lengths=[attribution_pb2.TextLength(tokens_given=n, tokens_kept=n) for n in lengths],
    )


def _chance(image: bytes, text: str, seed: int) -> np.random.Generator:
    digest = hashlib.sha256(b"\0".join([image, text.encode(), str(seed).encode()])).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))


def _similarity(image: attribution_pb2.Image, text: str) -> float:
    return float(_chance(image.SerializeToString(), text, 0).uniform(0.15, 0.35))


def _picture(image: attribution_pb2.Image) -> PIL.Image.Image:
    """Return the picture in RGB; a plain grey one stands for DICOM and for tensors."""
    match image.WhichOneof("source"):
        case None:
            raise InvalidRequestError.of("image", seen="none", allowed="an image", reason="IMAGE_EMPTY")
        case "tensor":
            height, width = list(image.tensor.shape)[-2:]
            return PIL.Image.new("RGB", (width, height), "grey")
    if image.encoded[128:132] == b"DICM":
        return PIL.Image.new("RGB", UNREADABLE_SIZE, "grey")
    try:
        return PIL.Image.open(io.BytesIO(image.encoded)).convert("RGB")
    except (OSError, SyntaxError, ValueError):
        raise InvalidRequestError.of(
            "image",
            seen=f"{len(image.encoded)} bytes of no known format",
            allowed="PNG, JPEG, TIFF, WebP or DICOM",
            reason="IMAGE_UNDECODABLE",
        ) from None


def _words(text: str) -> Sequence[re.Match[str]]:
    words = list(re.finditer(r"\S+", text))
    if not words:
        raise InvalidRequestError.of("text", seen="no word", allowed="a text", reason="TEXT_EMPTY")
    return words


def _image(
    request: attribution_pb2.ExplainRequest,
    picture: PIL.Image.Image,
    chance: np.random.Generator,
    steps: int,
) -> attribution_pb2.ImageAttribution:
    bits = (chance.random((ROWS, COLUMNS)) * 3).astype(np.float32)
    normalised = _normalised(bits)
    outputs = set(request.outputs)
    message = attribution_pb2.ImageAttribution(
        grid_bits=pack(bits),
        grid_normalised=pack(normalised),
        grid_to_original=settings_pb2.Affine(xx=picture.width / COLUMNS, yy=picture.height / ROWS),
        original_width=picture.width,
        original_height=picture.height,
        trace=_trace(steps),
    )
    if attribution_pb2.OUTPUT_MODEL_MAP in outputs:
        message.model_map.CopyFrom(pack(_resized(normalised, (IMAGE_SIZE, IMAGE_SIZE))))
    if attribution_pb2.OUTPUT_ORIGINAL_MAP in outputs:
        message.original_map.CopyFrom(pack(_resized(normalised, picture.size)))
    if attribution_pb2.OUTPUT_RENDERING in outputs:
        message.rendering_png = _png(picture)
    if attribution_pb2.OUTPUT_OVERLAY in outputs:
        heat = PIL.Image.fromarray((_resized(normalised, picture.size) * 255).astype(np.uint8))
        message.overlay_png = _png(PIL.Image.composite(PIL.Image.new("RGB", picture.size, "red"), picture, heat))
    return message


def _text(words: Sequence[re.Match[str]], chance: np.random.Generator, steps: int) -> attribution_pb2.TextAttribution:
    bits = (chance.random(len(words)) * 4).astype(np.float32)
    scored = list(zip(words, bits.tolist(), _normalised(bits).tolist(), strict=True))
    tokens = [
        attribution_pb2.TokenScore(
            text=word[0], token_id=3 + len(word[0]), span=_span(word), bits=score, normalised=share
        )
        for word, score, share in scored
    ]
    return attribution_pb2.TextAttribution(
        tokens=[
            attribution_pb2.TokenScore(token_id=START_TOKEN_ID, special=True),
            *tokens,
            attribution_pb2.TokenScore(token_id=END_TOKEN_ID, special=True),
        ],
        words=[
            attribution_pb2.WordScore(text=word[0], span=_span(word), bits=score, normalised=share)
            for word, score, share in scored
        ],
        trace=_trace(steps),
    )


def _add_spread(image: attribution_pb2.ImageAttribution | None, text: attribution_pb2.TextAttribution | None) -> None:
    """Add what repeats tell: a tenth of each value as its standard deviation."""
    if image is not None:
        image.grid_std_bits.CopyFrom(pack(unpack(image.grid_bits, dimensions=2) / np.float32(10)))
        image.stability = 0.9
    if text is not None:
        text.stability = 0.8
        for token in text.tokens:
            token.std_bits = token.bits / 10


def _span(word: re.Match[str]) -> attribution_pb2.Span:
    return attribution_pb2.Span(start=word.start(), end=word.end())


def _trace(steps: int) -> list[attribution_pb2.StepTrace]:
    return [
        attribution_pb2.StepTrace(loss=-0.2 - 0.1 * (1 - 0.8**step), similarity=0.25, bits_kept=100 * 0.8**step)
        for step in range(1, steps + 1)
    ]


def _rank(similarity: float) -> attribution_pb2.ReferenceRank:
    """Rank as if the references' similarities were spread evenly between 0.15 and 0.35."""
    better = round(REFERENCES * (0.35 - similarity) / 0.2)
    return attribution_pb2.ReferenceRank(
        rank=1 + better,
        references=REFERENCES,
        best_reference="a reference text",
        best_similarity=0.35,
        mean_similarity=0.25,
    )


def _provenance(
    request: attribution_pb2.ExplainRequest,
    model: attribution_pb2.Model,
    settings: settings_pb2.Settings,
    tokens: int,
) -> attribution_pb2.Provenance:
    is_tensor = request.image.WhichOneof("source") == "tensor"
    sent = request.image.tensor.data if is_tensor else request.image.encoded
    return attribution_pb2.Provenance(
        model=model.name,
        version=model.version,
        digest=model.digest,
        method="m2ib",
        settings=settings,
        fit=settings_pb2.FIT_UNSPECIFIED if is_tensor else request.fit or model.default_fit,
        image_sha256=hashlib.sha256(sent).hexdigest(),
        text_sha256=hashlib.sha256(request.text.encode()).hexdigest(),
        rendering=attribution_pb2.Rendering(
            format="tensor" if is_tensor else "png",
            frame=request.image.frame or 1,
            window_source="none",
            window=request.image.window if request.image.HasField("window") else None,
        ),
        text_length=attribution_pb2.TextLength(tokens_given=tokens, tokens_kept=tokens),
        device="cpu",
        software={"m2ib-client": "fake"},
    )


def _normalised(bits: FloatArray) -> FloatArray:
    spread = float(bits.max() - bits.min())
    return (bits - bits.min()) / np.float32(spread) if spread else np.zeros_like(bits)


def _resized(grid: FloatArray, size: tuple[int, int]) -> FloatArray:
    resized = PIL.Image.fromarray(grid).resize(size, PIL.Image.Resampling.BILINEAR)
    return np.asarray(resized, np.float32)


def _png(picture: PIL.Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()
