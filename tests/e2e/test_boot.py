"""What stops the server's boot, each with a reason: flags, variables, addresses, devices, packages."""

import hashlib
import json
import os
import shutil
import subprocess
import sys

import grpc
import pytest

from m2ib.v1 import attribution_pb2 as pb
from m2ib.v1 import attribution_pb2_grpc
from serving import running_server
from wire import details_of, png

SECONDS = 60


def boot(models, *flags, **variables):
    """Start a server that is expected to refuse; return its exit code and what it said."""
    command = [sys.executable, "-m", "m2ib_server", "serve", "--models", str(models), "--listen", "127.0.0.1:0"]
    environment = {**os.environ, "NO_COLOR": "1", "COLUMNS": "200", **variables}
    done = subprocess.run([*command, *flags], capture_output=True, text=True, timeout=120, env=environment, check=False)
    return done.returncode, " ".join(done.stderr.split())


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("M2IB_THREADS", "two"),
        ("M2IB_DEVICE", "gpu"),
        ("M2IB_MAX_WAITING", "0"),
        ("M2IB_GRACE_SECONDS", "-1"),
        ("M2IB_GRACE_SECONDS", "inf"),
        ("M2IB_UPLOAD_SECONDS", "inf"),
        ("M2IB_UPLOAD_SECONDS", "1e300"),
        ("M2IB_REFLECTION", "perhaps"),
        ("M2IB_MAX_SCORE_IMAGES", "0"),
        ("M2IB_MAX_SCORE_TEXTS", "many"),
        ("M2IB_MAX_TEXT_CHARACTERS", "-1"),
    ],
)
def test_a_malformed_variable_stops_boot_and_names_itself(tiny_package, variable, value):
    code, said = boot(tiny_package, **{variable: value})
    assert code == 2
    assert variable in said


@pytest.mark.parametrize(("flag", "variable", "least"), [("grace", "GRACE", "0"), ("upload", "UPLOAD", "0.1")])
@pytest.mark.parametrize("value", ["inf", "nan", "-1", "604800.5"])
def test_seconds_out_of_range_stop_boot_with_flag_variable_seen_and_allowed(tiny_package, flag, variable, least, value):
    code, said = boot(tiny_package, f"--{flag}-seconds", value)
    assert code == 2
    for word in (
        f"--{flag}-seconds",
        f"M2IB_{variable}_SECONDS",
        f"seen {value}",
        f"allowed: {least} to 604800 seconds",
    ):
        assert word in said


@pytest.mark.parametrize(("image", "message"), [("64", "64"), ("80", "64"), ("48", "32")])
def test_an_image_larger_than_a_message_stops_boot_and_names_both(tiny_package, image, message):
    flags = ("--max-image-mebibytes", image, "--max-message-mebibytes", message)
    code, said = boot(tiny_package, *flags)
    assert code == 2
    assert all(flag in said for flag in flags)


