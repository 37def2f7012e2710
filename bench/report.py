"""Owns what a benchmark leaves behind: `<name>.json`, `<name>.md` and `<name>.png` in one folder."""

import json
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from chart import Panel, draw_bars, draw_panels

Value = str | int | float
DEFAULT_OUT = Path("out/bench")
SOFTWARE = ("torch", "onnxruntime", "transformers")


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One run of one benchmark.

    Attributes:
        name: the files' name.
        title: what was compared.
        settings: what it was run with.
        seconds: every measurement of each contender, in seconds, in the order measured.
        baseline: the contender whose median every ratio is a multiple of.
        rows: further columns of the table, by contender.
        findings: the figures that a reader may quote, by what they say.
        panels: the plots; none means one bar for each contender.
    """

    name: str
    title: str
    settings: Mapping[str, Value]
    seconds: Mapping[str, Sequence[float]]
    baseline: str
    rows: Mapping[str, Mapping[str, Value]] = field(default_factory=dict)
    findings: Mapping[str, Value] = field(default_factory=dict)
    panels: Sequence[Panel] = ()

    @property
    def medians(self) -> dict[str, float]:
        """The median of each contender, in seconds."""
        return {name: statistics.median(taken) for name, taken in self.seconds.items()}

    def write(self, out: Path) -> None:
        """Write the three files into `out` and print the Markdown."""
        out.mkdir(parents=True, exist_ok=True)
        machine = describe_machine()
        text = self._markdown(machine)
        (out / f"{self.name}.json").write_text(json.dumps(self._plain(machine), indent=2) + "\n", encoding="utf-8")
        (out / f"{self.name}.md").write_text(text, encoding="utf-8")
        if self.panels:
            draw_panels(self.panels, self.title, out / f"{self.name}.png")
        else:
            draw_bars(self.seconds, self.title, out / f"{self.name}.png")
        print(text)

    def _plain(self, machine: Mapping[str, Value]) -> dict[str, object]:
        return {
            "name": self.name,
            "machine": dict(machine),
            "software": {name: version(name) for name in SOFTWARE},
            "settings": dict(self.settings),
            "baseline": self.baseline,
            "median_seconds": self.medians,
            "seconds": {name: list(taken) for name, taken in self.seconds.items()},
            "rows": {name: dict(row) for name, row in self.rows.items()},
            "findings": dict(self.findings),
        }

    def _markdown(self, machine: Mapping[str, Value]) -> str:
        columns = list(dict.fromkeys(name for row in self.rows.values() for name in row))
        head = ["", "median", "fastest to slowest", "rounds", f"multiple of {self.baseline}", *columns]
        medians = self.medians
        lines = [_line(head), _line(["---"] * len(head))]
        for name, taken in self.seconds.items():
            spread = f"{duration(min(taken))} to {duration(max(taken))}"
            ratio = f"{medians[name] / medians[self.baseline]:.2f}"
            further = [_shown(self.rows.get(name, {}).get(column, "")) for column in columns]
            lines.append(_line([name, duration(medians[name]), spread, str(len(taken)), ratio, *further]))
        facts = [f"- {name}: {_shown(value)}" for name, value in self.findings.items()]
        return "\n".join(
            [
                f"# {self.title}",
                "",
                f"Machine: {machine['cores']} cores, {machine['memory_gib']} GiB of memory.",
                f"Settings: {', '.join(f'{name} {_shown(value)}' for name, value in self.settings.items())}.",
                "",
                *lines,
                *(["", *facts] if facts else []),
                "",
            ]
        )


def describe_machine() -> dict[str, Value]:
    """Return the cores this process may use and the memory in GiB; nothing that would tell machines apart."""
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"cores": len(os.sched_getaffinity(0)), "memory_gib": round(memory_bytes / 2**30)}


def duration(seconds: float) -> str:
    """Write a duration with the unit that suits it."""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.1f} ms"


def _shown(value: Value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
