"""Packages that are a manifest and no more, and a loader that takes them."""

import json
import shutil
import threading

from m2ib_server.errors import PackageCorrupt
from m2ib_server.package import read_manifest


class FakeModel:
    """A loaded model of which only the manifest and the digest matter; equal to nothing but itself."""

    def __init__(self, folder):
        self.manifest, self.digest = read_manifest(folder)
        self.package = type("Package", (), {"folder": folder})

    def __repr__(self):
        return f"{self.manifest.name}:{self.manifest.version}"


class FakeLoader:
    """Loads whatever has a manifest, a package of 100 bytes each; waits while `gate` is closed."""

    def __init__(self):
        self.loaded, self.unloaded = [], []
        self.faulty = set()  # folders whose warm-up fails
        self.broken, self.broken_loads = set(), 0  # folders whose load ends by a fault that nobody foresaw
        self.gate = threading.Event()
        self.gate.set()
        self.at_once = self.most_at_once = 0

    def estimate(self, manifest):
        return 100

    def load(self, folder, digest):
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        assert self.gate.wait(timeout=60)
        self.at_once -= 1
        if folder in self.broken:
            self.broken_loads += 1
            raise OSError("of the folder's disk")
        if folder in self.faulty:
            raise PackageCorrupt(str(folder), seen="features that are not finite", allowed="finite ones")
        model = FakeModel(folder)
        if model.digest != digest:
            raise PackageCorrupt(str(folder), seen="a manifest that changed meanwhile", allowed="files that stay")
        self.loaded.append(model)
        return model

    def unload(self, model):
        self.unloaded.append(repr(model))


def write_package(original, folder, **changes):
    """Write a manifest like that of another package, with changes, and nothing else."""
    folder.mkdir(parents=True, exist_ok=True)
    manifest = json.loads((original / "manifest.json").read_text(encoding="utf-8"))
    (folder / "manifest.json").write_text(json.dumps({**manifest, **changes}), encoding="utf-8")
    return folder


def copy_package(original, folder, *, damaged=(), **changes):
    """Copy a whole package, its manifest changed; of the files damaged their last byte is lost."""
    shutil.copytree(original, folder, dirs_exist_ok=True)
    write_package(folder, folder, **changes)
    for name in damaged:
        path = folder / name
        path.write_bytes(path.read_bytes()[:-1])
    return folder
