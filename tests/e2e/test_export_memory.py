"""What an export of a full-size checkpoint takes: the peak memory of a process that does nothing else."""

import os
import sys

import pytest

from checkpoints import write_checkpoint

MOST_BYTES = 6_000_000_000
KIBIBYTE = 1024


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_an_export_of_vit_b_32_takes_less_than_six_gigabytes(tmp_path):
    checkpoint, package = write_checkpoint(tmp_path / "checkpoint", "vit-b-32"), tmp_path / "package"
    command = [sys.executable, "-m", "m2ib_export", str(checkpoint), str(package)]
    child = os.posix_spawn(sys.executable, command, os.environ)
    _, status, used = os.wait4(child, 0)  # this child's use alone
    assert os.waitstatus_to_exitcode(status) == 0
    assert (package / "manifest.json").exists()
    assert used.ru_maxrss * KIBIBYTE < MOST_BYTES
