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
    paths = sorted(PROTO.glob("m2ib/*/*.proto"))
    files = [str(path) for path in paths]
    with_services = [str(path) for path in paths if "\nservice " in path.read_text(encoding="utf-8")]
    scripts = str(Path(sys.executable).parent)
    environment = {**os.environ, "PATH": os.pathsep.join([scripts, os.environ["PATH"]])}
    protoc = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTO}"]
    messages = [f"--python_out={target}", f"--mypy_out=quiet:{target}", *files]
    services = [f"--grpc_python_out={target}", f"--mypy_grpc_out=quiet:{target}"]
    subprocess.run([*protoc, *messages], check=True, env=environment)
    subprocess.run([*protoc, *services, *with_services], check=True, env=environment)


def stale_files() -> list[str]:
    """Name the generated files that are missing, superfluous or different."""
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        fresh = _generated(Path(folder))
    present = _generated(PROTO)
    return sorted(name for name in fresh.keys() | present.keys() if fresh.get(name) != present.get(name))


def _generated(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.glob("m2ib/*/*_pb2*")}


if __name__ == "__main__":
    if stale := stale_files():
        sys.exit(f"generated code is stale, run `make proto`: {', '.join(stale)}")
