"""Turns a model's description, as the server sends it, into the client's own."""

from m2ib.v1 import attribution_pb2, manifest_pb2
from m2ib_client import _models
from m2ib_client._answer import NAME_BY_EFFORT, NAME_BY_FIT, NAME_BY_MASK_SHAPE, copied, known, seconds


def read_model(message: attribution_pb2.Model) -> _models.Model:
    """Return the description of one model.

    Raises:
        IncompatibleServerError: it names a mask shape, an effort or a fit that this client does not know.
    """
    return copied(
        _models.Model,
        message,
        vision=copied(_models.VisionEncoder, message.vision),
        text=copied(_models.TextEncoder, message.text),
        defaults=_defaults(message.defaults),
        default_fit=known(NAME_BY_FIT, message.default_fit, "default_fit"),
        parity=tuple(copied(_models.ParityFigure, figure) for figure in message.parity),
        limits=copied(
            _models.Limits,
            message.limits,
            image_time_to_live_seconds=seconds(message.limits.image_time_to_live),
        ),
    )


def read_models(message: attribution_pb2.ListModelsResponse) -> tuple[_models.Model, ...]:
    """Return the descriptions of all models, in the order of their names; raises as `read_model`."""
    return tuple(read_model(model) for model in message.models)


def _defaults(message: manifest_pb2.Defaults) -> _models.Defaults:
    return _models.Defaults(
        channel=copied(_models.MaskDefaults, message.channel),
        token=copied(_models.MaskDefaults, message.token),
        efforts={
            known(NAME_BY_EFFORT, effort.effort, "defaults.efforts.effort"): _effort(effort)
            for effort in message.efforts
        },
    )


def _effort(message: manifest_pb2.EffortDefaults) -> _models.EffortDefaults:
    return _models.EffortDefaults(
        mask_shape=known(NAME_BY_MASK_SHAPE, message.mask_shape, "defaults.efforts.mask_shape"),
        text_mask_shape=known(
            NAME_BY_MASK_SHAPE, message.text_mask_shape or message.mask_shape, "defaults.efforts.text_mask_shape"
        ),
        settings=copied(_models.MaskDefaults, message.settings),
        repeats=message.repeats,
    )
