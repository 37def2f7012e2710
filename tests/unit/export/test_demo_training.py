"""Training of the demo: the loss means what it says, labels follow the masks, and a step moves shared weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from m2ib_export.demo.anatomy import Side, Zone
from m2ib_export.demo.architecture import build_model
from m2ib_export.demo.batch import GRID, SIDED_KINDS, make_batch, shift
from m2ib_export.demo.corpus import CELL_SIDE, FilmSet, build_films, render_films
from m2ib_export.demo.finding import Finding, Kind
from m2ib_export.demo.loss import TrainingHeads, spread_cross_entropy
from m2ib_export.demo.phrase import all_phrases
from m2ib_export.demo.train import TrainingPlan, Worker
from m2ib_export.demo.vocabulary import learn_tokenizer

NODULE = Finding(kind=Kind.NODULE, side=Side.RIGHT, zone=Zone.UPPER)
EFFUSION = Finding(kind=Kind.EFFUSION, side=Side.LEFT)


@pytest.fixture(scope="module")
def films() -> FilmSet:
    return render_films(range(12), lambda _: (NODULE, EFFUSION))


def test_any_true_caption_satisfies_the_contrastive_loss() -> None:
    truths = torch.tensor([[True, True, False], [False, False, True]])
    right = torch.tensor([[30.0, 30.0, 0.0], [0.0, 0.0, 30.0]])
    assert spread_cross_entropy(right, truths) == pytest.approx(np.log(2) / 2, abs=1e-3)
    assert spread_cross_entropy(-right, truths) > 10


def test_patch_labels_mark_kind_and_side_where_the_masks_are(films: FilmSet) -> None:
    batch = make_batch(films, np.arange(12), np.random.default_rng(0), jitter=False)
    marked = batch.patch_labels.reshape(12, GRID, GRID, len(SIDED_KINDS)).sum(dim=0)
    nodule, effusion = (marked[..., SIDED_KINDS.index((f.kind, f.side))] for f in (NODULE, EFFUSION))
    assert marked.sum() == nodule.sum() + effusion.sum()
    assert nodule[: GRID // 2, : GRID // 2].sum() == nodule.sum() >= 12
    assert effusion[GRID // 2 :, GRID // 2 :].sum() == effusion.sum() >= 12


def test_own_caption_is_true_and_near_miss_false(films: FilmSet) -> None:
    batch = make_batch(films, np.arange(12), np.random.default_rng(0), jitter=True)
    assert batch.truths[:, :12].diagonal().all()
    assert not batch.truths[:, 12:].any()


def test_shift_moves_film_and_mask_together(films: FilmSet) -> None:
    images = np.zeros_like(films.images)
    covers = np.zeros_like(films.covers)
    images[:, 40 : 40 + CELL_SIDE, 60 : 60 + CELL_SIDE] = 255
    covers[:, 0, 10, 15] = 255
    moved, moved_covers = shift(images, covers, np.random.default_rng(3))
    places = np.argwhere(moved_covers[:, 0])
    assert len({tuple(place[1:]) for place in places}) > 1
    for film, row, column in places:
        assert moved[film, row * CELL_SIDE, column * CELL_SIDE] == 255


def test_rendered_arrays_are_opened_again_rather_than_made_again(tmp_path: Path) -> None:
    first = build_films(tmp_path, 5, 3, workers=1)
    before = (tmp_path / "5-3.images").stat().st_mtime_ns
    again = build_films(tmp_path, 5, 3, workers=1)
    assert np.array_equal(first.images, again.images)
    assert np.array_equal(first.images, render_films(range(5, 8)).images)
    assert (tmp_path / "5-3.images").stat().st_mtime_ns == before


def test_a_step_moves_the_shared_weights(films: FilmSet) -> None:
    torch.set_num_threads(1)
    tokenizer = learn_tokenizer(all_phrases())
    shared = dict(build_model(tokenizer).share_memory().state_dict())
    before = {name: weight.clone() for name, weight in shared.items()}
    model = build_model(tokenizer)
    model.load_state_dict(shared, assign=True)
    plan = TrainingPlan(batch_size=8, warm_up_steps=1)
    losses = Worker(plan, model, TrainingHeads(), tokenizer).step(films, step=0, progress=0.0)
    assert all(np.isfinite(list(losses.values())))
    assert any(not torch.equal(before[name], weight) for name, weight in shared.items())
