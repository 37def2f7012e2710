"""The model package on disk: found, checked against its manifest, opened."""

from m2ib_server.package.role import Role
from m2ib_server.package.store import ModelPackage, find_packages, open_package
from m2ib_server.package.version import version_key

__all__ = ["ModelPackage", "Role", "find_packages", "open_package", "version_key"]
