"""Measures what a map's cost buys: distance to the converged map, localisation and text specificity.

Run as `PYTHONPATH=tests python bench/fidelity.py`; every finished job is kept under `out/fidelity`, so a run that was
stopped goes on where it was. `bench/fidelity_report.py` turns what is there into figures, a table and plots.
"""

import argparse
import multiprocessing
import time
from pathlib import Path

import numpy as np
import torch

from fidelity_contenders import FILMS, Job, jobs
from fidelity_films import demo_graph, image_question, two_finding_trial
from fidelity_mask import GradientGraph, Question, follow, rows_of

OUT = Path("out/fidelity")
_worker: dict[str, object] = {}  # a worker's graph and question


def main() -> None:
    """Run the jobs that are not done yet, in order."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each")
    options = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    left = [job for job in jobs() if not path_of(job).exists()]
    with multiprocessing.get_context("spawn").Pool(options.workers, _enter) as pool:
        for name, seconds in pool.imap_unordered(_work, left):
            print(f"{time.strftime('%H:%M:%S')} {name} {seconds:.0f} s", flush=True)


def path_of(job: Job) -> Path:
    """Where a job's course is kept."""
    return OUT / f"{job.name}.npz"


def _enter() -> None:
    torch.set_num_threads(1)
    _worker["question"] = image_question(two_finding_trial("test", FILMS))
    _worker["graph"] = demo_graph("vision", 1)


def _work(job: Job) -> tuple[str, float]:
    graph, question = _worker["graph"], _worker["question"]
    assert isinstance(graph, GradientGraph) and isinstance(question, Question)
    started = time.process_time()
    course = follow(graph, rows_of(question, job.start, job.count), job.plan, job.seed, job.start)
    partial = path_of(job).with_suffix(".partial.npz")
    np.savez(partial, bits=course.bits, similarity=course.similarity)
    partial.rename(path_of(job))
    return job.name, time.process_time() - started


if __name__ == "__main__":
    main()
