"""A server is built of packages that work, or not at all."""

import json
import shutil
import subprocess
import sys

import pytest

from m2ib_server.__main__ import let_threads_sleep
from m2ib_server.bootstrap import build
from m2ib_server.errors import PackageCorrupt
from m2ib_server.settings import ServerSettings


def test_whatever_ends_a_warm_up_names_the_packages_folder(tiny_package, tmp_path):
    package = shutil.copytree(tiny_package, tmp_path / "package")
    manifest = json.loads((package / "manifest.json").read_text())
    manifest["vision"]["image_size"] *= 2  # no graph takes such an image, and no check before the warm-up sees it
    (package / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(PackageCorrupt, match=r"package: seen a warm-up that ended in \w+; allowed"):
        build(ServerSettings(models=package, listen="127.0.0.1:0", device="cpu", threads=1))


@pytest.mark.parametrize(("given", "policy"), [({}, "passive"), ({"OMP_WAIT_POLICY": "active"}, "active")])
def test_torchs_threads_sleep_when_idle_unless_the_operator_says_otherwise(given, policy):
    environment = dict(given)
    let_threads_sleep(environment)
    assert environment["OMP_WAIT_POLICY"] == policy


def test_the_policy_of_threads_is_set_before_torch_loads():
    code = "import sys, m2ib_server.__main__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
