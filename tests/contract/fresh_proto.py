"""Fails when the generated code of the wire contract differs from what its .proto files generate now."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROTO = ROOT / "proto"


def generate(target: Path) -> None:
    """Generate into `target` what `make proto` generates into `proto/`."""
    files = sorted(str(path) for path in (PROTO / "m2ib/v1").glob("*.proto"))
    scripts = str(Path(sys.executable).parent)
    environment = {**os.environ, "PATH": os.pathsep.join([scripts, os.environ["PATH"]])}
    protoc = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTO}"]
    messages = [f"--python_out={target}", f"--mypy_out=quiet:{target}", *files]
    services = [f"--grpc_python_out={target}", f"--mypy_grpc_out=quiet:{target}"]
    subprocess.run([*protoc, *messages], check=True, env=environment)
    subprocess.run([*protoc, *services, str(PROTO / "m2ib/v1/attribution.proto")], check=True, env=environment)


def stale_files() -> list[str]:
    """Name the generated files that are missing, superfluous or different."""
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        fresh = {path.name: path.read_bytes() for path in Path(folder, "m2ib/v1").iterdir()}
    present = {path.name: path.read_bytes() for path in (PROTO / "m2ib/v1").glob("*_pb2*")}
    return sorted(name for name in fresh.keys() | present.keys() if fresh.get(name) != present.get(name))


if __name__ == "__main__":
    if stale := stale_files():
        sys.exit(f"generated code is stale, run `make proto`: {', '.join(stale)}")
