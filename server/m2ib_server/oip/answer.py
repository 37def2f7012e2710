"""Writes explanations and steps as ModelInferResponses: always raw, so that every client can read them."""

from collections.abc import Mapping, Sequence

from m2ib.oip import inference_pb2 as oip
from m2ib.v1 import attribution_pb2 as pb
from m2ib_server.api.answer import bits_kept, grid_of
from m2ib_server.engine import LoadedModel
from m2ib_server.methods import Side, StepDone
from m2ib_server.oip.outputs import Output
from m2ib_server.oip.tensors import FP32, Tensor

FINAL = "triton_final_response"


def write_answer(
    explanation: pb.Explanation, outputs: Sequence[Output], model: LoadedModel, request_id: str
) -> oip.ModelInferResponse:
    """Write an explanation; `request_id` is the caller's own."""
    rank = explanation.reference_rank
    said = {
        "m2ib_digest": oip.InferParameter(string_param=explanation.provenance.digest),
        "m2ib_partial": oip.InferParameter(bool_param=explanation.partial),
        "m2ib_reference_rank": oip.InferParameter(int64_param=rank.rank),
        "m2ib_references": oip.InferParameter(int64_param=rank.references),
    }
    answer = _response(model, request_id, said)
    for output in outputs:
        _add(answer, output.name, output.datatype, output.write(explanation))
    return answer


def write_step(step: StepDone, model: LoadedModel, request_id: str, *, grid: bool) -> oip.ModelStreamInferResponse:
    """Write a step that is done, of the image with its grid so far if so wished."""
    said = {
        "m2ib_side": oip.InferParameter(string_param=step.side.value),
        "m2ib_step": oip.InferParameter(int64_param=step.step),
        "m2ib_steps": oip.InferParameter(int64_param=step.steps),
        "m2ib_similarity": oip.InferParameter(double_param=step.similarity),
        "m2ib_bits_kept": oip.InferParameter(double_param=bits_kept(step, model)),
        FINAL: oip.InferParameter(bool_param=False),
    }
    progress = _response(model, request_id, said)
    if grid and step.side is Side.IMAGE:
        values = grid_of(step, model)
        _add(progress, "grid", FP32, Tensor(shape=values.shape, raw=values.astype("<f4").tobytes()))
    return oip.ModelStreamInferResponse(infer_response=progress)


def write_final(answer: oip.ModelInferResponse) -> oip.ModelStreamInferResponse:
    """Write an answer as the last message to its request."""
    answer.parameters[FINAL].bool_param = True
    return oip.ModelStreamInferResponse(infer_response=answer)


def write_fault(message: str, request_id: str) -> oip.ModelStreamInferResponse:
    """Write a fault as the last message to its request."""
    final = {FINAL: oip.InferParameter(bool_param=True)}
    return oip.ModelStreamInferResponse(
        error_message=message, infer_response=oip.ModelInferResponse(id=request_id, parameters=final)
    )


def _response(
    model: LoadedModel, request_id: str, parameters: Mapping[str, oip.InferParameter]
) -> oip.ModelInferResponse:
    manifest = model.manifest
    return oip.ModelInferResponse(
        model_name=manifest.name, model_version=manifest.version, id=request_id, parameters=parameters
    )


def _add(answer: oip.ModelInferResponse, name: str, datatype: str, tensor: Tensor) -> None:
    answer.outputs.add(name=name, datatype=datatype, shape=tensor.shape)
    answer.raw_output_contents.append(tensor.raw)
