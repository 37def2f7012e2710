"""The model repository: which versions there are on disk, which are loaded, and how they come and go."""

from m2ib_server.repository.loader import Loader
from m2ib_server.repository.polling import poll
from m2ib_server.repository.report import State, VersionReport
from m2ib_server.repository.repository import Repository

__all__ = ["Loader", "Repository", "State", "VersionReport", "poll"]
