"""Times a whole optimisation step, graph and mask: the mask in closed form and by autograd, on one thread and on all.

Run as `PYTHONPATH=tests python bench/mask.py`.
"""

import argparse
import functools
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from inputs import draw_inputs
from m2ib_server.methods.bottleneck import MaskShape, alpha_gradient, information_nats, initial_alpha, noised_features
from m2ib_server.package import Role, open_package
from m2ib_server.runtime import DeviceKind, FrozenGraph, open_device, open_graphs
from report import Report, Value
from subject import TEXT, add_arguments, prepare
from turns import Contender, take_turns

BETA = 0.1
SIDES = {"image": Role.VISION_TAIL_GRAD, "text": Role.TEXT_TAIL_GRAD}
Gradient = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What a step needs: the gradient graph with its inputs, the features and a mask, which a step does not keep."""

    graph: FrozenGraph
    inputs: Mapping[str, Tensor]
    features: Tensor

    def take(self, gradient: Gradient, threads: int) -> None:
        """Take the first step of an optimisation, on so many of torch's threads."""
        torch.set_num_threads(threads)
        alpha = initial_alpha(self.features, MaskShape.CHANNEL, repeats=1)
        adam = torch.optim.Adam([alpha], lr=1.0)
        noise = torch.randn((1, *self.inputs["features"].shape))
        noised = noised_features(self.features, alpha, noise)
        _, by_noised = self.graph.run({**self.inputs, "features": noised.flatten(0, 1)})
        alpha.grad = gradient(self.features, alpha, noise, by_noised.view_as(noise))
        information_nats(self.features, alpha).sum(dim=-1)
        adam.step()


def closed_form(features: Tensor, alpha: Tensor, noise: Tensor, by_noised: Tensor) -> Tensor:
    """As served."""
    return alpha_gradient(features, alpha, noise, by_noised, beta=BETA)


def by_autograd(features: Tensor, alpha: Tensor, noise: Tensor, by_noised: Tensor) -> Tensor:
    """Through the mask's formulas, as they stand in the paper."""
    free = alpha.detach().requires_grad_()
    penalty = BETA * information_nats(features, free).mean(dim=(1, 2)).sum()
    fit = (by_noised * noised_features(features, free, noise)).sum() / noise.shape[1]
    (gradient,) = torch.autograd.grad(penalty - fit, free)
    return gradient


def main() -> None:
    """Let all take turns on both sides, and report."""
    options = _parse()
    subject = prepare(options.packages, options.preset)
    package = open_package(subject.package)
    graphs = open_graphs(package, open_device(DeviceKind.CPU, threads=options.threads))
    contenders: dict[str, Contender] = {}
    for side, role in SIDES.items():
        inputs = draw_inputs(package.graph(role), options.rows, options.tokens)
        step = Step(graph=graphs[role], inputs=inputs, features=inputs["features"][:1].clone())
        contenders[f"{side}, graph alone"] = functools.partial(graphs[role].run, inputs)
        for name, gradient in (("closed form", closed_form), ("autograd", by_autograd)):
            for threads in sorted({1, options.threads}):
                contenders[_name(side, name, threads)] = functools.partial(step.take, gradient, threads)
    seconds = take_turns(contenders, rounds=options.rounds, warm_up=3)
    report = Report(
        name="mask",
        title="An optimisation step: the graph, and the mask on torch's threads",
        settings={"model": subject.preset, "rows": options.rows, "tokens": options.tokens, "threads": options.threads},
        seconds=seconds,
        baseline=_name("image", "closed form", 1),
        findings={
            f"{side}: closed form on one thread, of autograd on all": _ratio(
                seconds[_name(side, "closed form", 1)], seconds[_name(side, "autograd", options.threads)]
            )
            for side in SIDES
        },
    )
    report.write(options.out)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    parser.add_argument("--rows", type=int, default=10, help="noise rows of a step")
    parser.add_argument("--tokens", type=int, default=21, help=f"a text's tokens; 21 for {TEXT!r}")
    parser.add_argument("--rounds", type=int, default=40)
    return parser.parse_args()


def _name(side: str, gradient: str, threads: int) -> str:
    return f"{side}, {gradient}, {threads} thread{'s' if threads > 1 else ''}"


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> Value:
    return statistics.median(one / other for one, other in zip(ours, theirs, strict=True))


if __name__ == "__main__":
    main()
