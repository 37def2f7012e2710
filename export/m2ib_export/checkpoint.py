"""Owns the way from what the user named to a checkpoint's directory and its configuration files. Loads no weights."""

import json
import re
from contextlib import AbstractContextManager, nullcontext
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from m2ib_export.errors import CheckpointInvalid, CheckpointUnreachable

DEMO = "demo"
PATTERNS = ["*.json", "*.txt", "*.safetensors", "pytorch_model*.bin"]
MAX_NAME_LENGTH = 64


def open_checkpoint(source: str) -> AbstractContextManager[Path]:
    """Give the directory of a checkpoint: the built-in demo's, one of this machine, or one downloaded from the hub.

    The word `demo` is always the built-in one; a directory of that name is `./demo`.

    Raises:
        CheckpointInvalid: `source` is a file.
        CheckpointUnreachable: `source` is no directory and cannot be downloaded.
    """
    if source == DEMO:
        return as_file(files("m2ib_export.demo").joinpath("checkpoint"))
    path = Path(source)
    if path.is_dir():
        return nullcontext(path)
    if path.exists():
        raise CheckpointInvalid("path", seen=f"the file {source}", allowed="a directory")
    return nullcontext(_download(source))


def _download(source: str) -> Path:
    try:
        return Path(snapshot_download(source, allow_patterns=PATTERNS))
    except HFValidationError:
        raise CheckpointUnreachable(source, reason="not the form of a hub name") from None
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as cause:
        raise CheckpointUnreachable(source, reason=type(cause).__name__) from cause


def read_config(directory: Path) -> dict[str, Any]:
    """Read the checkpoint's config.json.

    Raises:
        CheckpointInvalid: there is none, or it is no JSON object.
    """
    return read_json(directory, "config.json")


def read_json(directory: Path, name: str) -> dict[str, Any]:
    """Read one of the checkpoint's JSON files.

    Raises:
        CheckpointInvalid: there is none, or it is no JSON object.
    """
    try:
        document = json.loads((directory / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointInvalid(name, seen="no such file", allowed="a JSON file") from None
    except (OSError, ValueError) as cause:
        raise CheckpointInvalid(name, seen=f"{type(cause).__name__}: {cause}", allowed="a JSON file") from cause
    if not isinstance(document, dict):
        raise CheckpointInvalid(name, seen=type(document).__name__, allowed="a JSON object")
    return document


def default_name(source: str) -> str:
    """Make a model name of the last part of the source: lower case, other characters than the rule's become '-'."""
    name = re.sub(r"[^a-z0-9._-]+", "-", Path(source).resolve().name.lower()).strip("-")
    return name[:MAX_NAME_LENGTH] or "model"
