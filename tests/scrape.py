"""Reads a server's metrics as Prometheus does."""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.request import ProxyHandler, build_opener

from prometheus_client.parser import text_string_to_metric_families

SECONDS = 60
METRICS = ("--metrics-listen", "127.0.0.1:0")  # the flags of a server whose metrics a test reads


@dataclass(frozen=True, kw_only=True)
class Scrape:
    """One scrape: its text, and each sample's value by its name and labels."""

    text: str
    samples: Mapping[tuple[str, frozenset[tuple[str, str]]], float]

    def value(self, name: str, **labels: str) -> float:
        """Return the sum of the samples of a name that have these labels; at least one has."""
        wanted = set(labels.items())
        found = [value for (of, having), value in self.samples.items() if of == name and wanted <= having]
        assert found, f"no sample {name} {labels}"
        return sum(found)

    @property
    def names(self) -> set[str]:
        return {name for name, _ in self.samples}


def scrape_address(running) -> str:
    """Return where a running server shows its metrics."""
    (ready,) = running.events("metrics ready")
    return ready["address"]


def scrape(running) -> Scrape:
    """Read a running server's metrics."""
    return read(scrape_address(running))


def read(address: str) -> Scrape:
    with build_opener(ProxyHandler({})).open(f"http://{address}/metrics", timeout=SECONDS) as answer:
        text = answer.read().decode()
    samples = {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    return Scrape(text=text, samples=samples)
