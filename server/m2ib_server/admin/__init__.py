"""The services for operators."""

from m2ib_server.admin.models import ModelRepositoryServicer

__all__ = ["ModelRepositoryServicer"]
