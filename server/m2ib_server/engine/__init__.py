"""The engine room: admission, scheduling, the feature cache and the catalogue of loaded models."""

from m2ib_server.engine.cache import FeatureCache
from m2ib_server.engine.catalogue import Catalogue, LoadedModel, load_model
from m2ib_server.engine.engine import Engine
from m2ib_server.engine.evaluator import Evaluator
from m2ib_server.engine.job import Job, Stage
from m2ib_server.engine.ranking import ReferenceRank
from m2ib_server.engine.warmup import warm_up

__all__ = [
    "Catalogue",
    "Engine",
    "Evaluator",
    "FeatureCache",
    "Job",
    "LoadedModel",
    "ReferenceRank",
    "Stage",
    "load_model",
    "warm_up",
]
