"""Names the six graphs of a package."""

from enum import Enum

from m2ib.v1 import manifest_pb2 as pb


class Role(Enum):
    """What a graph computes; the values are those of m2ib.v1.GraphRole."""

    VISION_HEAD = pb.GRAPH_ROLE_VISION_HEAD
    VISION_TAIL = pb.GRAPH_ROLE_VISION_TAIL
    VISION_TAIL_GRAD = pb.GRAPH_ROLE_VISION_TAIL_GRAD
    TEXT_HEAD = pb.GRAPH_ROLE_TEXT_HEAD
    TEXT_TAIL = pb.GRAPH_ROLE_TEXT_TAIL
    TEXT_TAIL_GRAD = pb.GRAPH_ROLE_TEXT_TAIL_GRAD
