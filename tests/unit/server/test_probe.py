"""A server is asked for its health where it can be reached, and the asking costs no more than it must."""

import subprocess
import sys

import pytest

from m2ib_server.probe import dialled


@pytest.mark.parametrize(
    ("listen", "dial"),
    [
        ("0.0.0.0:50051", "127.0.0.1:50051"),
        ("[::]:50051", "[::1]:50051"),
        ("[::0]:1", "[::1]:1"),
        ("[0:0:0:0:0:0:0:0]:1", "[::1]:1"),
        ("127.0.0.1:50051", "127.0.0.1:50051"),
        ("[::1]:50051", "[::1]:50051"),
        ("10.0.0.3:50051", "10.0.0.3:50051"),
        ("m2ib.example:443", "m2ib.example:443"),
        ("0.0.0.0.example:1", "0.0.0.0.example:1"),
    ],
)
def test_an_unspecified_host_is_dialled_on_loopback(listen: str, dial: str) -> None:
    assert dialled(listen) == dial


def test_reading_the_command_line_loads_no_grpc() -> None:
    """It takes its log's verbosity from the environment when it is loaded, and that is set after the flags are read."""
    check = "import sys, m2ib_server.__main__; sys.exit('grpc' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_asking_for_health_loads_no_model_code() -> None:
    check = "import sys, m2ib_server.__main__, m2ib_server.probe; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
