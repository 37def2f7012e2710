from fakes.engines import LeavingEngine
from m2ib_server.engine import Fleet

PATIENCE = 0.3


def test_callers_of_every_engine_are_sent_away_before_any_is_waited_for():
    order: list[str] = []
    fleet = Fleet([LeavingEngine("first", order), LeavingEngine("second", order)])
    assert fleet.close(PATIENCE)
    assert order == ["stop first", "stop second", "join first", "join second"]


def test_engines_that_hang_are_waited_for_together_and_once():
    engines = [LeavingEngine(name, [], hangs=True) for name in ("first", "second", "third")]
    fleet = Fleet(engines)
    assert not fleet.close(PATIENCE)
    assert sum(engine.waited for engine in engines) <= PATIENCE
    assert not fleet.close(PATIENCE)
    assert sum(engine.waited for engine in engines) <= PATIENCE
    for engine in engines:
        engine.hangs = False
    assert fleet.close(PATIENCE)  # an end that came late is one
