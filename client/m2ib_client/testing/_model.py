"""Makes up the one model that the fake service has, and its settings in force."""

import hashlib
from collections.abc import Mapping

from google.protobuf.duration_pb2 import Duration

from m2ib.v1 import attribution_pb2, manifest_pb2, settings_pb2
from m2ib_client._errors import InvalidRequestError

ROWS = COLUMNS = 7
IMAGE_SIZE = 56
REFERENCES = 200
START_TOKEN_ID, END_TOKEN_ID = 1, 2
CHANNEL_DEFAULTS = manifest_pb2.MaskDefaults(beta=0.1, steps=10, samples=10, learning_rate=1.0, text_beta=0.1)
TOKEN_DEFAULTS = manifest_pb2.MaskDefaults(beta=0.1, steps=10, samples=4, learning_rate=1.0, text_beta=0.1)
FAST_DEFAULTS = manifest_pb2.MaskDefaults(beta=0.2, steps=4, samples=4, learning_rate=1.0, text_beta=0.1)
SPECIFIC_DEFAULTS = manifest_pb2.MaskDefaults(beta=5.0, steps=20, samples=4, learning_rate=1.0, text_beta=0.3)
EFFORTS = (
    manifest_pb2.EffortDefaults(
        effort=settings_pb2.EFFORT_PUBLISHED,
        mask_shape=settings_pb2.MASK_SHAPE_CHANNEL,
        settings=CHANNEL_DEFAULTS,
        repeats=1,
    ),
    manifest_pb2.EffortDefaults(
        effort=settings_pb2.EFFORT_FAST,
        mask_shape=settings_pb2.MASK_SHAPE_TOKEN,
        settings=FAST_DEFAULTS,
        repeats=1,
    ),
    manifest_pb2.EffortDefaults(
        effort=settings_pb2.EFFORT_SPECIFIC,
        mask_shape=settings_pb2.MASK_SHAPE_CHANNEL,
        text_mask_shape=settings_pb2.MASK_SHAPE_TOKEN,
        settings=SPECIFIC_DEFAULTS,
        repeats=1,
    ),
    manifest_pb2.EffortDefaults(
        effort=settings_pb2.EFFORT_THOROUGH,
        mask_shape=settings_pb2.MASK_SHAPE_CHANNEL,
        settings=CHANNEL_DEFAULTS,
        repeats=4,
    ),
)
LIMITS = attribution_pb2.Limits(
    max_steps=100,
    max_samples=64,
    max_image_bytes=48 * 1024 * 1024,
    max_image_pixels=50_000_000,
    max_score_images=64,
    max_score_texts=256,
    max_text_characters=10_000,
    max_repeats=16,
    max_batch_in_flight=8,
    image_time_to_live=Duration(seconds=600),
)


def fake_model(name: str) -> attribution_pb2.Model:
    """Return the description of a model that does not exist."""
    return attribution_pb2.Model(
        name=name,
        version="1",
        digest=hashlib.sha256(name.encode()).hexdigest(),
        family="fake",
        precision="fp32",
        vision=manifest_pb2.VisionEncoder(
            layer=1,
            depth=4,
            width=32,
            image_size=IMAGE_SIZE,
            patch_size=IMAGE_SIZE // ROWS,
            grid_rows=ROWS,
            grid_columns=COLUMNS,
            leading_tokens=1,
            channels=3,
        ),
        text=manifest_pb2.TextEncoder(
            layer=1,
            depth=4,
            width=32,
            context_length=77,
            start_token_id=START_TOKEN_ID,
            end_token_id=END_TOKEN_ID,
        ),
        defaults=manifest_pb2.Defaults(channel=CHANNEL_DEFAULTS, token=TOKEN_DEFAULTS, efforts=EFFORTS),
        default_fit=settings_pb2.FIT_LETTERBOX,
        references=REFERENCES,
        parity=[manifest_pb2.ParityFigure(name="vision_tail.embedding", relative_error=1e-7, threshold=1e-4)],
        limits=LIMITS,
    )


def settings_in_force(request: attribution_pb2.ExplainRequest, model: attribution_pb2.Model) -> settings_pb2.Settings:
    """Return the request's settings with those of its effort, or of each side's mask shape, in what is unset.

    Raises:
        InvalidRequestError: there are more steps or repeats than the limit, or none.
    """
    asked = request.settings
    effort = _effort(asked.effort or settings_pb2.EFFORT_PUBLISHED, model)
    own_text = effort.text_mask_shape or effort.mask_shape
    mask_shape = asked.mask_shape or effort.mask_shape
    text_mask_shape = asked.text_mask_shape or asked.mask_shape or own_text
    defaults = effort.settings if mask_shape == effort.mask_shape else _of_mask(mask_shape, model)
    text = effort.settings if text_mask_shape == own_text else _of_mask(text_mask_shape, model)
    settings = settings_pb2.Settings(
        effort=effort.effort,
        beta=defaults.beta,
        text_beta=asked.beta if asked.HasField("beta") else text.text_beta,
        steps=defaults.steps,
        samples=defaults.samples,
        learning_rate=defaults.learning_rate,
        mask_shape=mask_shape,
        seed=0,
        repeats=effort.repeats,
    )
    settings.MergeFrom(asked)
    settings.text_mask_shape = text_mask_shape
    _check(settings, {"steps": model.limits.max_steps, "repeats": model.limits.max_repeats})
    return settings


def _effort(number: settings_pb2.Effort.ValueType, model: attribution_pb2.Model) -> manifest_pb2.EffortDefaults:
    return next(effort for effort in model.defaults.efforts if effort.effort == number)


def _of_mask(mask_shape: settings_pb2.MaskShape.ValueType, model: attribution_pb2.Model) -> manifest_pb2.MaskDefaults:
    is_token = mask_shape == settings_pb2.MASK_SHAPE_TOKEN
    return model.defaults.token if is_token else model.defaults.channel


def _check(settings: settings_pb2.Settings, limits: Mapping[str, int]) -> None:
    for name, limit in limits.items():
        seen = getattr(settings, name)
        if not 1 <= seen <= limit:
            raise InvalidRequestError.of(
                f"settings.{name}", seen=str(seen), allowed=f"1 to {limit}", reason="SETTING_OUT_OF_RANGE"
            )
