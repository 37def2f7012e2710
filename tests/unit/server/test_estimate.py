import pytest

from fakes.engines import SETTINGS, job_of
from fakes.graphs import DIGEST
from m2ib_server.engine import CostModel
from m2ib_server.engine.estimate import Estimator
from m2ib_server.methods import Side
from m2ib_server.methods.encoder import HEAD, TAIL, TAIL_GRAD
from m2ib_server.settings import EngineLimits


@pytest.fixture
def costs():
    """A row costs two seconds in a head, a half in a tail, a tenth in a gradient."""
    costs = CostModel()
    for graphs, seconds in ((HEAD, 2.0), (TAIL, 0.5), (TAIL_GRAD, 0.1)):
        for side in Side:
            costs.observe(DIGEST, graphs[side], rows=4, seconds=4 * seconds)
    return costs


def test_a_newcomers_next_turn_encodes(costs):
    estimator = Estimator(EngineLimits(), costs)
    assert estimator.next_turn(job_of()) == pytest.approx(2 * (2.0 + 0.5))


def test_the_next_turn_of_a_job_under_way_is_what_it_waits_for(costs):
    job = job_of()
    job.start()
    assert Estimator(EngineLimits(), costs).next_turn(job) == pytest.approx(2 * 2.0)


def test_a_job_alone_is_done_after_all_its_rows(costs):
    job = job_of()
    gradients = 2 * SETTINGS.steps * SETTINGS.samples * 0.1
    assert Estimator(EngineLimits(), costs).until_done(job, job.priority, [job]) == pytest.approx(5.0 + gradients)


def test_what_was_never_seen_costs_nothing():
    assert Estimator(EngineLimits(), CostModel()).next_turn(job_of()) == 0
