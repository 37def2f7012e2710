"""Times whole explanations of one pair, both sides: the server's engine and graphs against M2IB in eager PyTorch.

Run as `PYTHONPATH=tests python bench/eager.py`.
"""

import argparse
import math
from collections.abc import Callable

import torch
from tokenizers import Tokenizer
from torch import Tensor

from m2ib_server.bootstrap import build
from m2ib_server.engine import Caller, Engine, Job, LoadedModel
from m2ib_server.methods import Attribution, M2IBSettings, MaskShape, Side, explain
from m2ib_server.settings import EngineLimits, ServerSettings
from plain import PlainM2IB, PlainSettings
from report import Report
from subject import TEXT, Subject, add_arguments, picture, pixel_values, prepare
from turns import take_turns

Explain = Callable[[], dict[str, Tensor]]

OURS, EAGER = "engine and graphs", "eager PyTorch"
ALLOWED_DIFFERENCE = 1e-3  # of a map's largest value; more means that the contenders did not do the same work


def main() -> None:
    """Explain the pair by turns, compare the maps and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    subject = prepare(options.packages, options.preset)
    rooms = build(_server_settings(subject, options.threads))
    rooms.repository.load_all()
    try:
        (model,) = rooms.catalogue
        settings = PlainSettings(image_layer=model.manifest.vision.layer, text_layer=model.manifest.text.layer)
        contenders = {OURS: _ours(next(iter(rooms.fleet)), model, subject, settings), EAGER: _eager(subject, settings)}
        seconds = take_turns(contenders, rounds=options.rounds)
        differences = _differences(contenders[OURS](), contenders[EAGER]())
    finally:
        rooms.fleet.close()
    report = Report(
        name="eager",
        title="One explanation, image and text: the server's engine against eager PyTorch",
        settings={
            "model": subject.preset,
            "steps": settings.steps,
            "samples": settings.samples,
            "threads": options.threads,
        },
        seconds=seconds,
        baseline=OURS,
        findings={f"largest difference of the {side} map, of its largest value": d for side, d in differences.items()},
    )
    report.write(options.out)


def _server_settings(subject: Subject, threads: int) -> ServerSettings:
    """Keep nothing between explanations: each computes features and target once, as the other contender does."""
    engine = EngineLimits(cache_bytes=0)
    return ServerSettings(models=subject.models, listen="127.0.0.1:0", device="cpu", threads=threads, engine=engine)


def _ours(engine: Engine, model: LoadedModel, subject: Subject, settings: PlainSettings) -> Explain:
    pixels = pixel_values(picture(subject.preset))[0]
    own = M2IBSettings(
        beta=settings.beta,
        text_beta=settings.beta,
        steps=settings.steps,
        samples=settings.samples,
        learning_rate=settings.learning_rate,
        mask_shape=MaskShape.CHANNEL,
        text_mask_shape=MaskShape.CHANNEL,
        seed=settings.seed,
    )

    def run() -> dict[str, Tensor]:
        text = model.text_input(model.tokeniser.encode(TEXT, truncate=False))
        method = explain(model.image_input(pixels), text, own, tuple(Side))
        caller: Caller[Attribution] = Caller()
        engine.submit(Job(method, model=model.digest, rows=own.rows), caller)
        return {side.value: course[-1].bits for side, course in caller.reply.result().course.items()}

    return run


def _eager(subject: Subject, settings: PlainSettings) -> Explain:
    plain = PlainM2IB(subject.checkpoint, settings)
    tokeniser = Tokenizer.from_file(str(subject.checkpoint / "tokenizer.json"))
    pixels = torch.from_numpy(pixel_values(picture(subject.preset)))

    def run() -> dict[str, Tensor]:
        nats = plain.explain(pixels, torch.tensor([tokeniser.encode(TEXT).ids]))
        return {side: information / math.log(2) for side, information in nats.items()}

    return run


def _differences(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> dict[str, float]:
    """Largest difference by side, as a share of the map's largest value.

    Raises:
        ValueError: the maps are not the same.
    """
    shares = {side: float((ours[side] - bits).abs().max() / bits.abs().max()) for side, bits in theirs.items()}
    if not all(share <= ALLOWED_DIFFERENCE for share in shares.values()):
        raise ValueError(f"the maps differ by {shares} of their largest values; allowed: {ALLOWED_DIFFERENCE:g}")
    return shares


if __name__ == "__main__":
    main()
