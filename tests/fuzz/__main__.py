"""Runs atheris: `python -m fuzz images 60` breaks images for a minute, `messages` calls,
`inferences` those of the Open Inference Protocol, `changes` those of the model repository; `make fuzz` does all.

What it finds is left in out/fuzz, a file for each input that broke the law; the corpus grows beside it.
"""

import hashlib
import sys
from pathlib import Path

import atheris  # from tests/fuzz/requirements.txt

with atheris.instrument_imports(include=["m2ib_server", "pydicom"], enable_loader_override=False):
    from fuzz.targets import Changes, Images, Inferences, Messages

from checkpoints import write_checkpoint
from packages import export

FOLDER = Path("out/fuzz")


def package() -> Path:
    """A folder with the tiny model, exported once."""
    models = FOLDER / "models"
    if not (models / "tiny" / "manifest.json").exists():
        checkpoint = write_checkpoint(FOLDER / "checkpoint" / "tiny", "tiny")
        export(checkpoint, models / "tiny", "--name", "tiny", "--version", "1")
    return models


def main(name: str, seconds: int) -> None:
    """Feed one target for so long."""
    services = {"messages": Messages, "inferences": Inferences, "changes": Changes}
    target = Images() if name == "images" else services[name](package())
    corpus = FOLDER / "corpus" / name
    corpus.mkdir(parents=True, exist_ok=True)
    for seed in target.seeds():
        (corpus / hashlib.sha256(seed).hexdigest()).write_bytes(seed)
    bounds = [f"-max_total_time={seconds}", "-timeout=90", "-rss_limit_mb=8192", "-max_len=65536"]
    atheris.Setup([sys.argv[0], *bounds, f"-artifact_prefix={FOLDER}/{name}-", str(corpus)], target.feed)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
