"""Models come to an engine that runs and leave it."""

import pytest
import torch

from fakes.engines import SECONDS, job_of, results, submitted
from fakes.graphs import DIGEST, FakeGraphs
from m2ib_server.engine import CostModel, FeatureCache
from m2ib_server.engine.cache import CacheKey
from m2ib_server.errors import ModelGone
from m2ib_server.package import Role

OTHER = "1" * 64


def other_job(seed):
    job = job_of(seed)
    job.model = OTHER
    return job


def test_a_model_comes_and_goes_under_a_running_engine(engine, graphs):
    other = FakeGraphs()
    engine.evaluator.add(OTHER, other)
    assert len(results(submitted(engine, other_job(1)))) == 1
    assert other.calls
    assert not graphs.calls
    engine.evaluator.remove(OTHER)
    (caller,) = submitted(engine, other_job(2))
    with pytest.raises(ModelGone):
        caller.reply.result(timeout=SECONDS)
    assert len(results(submitted(engine, job_of(3)))) == 1  # and the engine goes on


def test_jobs_of_a_model_that_goes_fail_without_their_neighbours(engine, graphs):
    other = FakeGraphs()
    engine.evaluator.add(OTHER, other)
    other.on_call = lambda role: engine.evaluator.remove(OTHER)
    gone, stays = submitted(engine, other_job(1)), submitted(engine, job_of(2))
    with pytest.raises(ModelGone):
        gone[0].reply.result(timeout=SECONDS)
    assert len(results(stays)) == 1


def test_what_was_kept_of_a_model_that_has_gone_is_forgotten(engine, graphs):
    results(submitted(engine, job_of(1)))
    engine.evaluator.remove(DIGEST)
    engine.evaluator.add(DIGEST, graphs)  # the same package again: nothing from before may answer for it
    hits = engine.evaluator.counts.hits.total()
    results(submitted(engine, job_of(1)))
    assert engine.evaluator.counts.hits.total() == hits
    results(submitted(engine, job_of(1)))
    assert engine.evaluator.counts.hits.total() > hits


def test_a_cache_forgets_one_model_and_its_bytes_and_no_other():
    cache = FeatureCache(max_bytes=1000)
    keys = [CacheKey(model=model, role=Role.VISION_HEAD, layer=1, content="a") for model in (DIGEST, OTHER)]
    for key in keys:
        cache.put(key, (torch.zeros(10),))
    cache.forget(DIGEST)
    assert [cache.get(key) is None for key in keys] == [True, False]
    assert cache.size_bytes == 40


def test_costs_of_a_model_that_has_gone_are_forgotten():
    costs = CostModel()
    for model in (DIGEST, OTHER):
        costs.observe(model, Role.VISION_HEAD, rows=2, seconds=4.0)
    costs.forget(DIGEST)
    assert costs.seconds(DIGEST, {Role.VISION_HEAD: 1}) == 0
    assert costs.seconds(OTHER, {Role.VISION_HEAD: 1}) == 2
