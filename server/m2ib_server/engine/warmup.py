"""Runs every graph of a model once before it is served: what fails here would fail for the first caller."""

import torch

from m2ib_server.engine.engine import Engine
from m2ib_server.engine.job import Caller, Job
from m2ib_server.engine.model import LoadedModel
from m2ib_server.engine.schedule import Priority
from m2ib_server.errors import EmbeddingUndefined, PackageCorrupt
from m2ib_server.methods import Attribution, M2IBSettings, MaskShape, Side, explain

WARM_UP = M2IBSettings(
    beta=0.1,
    text_beta=0.1,
    steps=3,
    samples=10,
    learning_rate=1.0,
    mask_shape=MaskShape.CHANNEL,
    text_mask_shape=MaskShape.CHANNEL,
    seed=0,
)  # as many rows as published, so that the engine learns what a request costs
_TIMEOUT_SECONDS = 300


def warm_up(model: LoadedModel, engine: Engine) -> None:
    """Explain a black image and the first reference text, both sides, behind the callers of models that serve already.

    Raises:
        PackageCorrupt: features, an embedding or an attribution are not finite, or one has not one value per token.
        ServiceError: whatever the engine answers.
    """
    text = model.tokeniser.encode(model.references.texts[0], truncate=True)
    image = model.image_input(torch.zeros(model.model_input.shape).numpy())
    method = explain(image, model.text_input(text), WARM_UP, tuple(Side))
    caller: Caller[Attribution] = Caller()
    engine.submit(Job(method, model=model.digest, rows=WARM_UP.rows, priority=Priority.BULK), caller)
    try:
        attribution = caller.reply.result(timeout=_TIMEOUT_SECONDS)
    except EmbeddingUndefined as error:
        seen, allowed = "features or an embedding that are not finite, or without length", "finite ones"
        raise PackageCorrupt(str(model.package.folder), seen=seen, allowed=allowed) from error
    finally:
        caller.cancel()  # one that took too long is not waited for any more
    vision = model.manifest.vision
    tokens = {
        Side.IMAGE: vision.leading_tokens + vision.grid_rows * vision.grid_columns,
        Side.TEXT: len(text.token_ids),
    }
    for side, course in attribution.course.items():
        bits = course[-1].bits
        if bits.shape != (tokens[side],) or not bool(torch.isfinite(bits).all()):
            seen = f"an {side} attribution of shape {list(bits.shape)}, or one that is not finite"
            raise PackageCorrupt(str(model.package.folder), seen=seen, allowed=f"{tokens[side]} finite values")
