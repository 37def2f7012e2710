"""Attribution methods: generators over frozen graphs, pure maths, each readable beside its paper."""

from m2ib_server.methods.bottleneck import MaskShape
from m2ib_server.methods.encoder import EncoderInput
from m2ib_server.methods.evaluation import Evaluation, Method, Side, StepDone
from m2ib_server.methods.m2ib import Attribution, M2IBSettings, explain
from m2ib_server.methods.score import score

__all__ = [
    "Attribution",
    "EncoderInput",
    "Evaluation",
    "M2IBSettings",
    "MaskShape",
    "Method",
    "Side",
    "StepDone",
    "explain",
    "score",
]
