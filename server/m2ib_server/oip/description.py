"""Describes models as the protocol and as Triton do: from the manifest and the table of outputs."""

from collections.abc import Sequence

from m2ib.oip import inference_pb2 as oip
from m2ib.oip import model_config_pb2 as config
from m2ib_server.engine import LoadedModel
from m2ib_server.oip.outputs import OUTPUTS
from m2ib_server.oip.request import INPUTS
from m2ib_server.oip.tensors import BYTES, FP32

PLATFORM = "m2ib"
INPUT_SHAPE = (1,)
DATA_TYPES = {BYTES: config.TYPE_STRING, FP32: config.TYPE_FP32}


def write_metadata(model: LoadedModel, versions: Sequence[str]) -> oip.ModelMetadataResponse:
    """Describe a model's tensors; `versions` are those that can be asked for."""
    manifest, metadata = model.manifest, oip.ModelMetadataResponse.TensorMetadata
    return oip.ModelMetadataResponse(
        name=manifest.name,
        versions=versions,
        platform=PLATFORM,
        inputs=[metadata(name=name, datatype=BYTES, shape=INPUT_SHAPE) for name in INPUTS],
        outputs=[
            metadata(name=output.name, datatype=output.datatype, shape=output.shape(manifest)) for output in OUTPUTS
        ],
        properties=_properties(model),
    )


def write_config(model: LoadedModel, *, device: str, engines: int) -> config.ModelConfig:
    """Describe a model as Triton would: for tools that ask before they measure."""
    manifest = model.manifest
    kind = config.ModelInstanceGroup.KIND_CPU if device == "cpu" else config.ModelInstanceGroup.KIND_GPU
    return config.ModelConfig(
        name=manifest.name,
        platform=PLATFORM,
        backend=PLATFORM,
        input=[config.ModelInput(name=name, data_type=DATA_TYPES[BYTES], dims=INPUT_SHAPE) for name in INPUTS],
        output=[
            config.ModelOutput(name=output.name, data_type=DATA_TYPES[output.datatype], dims=output.shape(manifest))
            for output in OUTPUTS
        ],
        instance_group=[config.ModelInstanceGroup(name=device, count=engines, kind=kind)],
        model_transaction_policy=config.ModelTransactionPolicy(decoupled=False),
        parameters={name: config.ModelParameter(string_value=value) for name, value in _properties(model).items()},
    )


def _properties(model: LoadedModel) -> dict[str, str]:
    manifest = model.manifest
    return {"digest": model.digest, "family": manifest.family, "precision": manifest.precision}
