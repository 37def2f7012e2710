"""The engine room: admission, scheduling, the feature cache and the catalogue of loaded models."""

from m2ib_server.engine.cache import FeatureCache
from m2ib_server.engine.catalogue import CHAMPION, LATEST, Aliases, Catalogue
from m2ib_server.engine.cost import CostModel
from m2ib_server.engine.engine import Engine
from m2ib_server.engine.evaluator import Evaluator
from m2ib_server.engine.fleet import Fleet
from m2ib_server.engine.job import Caller, Job, Period, Stage
from m2ib_server.engine.model import DeviceModel, LoadedModel
from m2ib_server.engine.observer import UNOBSERVED, EngineObserver
from m2ib_server.engine.pulse import Pulse
from m2ib_server.engine.ranking import ReferenceRank
from m2ib_server.engine.roster import Census, Ending, Roster
from m2ib_server.engine.schedule import Priority
from m2ib_server.engine.warmup import warm_up

__all__ = [
    "CHAMPION",
    "LATEST",
    "UNOBSERVED",
    "Aliases",
    "Caller",
    "Catalogue",
    "Census",
    "CostModel",
    "DeviceModel",
    "Ending",
    "Engine",
    "EngineObserver",
    "Evaluator",
    "FeatureCache",
    "Fleet",
    "Job",
    "LoadedModel",
    "Period",
    "Priority",
    "Pulse",
    "ReferenceRank",
    "Roster",
    "Stage",
    "warm_up",
]
