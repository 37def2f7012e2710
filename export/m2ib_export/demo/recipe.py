"""Writes what the exporter reads beside the demo's checkpoint: the recipe and the reference phrases."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m2ib_export.demo.finding import ALL_FINDINGS
from m2ib_export.demo.phrase import NORMAL_PHRASES, plain_phrase, wordings

NAME, VERSION = "demo", "1.0.0"
RECIPE_FILE, REFERENCE_FILE = "m2ib.json", "reference_texts.txt"
SAMPLES, LEARNING_RATE = 10, 1.0
STEPS = {"channel": 10, "token": 20}  # the published number; what the sparser mask needs


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """The choices made on validation films. Layers are 0-based blocks whose output is the bottleneck."""

    vision_layer: int
    text_layer: int
    channel_beta: float
    token_beta: float
    text_betas: Mapping[str, float]

    def efforts(self) -> dict[str, Any]:
        """What the efforts mean for the demo, by docs/fidelity.md; published is the channel mask's default."""
        fast = {
            "beta": self.channel_beta,
            "text_beta": self.text_betas["token"],
            "steps": 20,
            "samples": 2,
            "learning_rate": LEARNING_RATE,
        }
        specific = fast | {"samples": 5}
        shapes = {"mask_shape": "channel", "text_mask_shape": "token"}
        return {
            "fast": shapes | {"settings": fast},
            "specific": shapes | {"settings": specific},
            "thorough": shapes | {"settings": specific, "repeats": 4},
        }

    def document(self) -> dict[str, Any]:
        """The recipe as the exporter reads it."""
        betas = {"channel": self.channel_beta, "token": self.token_beta}
        settings = {
            shape: {
                "beta": beta,
                "text_beta": self.text_betas[shape],
                "steps": STEPS[shape],
                "samples": SAMPLES,
                "learning_rate": LEARNING_RATE,
            }
            for shape, beta in betas.items()
        }
        return {
            "name": NAME,
            "version": VERSION,
            "vision_layer": self.vision_layer,
            "text_layer": self.text_layer,
            "fit": "letterbox",
            "defaults": settings | {"efforts": self.efforts()},
            "reference_texts": REFERENCE_FILE,
        }


RECIPE = Recipe(
    vision_layer=1,
    text_layer=0,
    channel_beta=5.0,
    token_beta=1.0,
    text_betas={"channel": 0.3, "token": 0.03},
)


def reference_texts() -> tuple[str, ...]:
    """The plain phrase and one sentence of every finding, and the phrases for a normal film."""
    plain = [plain_phrase(finding) for finding in ALL_FINDINGS]
    sentences = [[phrase for phrase in wordings(finding) if " is " in phrase] for finding in ALL_FINDINGS]
    rotated = [choices[position % len(choices)] for position, choices in enumerate(sentences)]
    return (*plain, *rotated, *NORMAL_PHRASES)


def write_recipe(checkpoint: Path) -> None:
    """Write both files into the checkpoint's folder."""
    document = json.dumps(RECIPE.document(), indent=2)
    (checkpoint / RECIPE_FILE).write_text(document + "\n", encoding="utf-8")
    (checkpoint / REFERENCE_FILE).write_text("\n".join(reference_texts()) + "\n", encoding="utf-8")
