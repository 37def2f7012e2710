"""Turns pairs into the requests of a batch, and its answers into outcomes. Without I/O but the reading of images."""

from typing import cast

from m2ib.v1 import attribution_pb2
from m2ib_client._answer import read_explanation
from m2ib_client._errors import IncompatibleServerError, M2IBError
from m2ib_client._handle import ImageHandle
from m2ib_client._many.images import RepeatedImages
from m2ib_client._many.ledger import Entry
from m2ib_client._many.pair import ManyResult, Pair, read_pair
from m2ib_client._options import ExplainOptions, ImageSource
from m2ib_client._request import explain_request
from m2ib_client._results import Explanation
from m2ib_client._status import error_of_status


def prepare(
    index: int, given: object, options: ExplainOptions, images: RepeatedImages, max_message_bytes: int
) -> Entry | ManyResult:
    """Return the pair ready to be sent, or the result of one that cannot be."""
    pair = Pair(cast(ImageSource, given), "")  # what is no pair is shown where an image would be
    try:
        pair = read_pair(given)
        source = images.stand_in(pair.image)
        own: ExplainOptions = {**options, **pair.options}
        request = explain_request(source, pair.text, max_message_bytes=max_message_bytes, **own)
        image = source if isinstance(source, ImageHandle) else images.notice(source, request.image)
    except Exception as error:  # whatever is wrong with one pair must not end the others
        return ManyResult(index=index, pair=pair, explanation=None, error=error)
    if image is not None:
        request.image.handle = ""
    return Entry(index=index, pair=pair, request=request, image=image, size_bytes=request.ByteSize())


def batch_request(entry: Entry) -> attribution_pb2.ExplainBatchRequest:
    """Return the message for a pair, under its index."""
    return attribution_pb2.ExplainBatchRequest(id=str(entry.index), request=entry.request)


def inline_request(entry: Entry, image: ImageHandle) -> attribution_pb2.ExplainBatchRequest:
    """Return the message for a pair with the image itself in place of its name."""
    message = batch_request(entry)
    message.request.image.encoded = image.encoded
    return message


def read_answer(message: attribution_pb2.ExplainBatchResponse) -> tuple[int, Explanation | M2IBError]:
    """Return the pair's index and what came of it.

    Raises:
        IncompatibleServerError: the answer is to no pair of ours.
    """
    if not message.id.isascii() or not message.id.isdecimal():
        raise IncompatibleServerError("the server answers a pair that was not asked")
    return int(message.id), _outcome(message)


def _outcome(message: attribution_pb2.ExplainBatchResponse) -> Explanation | M2IBError:
    match message.WhichOneof("outcome"):
        case "explanation":
            try:
                return read_explanation(message.explanation)
            except IncompatibleServerError as error:
                return error
        case "status":
            return error_of_status(message.status)
        case _:
            return IncompatibleServerError("the answer holds an outcome that this client does not know")
