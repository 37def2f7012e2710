"""Attribution methods: generators over frozen graphs, pure maths, each readable beside its paper."""

from m2ib_server.methods.bottleneck import MaskShape
from m2ib_server.methods.encoder import EncoderInput
from m2ib_server.methods.evaluation import Evaluation, Event, Method, PairEncoded, Side, StepDone
from m2ib_server.methods.m2ib import Attribution, M2IBSettings, attribution_so_far, explain, work
from m2ib_server.methods.score import score, score_work
from m2ib_server.methods.spread import spread_of

__all__ = [
    "Attribution",
    "EncoderInput",
    "Evaluation",
    "Event",
    "M2IBSettings",
    "MaskShape",
    "Method",
    "PairEncoded",
    "Side",
    "StepDone",
    "attribution_so_far",
    "explain",
    "score",
    "score_work",
    "spread_of",
    "work",
]
