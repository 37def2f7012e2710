"""The model package on disk: found, checked against its manifest, opened."""

from m2ib_server.package.role import Role
from m2ib_server.package.store import MODEL_NAME, ModelPackage, find_packages, open_package, read_manifest
from m2ib_server.package.version import version_key

__all__ = [
    "MODEL_NAME",
    "ModelPackage",
    "Role",
    "find_packages",
    "open_package",
    "read_manifest",
    "version_key",
]
