"""How many threads the process may run: quotas of nested control groups, of version 1 and 2, made in a folder."""

import os

import pytest

from m2ib_server.cores import allowed_threads, available_threads

PROCESSORS = 8
NONE = "max 100000"
SERVICE = "0::/system.slice/m2ib.service\n"
DOCKER = "5:cpuset:/docker/1f\n4:cpu,cpuacct:/docker/1f\n1:name=systemd:/docker/1f\n"


def write_version_2(group, text):
    group.mkdir(parents=True, exist_ok=True)
    (group / "cpu.max").write_text(text + "\n")


def write_version_1(group, quota, period=100_000):
    group.mkdir(parents=True, exist_ok=True)
    (group / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (group / "cpu.cfs_period_us").write_text(f"{period}\n")


@pytest.mark.parametrize(
    ("quota", "threads"),
    [
        (NONE, PROCESSORS),
        ("50000 100000", 1),
        ("100000 100000", 1),
        ("250000 100000", 2),
        ("100000 25000", 4),
        ("1600000 100000", PROCESSORS),
    ],
)
def test_a_quota_bounds_the_threads_by_whole_processors(tmp_path, quota, threads):
    write_version_2(tmp_path, quota)
    assert allowed_threads(PROCESSORS, tmp_path, "0::/\n") == threads


@pytest.mark.parametrize(
    ("service", "above", "threads"),
    [("300000 100000", NONE, 3), (NONE, "300000 100000", 3), ("500000 100000", "200000 100000", 2)],
)
def test_the_smallest_quota_of_a_group_and_its_ancestors_wins(tmp_path, service, above, threads):
    write_version_2(tmp_path / "system.slice/m2ib.service", service)
    write_version_2(tmp_path / "system.slice", above)
    assert allowed_threads(PROCESSORS, tmp_path, SERVICE) == threads


def test_a_neighbours_quota_does_not_count(tmp_path):
    write_version_2(tmp_path / "system.slice/other.service", "100000 100000")
    write_version_2(tmp_path / "system.slice/m2ib.service", NONE)
    assert allowed_threads(PROCESSORS, tmp_path, SERVICE) == PROCESSORS


@pytest.mark.parametrize("mount", ["cpu,cpuacct", "cpu"])
@pytest.mark.parametrize(
    ("quota", "threads"), [(-1, PROCESSORS), (50_000, 1), (250_000, 2), (300_000, 3), (1_600_000, PROCESSORS)]
)
def test_version_1_has_quota_and_period_in_files_of_their_own(tmp_path, mount, quota, threads):
    write_version_1(tmp_path / mount / "docker/1f", quota)
    assert allowed_threads(PROCESSORS, tmp_path, DOCKER) == threads


def test_the_smallest_quota_wins_in_version_1_too(tmp_path):
    write_version_1(tmp_path / "cpu/docker/1f", 500_000)
    write_version_1(tmp_path / "cpu/docker", 200_000)
    write_version_1(tmp_path / "cpu", -1)
    assert allowed_threads(PROCESSORS, tmp_path, DOCKER) == 2


def test_a_machine_with_both_versions_obeys_both(tmp_path):
    write_version_1(tmp_path / "cpu/docker/1f", 500_000)
    write_version_2(tmp_path / "system.slice/m2ib.service", "300000 100000")
    assert allowed_threads(PROCESSORS, tmp_path, DOCKER + SERVICE) == 3


def test_a_container_that_sees_the_hosts_path_obeys_its_mount(tmp_path):
    write_version_1(tmp_path / "cpu", 200_000)  # the folder docker/1f is the host's and not mounted here
    assert allowed_threads(PROCESSORS, tmp_path, DOCKER) == 2


def test_a_path_out_of_the_mount_is_not_followed(tmp_path):
    write_version_2(tmp_path / "other", "100000 100000")
    write_version_2(tmp_path / "mount", "300000 100000")
    assert allowed_threads(PROCESSORS, tmp_path / "mount", "0::/../other\n") == 3


@pytest.mark.parametrize("membership", ["", "0::/\n", DOCKER])
def test_without_control_groups_the_affinity_alone_counts(tmp_path, membership):
    assert allowed_threads(PROCESSORS, tmp_path, membership) == PROCESSORS


def test_this_process_may_run_a_thread_and_no_more_than_its_affinity():
    assert 1 <= available_threads() <= len(os.sched_getaffinity(0))
