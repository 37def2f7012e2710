"""Checks what importing the client costs: no framework of the server or of the exporter, and no optional package."""

import subprocess
import sys

import pytest

NEVER = ["torch", "onnxruntime", "onnx", "transformers", "tokenizers", "m2ib_server", "m2ib_export"]
ONLY_WHEN_NEEDED = ["pydicom", "typer", "rich"]


def loaded_after(statement: str) -> set[str]:
    program = f"{statement}; import sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_sdk_imports_nothing_heavy_and_nothing_optional() -> None:
    loaded = loaded_after("import m2ib_client, m2ib_client.testing")
    assert "m2ib_client" in loaded
    assert not loaded & {*NEVER, *ONLY_WHEN_NEEDED}


@pytest.mark.parametrize("module", ["m2ib_client.__main__", "m2ib_client._cli.app"])
def test_command_imports_nothing_heavy(module: str) -> None:
    assert not loaded_after(f"import {module}") & set(NEVER)
