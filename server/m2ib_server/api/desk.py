"""Owns what the services that explain share: threads, places, uploads, images lately read, and the explainer."""

from m2ib_server.api.explainer import Explainer
from m2ib_server.api.images import ImageReader
from m2ib_server.api.intake import Intake
from m2ib_server.api.uploads import UploadStore
from m2ib_server.api.workers import Workers
from m2ib_server.engine import Catalogue, Fleet
from m2ib_server.settings import ServerSettings
from m2ib_server.telemetry import log_event


class Desk:
    """One desk for every service of a server, so that its bounds hold over all of them. One event loop's alone."""

    def __init__(self, catalogue: Catalogue, fleet: Fleet, settings: ServerSettings) -> None:
        """Explain with the catalogue's models on the fleet's engines."""
        self.catalogue, self.fleet = catalogue, fleet
        self.workers = Workers()
        self.intake = Intake(
            max_requests=settings.intake.max_requests,
            max_bytes=settings.intake.max_bytes,
            max_caller_requests=settings.intake.max_caller_requests,
            max_caller_bytes=settings.intake.max_caller_bytes,
            until_end=fleet.until_end,
        )
        self.uploads = UploadStore(
            max_bytes=settings.intake.upload_bytes,
            max_caller_bytes=settings.intake.max_caller_bytes,
            seconds_to_live=settings.intake.upload_seconds,
        )
        self.images = ImageReader(
            self.uploads,
            settings.requests,
            aside=self.workers.aside,
            decode=self.workers.decode,
            cache_bytes=settings.intake.image_cache_bytes,
        )
        self.explainer = Explainer(catalogue, fleet, self.images, self.intake, self.workers, settings)

    def close(self) -> None:
        """Forget what was uploaded and end the threads that read and write."""
        log_event("uploads forgotten", uploads=len(self.uploads), upload_bytes=self.uploads.size_bytes)
        self.uploads.close()
        self.workers.close()
