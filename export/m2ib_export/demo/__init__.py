"""The demonstration model: a small CLIP trained on procedural phantoms, and the means to remake it."""

from pathlib import Path

CHECKPOINT = Path(__file__).parent / "checkpoint"