def test_an_operator_bounds_what_is_scored_and_how_long_a_text_may_be(tiny_package, tmp_path):
    variables = {"M2IB_MAX_SCORE_IMAGES": "1", "M2IB_MAX_TEXT_CHARACTERS": "10"}
    image = pb.Image(encoded=png())
    with (
        running_server(tiny_package, tmp_path, "--max-score-texts", "2", **variables) as running,
        grpc.insecure_channel(running.address) as channel,
    ):
        stub = attribution_pb2_grpc.AttributionServiceStub(channel)
        limits = stub.GetModel(pb.GetModelRequest(), timeout=SECONDS).model.limits
        assert (limits.max_score_images, limits.max_score_texts, limits.max_text_characters) == (1, 2, 10)
        for images, texts, field in (
            ([image, image], ["a cat"], "images"),
            ([image], ["a cat"] * 3, "texts"),
            ([image], ["a cat and a dog"], "texts[0]"),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                stub.Score(pb.ScoreRequest(images=images, texts=texts), timeout=SECONDS)
            assert details_of(caught.value)["BadRequest"].field_violations[0].field == field


@pytest.mark.parametrize("value", ["nonsense", "127.0.0.1:", "127.0.0.1:99999", ":1"])
def test_a_malformed_address_stops_boot(tiny_package, value):
    code, said = boot(tiny_package, "--listen", value)
    assert code == 2
    assert value in said


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0", "m2ib.example:0"])
def test_plaintext_beyond_loopback_stops_boot_and_names_both_ways_out(tiny_package, listen):
    code, said = boot(tiny_package, "--listen", listen)
    assert code == 2
    for word in (listen, "--tls-certificate", "--insecure"):
        assert word in said


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--tls-certificate", "x"], "--tls-key"),
        (["--tls-key", "x"], "--tls-certificate"),
        (["--tls-client-ca", "x"], "--tls-certificate"),
        (["--jwt-keys", "x"], "--jwt-issuer"),
        (["--jwt-issuer", "x", "--jwt-audience", "y"], "--jwt-keys"),
        (["--certificate-scopes", "explain,everything"], "seen everything; allowed: of admin, explain"),
    ],
)
def test_half_of_what_identity_needs_stops_boot_and_names_the_rest(tiny_package, flags, named):
    code, said = boot(tiny_package, *flags)
    assert code == 2
    assert named in said


@pytest.mark.parametrize(
    "flags",
    [
        ["--tokens", "absent"],
        ["--tls-certificate", "absent", "--tls-key", "absent"],
        ["--jwt-keys", "absent", "--jwt-issuer", "x", "--jwt-audience", "y"],
    ],
)
def test_a_file_of_identity_that_is_not_there_stops_boot_and_is_named(tiny_package, flags):
    code, said = boot(tiny_package, *flags)
    assert code == 3
    assert "absent" in said
    assert "ACCESS_FILE_UNUSABLE" in said


def test_a_taken_port_stops_boot(tiny_package, server):
    code, said = boot(tiny_package, "--listen", server.address)
    assert code == 3
    assert server.address in said


@pytest.mark.parametrize("device", ["cuda", "tensorrt"])
def test_a_device_that_is_not_there_stops_boot(tiny_package, device):
    code, said = boot(tiny_package, "--device", device)
    assert code == 3
    assert f"device {device}" in said
    assert "CPUExecutionProvider" in said


def test_more_devices_than_threads_on_a_cpu_stop_boot(tiny_package):
    code, said = boot(tiny_package, "--devices", "3", "--threads", "2")
    assert code == 2
    assert "--devices (M2IB_DEVICES) 3" in said
    assert "--threads (M2IB_THREADS) 2" in said


def test_an_empty_folder_stops_boot(tmp_path):
    code, said = boot(tmp_path)
    assert code == 3
    assert "no manifest.json" in said


def test_two_packages_of_one_version_stop_boot(tiny_package, tmp_path):
    for name in ("a", "b"):
        shutil.copytree(tiny_package, tmp_path / name)
    code, said = boot(tmp_path)
    assert code == 3
    assert "a second model 'tiny:1'" in said


def test_a_package_whose_weights_are_nonsense_fails_its_warm_up_and_never_serves(tiny_package, tmp_path):
    package = tmp_path / "package"
    shutil.copytree(tiny_package, package)
    weights = package / "vision_tail.weights"
    weights.write_bytes(b"\xff" * weights.stat().st_size)  # every float32 is NaN
    manifest = json.loads((package / "manifest.json").read_text())
    for packaged in manifest["files"]:
        if packaged["name"] == weights.name:
            packaged["sha256"] = hashlib.sha256(weights.read_bytes()).hexdigest()
    (package / "manifest.json").write_text(json.dumps(manifest))
    ready = tmp_path / "ready"
    code, said = boot(package, "--ready-file", str(ready))
    assert code == 3
    assert "not finite" in said
    assert not ready.exists()
