"""Makes up the one model that the fake service has, and its settings in force."""

import hashlib

from m2ib.v1 import attribution_pb2, manifest_pb2, settings_pb2
from m2ib_client._errors import InvalidRequestError

ROWS = COLUMNS = 7
IMAGE_SIZE = 56
REFERENCES = 200
START_TOKEN_ID, END_TOKEN_ID = 1, 2
CHANNEL_DEFAULTS = manifest_pb2.MaskDefaults(beta=0.1, steps=10, samples=10, learning_rate=1.0)
TOKEN_DEFAULTS = manifest_pb2.MaskDefaults(beta=0.1, steps=10, samples=4, learning_rate=1.0)
LIMITS = attribution_pb2.Limits(
    max_steps=100,
    max_samples=64,
    max_image_bytes=48 * 1024 * 1024,
    max_image_pixels=50_000_000,
    max_score_images=64,
    max_score_texts=256,
    max_text_characters=10_000,
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
        defaults=manifest_pb2.Defaults(
            mask_shape=settings_pb2.MASK_SHAPE_CHANNEL, channel=CHANNEL_DEFAULTS, token=TOKEN_DEFAULTS
        ),
        default_fit=settings_pb2.FIT_LETTERBOX,
        references=REFERENCES,
        parity=[manifest_pb2.ParityFigure(name="vision_tail.embedding", relative_error=1e-7, threshold=1e-4)],
        limits=LIMITS,
    )


def settings_in_force(request: attribution_pb2.ExplainRequest, model: attribution_pb2.Model) -> settings_pb2.Settings:
    """Return the request's settings with the model's defaults in what is unset.

    Raises:
        InvalidRequestError: there are more steps than the limit, or none.
    """
    asked = request.settings
    mask_shape = asked.mask_shape or model.defaults.mask_shape
    is_token = mask_shape == settings_pb2.MASK_SHAPE_TOKEN
    defaults = model.defaults.token if is_token else model.defaults.channel
    settings = settings_pb2.Settings(
        beta=defaults.beta,
        steps=defaults.steps,
        samples=defaults.samples,
        learning_rate=defaults.learning_rate,
        mask_shape=mask_shape,
        seed=0,
    )
    settings.MergeFrom(asked)
    if not 1 <= settings.steps <= model.limits.max_steps:
        raise InvalidRequestError.of(
            "settings.steps",
            seen=str(settings.steps),
            allowed=f"1 to {model.limits.max_steps}",
            reason="SETTING_OUT_OF_RANGE",
        )
    return settings
