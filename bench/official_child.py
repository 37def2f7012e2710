"""Runs the official M2IB code in a process of its own: a line of JSON in, a line of JSON out, until the input ends.

In: the seed. Out: first the pair's similarity and the operations of one explanation, then for each line in the
information per token, in nats, by side.

The checkout is imported as it is. It was written for transformers 4.30; what today's version does otherwise is settled
from outside, in `_adapt`, and changes neither the arithmetic nor how often anything is computed.
"""

import argparse
import importlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPModel

VARIANCE = 1  # as published; the code does not read it


def main() -> None:
    """Load the checkpoint, say so, and explain the pair once for every line that comes in."""
    options = _parse()
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    sys.stdout = sys.stderr  # the official code prints
    torch.set_num_threads(options.threads)
    bottleneck, methods = _import_official(options.checkout)
    model = _adapt_model(CLIPModel.from_pretrained(options.checkpoint, local_files_only=True))
    recorded = _adapt_code(bottleneck)
    pixels = torch.from_numpy(np.load(options.pixels))
    token_ids = torch.tensor([json.loads(options.token_ids)])
    explainers = {"image": methods.vision_heatmap_iba, "text": methods.text_heatmap_iba}
    layers = {"image": options.image_layer, "text": options.text_layer}

    def explain_pair() -> dict[str, list[float]]:
        for side, explain in explainers.items():
            explain(
                token_ids, pixels, model, layers[side], options.beta, VARIANCE, train_steps=options.steps, progbar=False
            )
        return {side: recorded.pop(0).nansum(dim=-1).tolist() for side in explainers}

    with FlopCounterMode(display=False) as counter:
        explain_pair()
    said = {"similarity": _similarity(model, pixels, token_ids), "flop": counter.get_total_flops()}
    print(json.dumps(said), file=answers)
    for line in sys.stdin:
        torch.manual_seed(json.loads(line)["seed"])
        print(json.dumps(explain_pair()), file=answers)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkout", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--pixels", type=Path, required=True, help="a .npy of float32 [1, channels, height, width]")
    parser.add_argument("--token-ids", required=True, help="a JSON list, the last one the end token")
    parser.add_argument("--image-layer", type=int, required=True)
    parser.add_argument("--text-layer", type=int, required=True)
    parser.add_argument("--beta", type=float, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    return parser.parse_args()


def _import_official(checkout: Path) -> tuple[ModuleType, ModuleType]:
    """Import the bottleneck and the methods; OpenAI's `clip`, which they import and do not use, may be absent."""
    sys.path.insert(0, str(checkout))
    sys.modules.setdefault("clip", ModuleType("clip"))
    return importlib.import_module("scripts.iba"), importlib.import_module("scripts.methods")


def _adapt_model(model: Any) -> Any:
    """Let `get_*_features` return the tensor, as transformers 4 did."""
    for name in ("get_text_features", "get_image_features"):
        setattr(model, name, _pooled(getattr(model, name)))
    return model.eval()


def _pooled(features: Callable[..., Any]) -> Callable[..., Tensor]:
    def call(*arguments: Any) -> Tensor:
        return cast("Tensor", features(*arguments).pooler_output)

    return call


def _adapt_code(official: ModuleType) -> list[Tensor]:
    """Fit the swapped-in layer to transformers 5, and return the list that every map's information is put into.

    An encoder layer now returns a tensor, not a tuple, and takes the causal mask as a keyword, which the official
    wrapper would drop: the block before the bottleneck would then see the whole text.
    """
    recorded: list[Tensor] = []

    def block_then_bottleneck(self: Any, hidden: Tensor, *rest: Any, **keywords: Any) -> Tensor:
        block, bottleneck = self.children()
        (noised,) = bottleneck(block(hidden, *rest, **keywords))
        return cast("Tensor", noised)

    sequential: Any = official.mySequential
    sequential.forward = block_then_bottleneck
    interpreter: Any = official.IBAInterpreter
    for name in ("_run_vision_training", "_run_text_training"):
        setattr(interpreter, name, _recording(getattr(interpreter, name), recorded))
    return recorded


def _recording(train: Callable[..., Any], recorded: list[Tensor]) -> Callable[..., Any]:
    """Keep the information [tokens, width], in nats, before it is drawn and normalised."""

    def call(*arguments: Any) -> Any:
        outcome = train(*arguments)
        recorded.append(outcome[0].detach())
        return outcome

    return call


@torch.no_grad()
def _similarity(model: Any, pixels: Tensor, token_ids: Tensor) -> float:
    pair = model.get_image_features(pixels), model.get_text_features(token_ids)
    return float(torch.cosine_similarity(*pair))


if __name__ == "__main__":
    main()
