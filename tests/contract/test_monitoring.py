"""Dashboard, alert rules and the operators' page name metrics that the real server has, and all of them."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import grpc
import pytest
import yaml

from m2ib.v1 import attribution_pb2_grpc, settings_pb2
from scrape import scrape
from wire import explain_request

ROOT = Path(__file__).parents[2]
OPERATIONS = ROOT / "docs" / "operations"
ALERTS = OPERATIONS / "alerts.yml"
ALERT_TESTS = Path(__file__).with_name("alerts_test.yml")
FAMILY = re.compile(r"\b(?:m2ib|grpc_server|process)_[a-z0-9_]+\b")
SELECTED = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\s*[{\[]")
OF_PROMETHEUS = {"up"}  # it makes this one itself
SECONDS = 60

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool (Debian: prometheus) is not here"
)


@pytest.fixture(scope="module")
def seen(server):
    """A scrape of the real server after a call, so that what counts calls has a series."""
    with grpc.insecure_channel(server.address) as channel:
        stub = attribution_pb2_grpc.AttributionServiceStub(channel)
        stub.Explain(explain_request(settings=settings_pb2.Settings(steps=1, samples=1)), timeout=SECONDS)
    return scrape(server)


def families(seen):
    """Return each metric's type by its name, as the scrape declares them."""
    declared = (line.split() for line in seen.text.splitlines() if line.startswith("# TYPE "))
    return {name: kind for _, _, name, kind in declared}


def dashboard_queries():
    dashboard = json.loads((OPERATIONS / "grafana-dashboard.json").read_text())
    return [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]


def alert_queries():
    return [rule["expr"] for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def names_in(queries):
    """Return every name that is selected, and every name with a prefix of ours wherever it stands."""
    names = {name for query in queries for name in (*FAMILY.findall(query), *SELECTED.findall(query))}
    return names - OF_PROMETHEUS


@pytest.mark.parametrize("queries", [dashboard_queries, alert_queries], ids=["dashboard", "alerts"])
def test_every_metric_that_is_asked_for_is_one_of_the_servers(seen, queries):
    names = names_in(queries())
    assert len(names) > 10
    assert names <= seen.names


def test_every_label_that_is_asked_for_is_on_the_metric(seen):
    selectors = re.compile(r"([a-z0-9_]+)\{([^}]*)\}")
    having = {}
    for name, labels in seen.samples:
        having.setdefault(name, set()).update(label for label, _ in labels)
    for query in (*dashboard_queries(), *alert_queries()):
        for name, inside in selectors.findall(query):
            asked = set(re.findall(r"([a-z_]+)\s*[=!]", inside)) - {"job", "instance"}
            assert name in OF_PROMETHEUS or asked <= having[name], query


def test_the_operators_page_has_every_metric_with_its_type_and_no_other(seen):
    page = (OPERATIONS / "monitoring.md").read_text()
    rows = (line.split("|") for line in page.splitlines() if line.startswith("| `") and line.count("|") == 6)
    assert {row[1].strip(" `"): row[2].strip() for row in rows} == families(seen)


def test_the_operators_page_explains_every_alert_and_each_has_a_test():
    alerts = {rule["alert"] for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]}
    page = (OPERATIONS / "monitoring.md").read_text()
    assert set(re.findall(r"^\| `(M2IB\w+)`", page, re.MULTILINE)) == alerts
    tests = yaml.safe_load(ALERT_TESTS.read_text())["tests"]
    fired = {case["alertname"] for test in tests for case in test["alert_rule_test"] if case["exp_alerts"]}
    held = {case["alertname"] for test in tests for case in test["alert_rule_test"] if not case["exp_alerts"]}
    assert fired == held == alerts


def test_panels_have_ids_and_places_of_their_own():
    panels = json.loads((OPERATIONS / "grafana-dashboard.json").read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert all(x < 24 for x, _ in cells)
        taken |= cells


@needs_promtool
@pytest.mark.parametrize(
    "arguments", [("check", "rules", ALERTS), ("test", "rules", ALERT_TESTS)], ids=["check", "test"]
)
def test_prometheus_takes_the_alert_rules_and_they_fire_when_they_should(arguments):
    done = subprocess.run(["promtool", *arguments], check=False, capture_output=True, text=True, timeout=SECONDS)  # noqa: S607
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_prometheus_finds_nothing_to_mend_in_a_scrape(seen):
    command = ["promtool", "check", "metrics"]
    done = subprocess.run(command, check=False, input=seen.text, capture_output=True, text=True, timeout=SECONDS)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
