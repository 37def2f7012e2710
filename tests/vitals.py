"""Reads what a process holds, from outside: memory, threads, open descriptors. Linux only."""

from dataclasses import dataclass
from pathlib import Path

_KIBIBYTE = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Vitals:
    """What a process holds at one moment.

    Attributes:
        resident_bytes: its resident memory, pages of mapped files included.
        file_bytes: of that, the pages of mapped files, which all processes that map them share.
        peak_bytes: the most that was ever resident.
        threads: their number.
        descriptors: open files, sockets and pipes.
    """

    resident_bytes: int
    file_bytes: int
    peak_bytes: int
    threads: int
    descriptors: int


def vitals_of(process: int) -> Vitals:
    """Read the vitals of the process with an id.

    Raises:
        FileNotFoundError: there is none.
    """
    folder = Path("/proc") / str(process)
    lines = (folder / "status").read_text(encoding="utf-8").splitlines()
    status = dict(line.split(":", 1) for line in lines if ":" in line)

    def number(name: str) -> int:
        return int(status[name].split()[0])

    return Vitals(
        resident_bytes=number("VmRSS") * _KIBIBYTE,
        file_bytes=number("RssFile") * _KIBIBYTE,
        peak_bytes=number("VmHWM") * _KIBIBYTE,
        threads=number("Threads"),
        descriptors=sum(1 for _ in (folder / "fd").iterdir()),
    )
