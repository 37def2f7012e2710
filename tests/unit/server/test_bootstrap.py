"""A server is built of packages that work, or not at all."""

import json
import shutil

import pytest

from m2ib_server.bootstrap import build
from m2ib_server.errors import PackageCorrupt
from m2ib_server.settings import ServerSettings


def test_whatever_ends_a_warm_up_names_the_packages_folder(tiny_package, tmp_path):
    package = shutil.copytree(tiny_package, tmp_path / "package")
    manifest = json.loads((package / "manifest.json").read_text())
    manifest["vision"]["image_size"] *= 2  # no graph takes such an image, and no check before the warm-up sees it
    (package / "manifest.json").write_text(json.dumps(manifest))
    rooms = build(ServerSettings(models=package, listen="127.0.0.1:0", device="cpu", threads=1))
    try:
        with pytest.raises(PackageCorrupt, match=r"package: seen a warm-up that ended in \w+; allowed"):
            rooms.repository.load_all()
    finally:
        rooms.fleet.close()
