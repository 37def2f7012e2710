"""Trains the demo model from nothing but phantoms. Writes a checkpoint whenever the validation films read better."""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import TextIO, cast

import numpy as np
import torch
from torch import Tensor
from torch.multiprocessing.spawn import spawn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import CLIPModel, CLIPTokenizer

from m2ib_export.demo.architecture import build_model, save_checkpoint
from m2ib_export.demo.batch import draw_batch
from m2ib_export.demo.corpus import TRAINING_SEED, VALIDATION_SEED, FilmSet, build_films
from m2ib_export.demo.loss import TrainingHeads, embed, total_loss, training_losses
from m2ib_export.demo.phrase import all_phrases
from m2ib_export.demo.reading import reading_scores
from m2ib_export.demo.vocabulary import learn_tokenizer

LARGEST_SCALE = 100.0  # of the contrastive logits, CLIP's own limit


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPlan:
    """Everything that decides a run, together with the code.

    `workers` processes of one thread each take steps on shared weights without waiting for one another, which
    suits a machine that does other work too; only a run of one worker that its steps end is repeatable bit by bit.
    The learning rate falls over `steps` steps of all workers or `minutes` minutes, whichever is nearer its end.
    """

    seed: int = 20261122
    films: int = 36_000
    validation_films: int = 600
    batch_size: int = 64
    steps: int = 7_000
    minutes: float = 72.0
    peak_rate: float = 1.5e-3
    warm_up_steps: int = 150
    weight_decay: float = 0.05
    validate_every: int = 250
    average_decay: float = 0.995
    workers: int = 2


def train(plan: TrainingPlan, films_folder: Path, checkpoint: Path, log: Path, start: Path | None = None) -> None:
    """Run the plan. start: a checkpoint to continue from; new weights when None."""
    torch.manual_seed(plan.seed)
    build_films(films_folder, TRAINING_SEED, plan.films, plan.workers)
    build_films(films_folder, VALIDATION_SEED, plan.validation_films, plan.workers)
    if start is None:
        tokenizer = learn_tokenizer(all_phrases())
        model = build_model(tokenizer)
    else:
        tokenizer, model = CLIPTokenizer.from_pretrained(start), CLIPModel.from_pretrained(start)
    heads = TrainingHeads()
    model.share_memory()
    heads.share_memory()
    taken = get_context("spawn").Value("l", 0)
    run = Run(plan=plan, films=films_folder, checkpoint=checkpoint, log=log, taken=taken, began=time.time())
    weights = dict(model.state_dict())
    spawn(work, args=(run, weights, heads, tokenizer), nprocs=plan.workers)  # type: ignore[no-untyped-call]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What the workers of one run share besides the weights. taken: steps of all workers; began: Unix time."""

    plan: TrainingPlan
    films: Path
    checkpoint: Path
    log: Path
    taken: Synchronized[int]
    began: float

    @property
    def minutes(self) -> float:
        """Minutes since the run began."""
        return (time.time() - self.began) / 60

    @property
    def progress(self) -> float:
        """Share of the run that is over; 1 or more at its end."""
        return max(self.taken.value / self.plan.steps, self.minutes / self.plan.minutes)

    def count_step(self) -> int:
        """Count one step; returns the steps of all workers so far."""
        with self.taken.get_lock():
            self.taken.value += 1
            return self.taken.value


def work(rank: int, run: Run, weights: dict[str, Tensor], heads: TrainingHeads, tokenizer: CLIPTokenizer) -> None:
    """Take steps on the shared weights to the end of the run; the first worker also validates and writes."""
    torch.set_num_threads(1)
    model = build_model(tokenizer)
    model.load_state_dict(weights, assign=True)  # the shared tensors themselves become the parameters
    plan = replace(run.plan, seed=run.plan.seed + rank)
    training = build_films(run.films, TRAINING_SEED, plan.films, 1)
    worker = Worker(plan, model, heads, tokenizer)
    if rank == 0:
        with run.log.open("a", encoding="utf-8") as lines:
            lead(worker, run, training, lines)
    else:
        while run.progress < 1.0:
            worker.step(training, run.taken.value, run.progress)
            run.count_step()


