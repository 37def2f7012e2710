"""Reads a ModelInferRequest: what it asks of the explainer, as an ExplainRequest, and of the answer."""

from dataclasses import dataclass

from m2ib.oip import inference_pb2 as oip
from m2ib.v1 import attribution_pb2 as pb
from m2ib_server.api.batch import MAX_ID_CHARACTERS
from m2ib_server.errors import InvalidField
from m2ib_server.oip.outputs import Output, read_outputs, sides_of
from m2ib_server.oip.parameters import Parameters, read_parameters, set_fields
from m2ib_server.oip.tensors import read_elements

INPUTS = ("image", "text")
MOST_URGENT = 1  # the protocol counts priorities from here; 0 says nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a request asks for.

    Attributes:
        pair: the pair and its settings; the model is not named in it.
        outputs: in the order of the answer.
        parameters: what concerns the call rather than the pair.
    """

    pair: pb.ExplainRequest
    outputs: tuple[Output, ...]
    parameters: Parameters


def check_id(wire: oip.ModelInferRequest) -> None:
    """Refuse an id that is too long to be carried about.

    Raises:
        InvalidField: naming its length.
    """
    if len(wire.id) > MAX_ID_CHARACTERS:
        allowed = f"at most {MAX_ID_CHARACTERS} characters"
        raise InvalidField("id", seen=f"{len(wire.id)} characters", allowed=allowed)


def read_request(wire: oip.ModelInferRequest, *, is_stream: bool) -> Asked:
    """Read a request, cheap checks first; its raw contents are taken out of it, so that an image is held once.

    Raises:
        InvalidField: something of the request is not what is allowed.
    """
    check_id(wire)
    parameters = read_parameters(wire.parameters, is_stream=is_stream)
    outputs = read_outputs(wire.outputs)
    elements = read_elements(wire, INPUTS)
    wire.ClearField("raw_input_contents")
    pair = pb.ExplainRequest(
        image=pb.Image(encoded=elements["image"]),
        text=_text(elements["text"]),
        sides=sides_of(outputs),
        outputs=[output.native for output in outputs if output.native],
        priority=_priority(parameters.priority),
    )
    set_fields(pair, parameters.values)
    return Asked(pair=pair, outputs=outputs, parameters=parameters)


def _text(element: bytes) -> str:
    try:
        return element.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidField("inputs.text", seen=f"{len(element)} bytes that are no text", allowed="UTF-8") from None


def _priority(number: int) -> pb.Priority.ValueType:
    if not number:
        return pb.PRIORITY_UNSPECIFIED
    return pb.PRIORITY_INTERACTIVE if number == MOST_URGENT else pb.PRIORITY_BULK
