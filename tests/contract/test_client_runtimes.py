"""The client on the newest protobuf, gRPC and NumPy that its metadata allow, against the server of this environment."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from serving import running_server
from wire import png

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 600
UNREACHABLE = ("No matching distribution found", "Could not find a version", "Failed to establish", "ConnectionError")
# What a program of a user's does; it tells what it ran on.
PROGRAM = """
import json, sys
from pathlib import Path
import google.protobuf, grpc, numpy as np
import m2ib.v1.attribution_pb2 as generated
import m2ib_client
address, image = sys.argv[1:]
with m2ib_client.Client(address, timeout=60) as client:
    explanation = client.explain(Path(image), "a dog", steps=2, samples=2)
grid = np.asarray(explanation.image.grid_bits)
print(json.dumps({
    "shape": grid.shape, "finite": bool(np.isfinite(grid).all()),
    "file": m2ib_client.__file__, "wire": generated.__file__,
    "protobuf": google.protobuf.__version__, "numpy": np.__version__, "grpc": grpc.__version__,
}))
"""


def environment() -> dict[str, str]:
    """This process's, without what would lead Python or pip back to this workspace and its pinned versions."""
    return {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "PIP_CONSTRAINT"}}


@pytest.fixture(scope="module")
def newest(tmp_path_factory):
    """The Python of an environment in which pip has chosen all versions but protobuf's major."""
    folder = tmp_path_factory.mktemp("newest")
    sources = [shutil.copytree(ROOT / name, folder / name) for name in ("proto", "client")]  # built aside from ours
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True, timeout=SECONDS)
    python = folder / "venv" / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "protobuf>=7.35", *sources]
    done = subprocess.run(
        install, capture_output=True, text=True, timeout=SECONDS, env=environment(), cwd=folder, check=False
    )
    if done.returncode and any(sign in done.stderr for sign in UNREACHABLE) and "conflict" not in done.stderr.lower():
        pytest.skip("no package index with protobuf 7 is reachable")
    assert done.returncode == 0, done.stderr
    return python


@pytest.mark.slow
@pytest.mark.timeout(2 * SECONDS)
def test_the_client_explains_on_protobuf_7_and_numpy_2(newest, tiny_package, tmp_path):
    image = tmp_path / "image.png"
    image.write_bytes(png())
    with running_server(tiny_package, tmp_path) as running:
        done = subprocess.run(
            [newest, "-W", "error::DeprecationWarning:m2ib", "-c", PROGRAM, running.address, image],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            env=environment(),
            cwd=tmp_path,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["finite"]
    assert len(told["shape"]) == 2
    assert (told["protobuf"].split(".")[0], told["numpy"].split(".")[0]) == ("7", "2")
    venv = str(newest.parent.parent)
    assert told["file"].startswith(venv)
    assert told["wire"].startswith(venv)