def lead(worker: Worker, run: Run, training: FilmSet, lines: TextIO) -> None:
    """Take steps, average the weights, and keep the average that reads the validation films best."""
    validation = build_films(run.films, VALIDATION_SEED, run.plan.validation_films, 1)
    average = Average(run, worker.model, worker.tokenizer, validation)
    write_line(lines, {"plan": asdict(run.plan)})
    due = run.plan.validate_every
    while run.progress < 1.0:
        losses = worker.step(training, run.taken.value, run.progress)
        average.update(worker.model)
        step = run.count_step()
        if step >= due or run.progress >= 1.0:
            due += run.plan.validate_every
            write_line(lines, {"step": step, "minutes": round(run.minutes, 2), **losses, **average.validate()})


class Average:
    """The running average of the weights, which is what gets written."""

    def __init__(self, run: Run, model: CLIPModel, tokenizer: CLIPTokenizer, validation: FilmSet) -> None:
        self.run = run
        decay = get_ema_multi_avg_fn(run.plan.average_decay)  # type: ignore[no-untyped-call]
        self.average = AveragedModel(model, multi_avg_fn=decay)
        self.tokenizer = tokenizer
        self.validation = validation
        self.best = -1.0

    def update(self, model: CLIPModel) -> None:
        """Take in the present weights."""
        self.average.update_parameters(model)

    def validate(self) -> dict[str, float]:
        """Score the average; write it if it beats all before."""
        averaged = cast(CLIPModel, self.average.module)
        scores = reading_scores(averaged, self.tokenizer, self.validation)
        if scores["top1"] >= self.best:
            self.best = scores["top1"]
            save_checkpoint(self.run.checkpoint, averaged, self.tokenizer)
        return scores


class Worker:
    """One process's view of the shared weights, with an optimiser of its own."""

    def __init__(self, plan: TrainingPlan, model: CLIPModel, heads: TrainingHeads, tokenizer: CLIPTokenizer) -> None:
        self.plan = plan
        self.model = model
        self.heads = heads
        self.tokenizer = tokenizer
        self.parameters = [*model.parameters(), *heads.parameters()]
        self.optimiser = torch.optim.AdamW(self.parameters, betas=(0.9, 0.98), weight_decay=plan.weight_decay)
        self.rng = np.random.default_rng(plan.seed)

    def step(self, training: FilmSet, step: int, progress: float) -> dict[str, float]:
        """One optimiser step; returns the losses. step: of all workers so far."""
        self.set_rate(step, progress)
        batch = draw_batch(training, self.plan.batch_size, self.rng)
        tokens = self.tokenizer(batch.texts, padding=True, truncation=True, return_tensors="pt")
        embedding = embed(self.model, batch.pixels, tokens["input_ids"], tokens["attention_mask"])
        losses = training_losses(embedding, self.heads, batch, self.scale())
        self.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(total_loss(losses))
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimiser.step()
        return {name: round(float(loss.detach()), 4) for name, loss in losses.items()}

    def scale(self) -> Tensor:
        """The contrastive logits' scale, learned but limited."""
        return self.model.logit_scale.exp().clamp(max=LARGEST_SCALE)

    def set_rate(self, step: int, progress: float) -> None:
        """Linear warm-up, then a cosine down to zero."""
        warm = min(1.0, (step + 1) / self.plan.warm_up_steps)
        for group in self.optimiser.param_groups:
            group["lr"] = self.plan.peak_rate * warm * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def write_line(lines: TextIO, entry: dict[str, object]) -> None:
    """Append one JSON line and flush it."""
    lines.write(json.dumps(entry) + "\n")
    lines.flush()
