"""`m2ib bench` against the real server."""

import json
import subprocess
import sys

CALLS = ("--rate", "8", "--duration", "2", "--warm-up", "0.5", "--distinct", "3", "--model", "tiny")
CHEAP = ("--steps", "2", "--samples", "2", "--deadline", "60")


def bench(server, *options):
    command = [sys.executable, "-m", "m2ib_client", "bench", "--server", server.address, *CALLS, *CHEAP, *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_a_mixed_load_is_answered_and_told_with_the_servers_own_times(server):
    done = bench(server, "--json", "--cancel", "0.2", "--stream", "0.3", "--bulk", "0.3")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    seen = report["figures"]
    assert {one["status"] for one in seen["outcomes"]} <= {"OK", "CANCELLED (as planned)"}
    assert seen["latency_seconds"]["answered"]["p50"] > seen["server_seconds"]["total"]["p50"] > 0
    assert seen["server_seconds"]["optimise_image"]["max"] > 0
    assert seen["cache_share"]["image_features_cached"] + seen["cache_share"]["shared"] > 0  # 3 images, many calls
    assert seen["models"] == [{"model": "tiny", "version": "1", "device": "cpu"}]


def test_what_the_server_refuses_is_counted_by_its_reason(server):
    done = bench(server, "--json", "--text", "word " * 200)
    assert done.returncode == 7
    (refusal,) = json.loads(done.stdout)["figures"]["outcomes"]
    assert (refusal["status"], refusal["reason"]) == ("INVALID_ARGUMENT", "TEXT_TOO_LONG")
