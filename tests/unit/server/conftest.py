"""Engines over fake graphs for the tests of this folder, closed after each."""

import pytest

from fakes.engines import engine_of
from fakes.graphs import FakeGraphs


@pytest.fixture
def graphs():
    return FakeGraphs()


@pytest.fixture
def make_engine(graphs):
    engines = []

    def make(**limits):
        engines.append(engine_of(graphs, **limits))
        return engines[-1]

    yield make
    graphs.gate.set()
    for engine in engines:
        engine.close()


@pytest.fixture
def engine(make_engine):
    running = make_engine()
    running.start()
    return running
