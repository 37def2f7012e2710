"""Owns how many threads this process may run at once: its affinity, bounded by its control groups' quotas."""

import os
from collections.abc import Iterator
from pathlib import Path

CGROUP_ROOT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def available_threads() -> int:
    """Return how many threads this process may run at once, at least one."""
    try:
        membership = MEMBERSHIP.read_text(encoding="utf-8")
    except OSError:  # a kernel without control groups
        membership = ""
    return allowed_threads(len(os.sched_getaffinity(0)), CGROUP_ROOT, membership)


def allowed_threads(processors: int, root: Path, membership: str) -> int:
    """Return the whole processors that the smallest quota leaves of `processors`, at least one.

    Args:
        processors: those that the process may run on.
        root: where control groups are mounted, version 1, version 2 or both.
        membership: what /proc/self/cgroup says, a line `number:controllers:path` for each hierarchy.
    """
    return max(1, min([processors, *_quotas(root, membership)]))


def _quotas(root: Path, membership: str) -> Iterator[int]:
    """Yield the quota of every group that the process is in and of every ancestor of one, in whole processors."""
    for line in membership.splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:  # version 2 has one hierarchy for all controllers
            yield from _version_2(root, path)
        elif "cpu" in controllers.split(","):
            yield from _version_1(root / controllers, path)
            yield from _version_1(root / "cpu", path)  # a link to the former, or the mount's own name


def _version_2(mount: Path, path: str) -> Iterator[int]:
    for group in _group_and_ancestors(mount, path):
        yield from _whole_processors(_read(group / "cpu.max"))


def _version_1(mount: Path, path: str) -> Iterator[int]:
    for group in _group_and_ancestors(mount, path):
        yield from _whole_processors(f"{_read(group / 'cpu.cfs_quota_us')} {_read(group / 'cpu.cfs_period_us')}")


def _group_and_ancestors(mount: Path, path: str) -> list[Path]:
    """List a group's folder and all above it up to the mount.

    In a container the path may be the host's and lead nowhere here, or lead out of the mount by `..`; the container's
    own group is then the mount itself.
    """
    group = mount / path.lstrip("/")
    folders = [mount] if ".." in group.parts else [group, *group.parents]
    return [folder for folder in folders if folder.is_relative_to(mount)]


def _whole_processors(text: str) -> Iterator[int]:
    """Yield the processors of `quota period`, in microseconds, rounded down; nothing where there is no quota."""
    quota, _, period = text.strip().partition(" ")
    if quota.isdecimal() and period.isdecimal():  # else "max", -1, or no such file
        yield int(quota) // int(period)


def _read(path: Path) -> str:
    """Read a file of the kernel's; empty where there is none or it is not ours to read."""
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""
