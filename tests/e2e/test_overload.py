"""What callers of the real server meet when there is too much to do, and when the network loses them."""

import json
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from m2ib.v1 import attribution_pb2 as pb
from m2ib.v1 import attribution_pb2_grpc, settings_pb2
from m2ib_client import Client
from relay import relayed
from serving import running_server
from wire import explain_request, png

SECONDS = 60
SERVING = health_pb2.HealthCheckResponse.SERVING


def test_a_call_that_the_network_lost_is_made_again_and_joins_what_is_under_way(server, stub):
    """The SDK's retry policy makes it again by itself; nothing is computed twice."""
    image, text, settings = png(seed=78), "a cat that the network lost", {"steps": 400, "samples": 8, "seed": 5}
    request = explain_request(
        image=pb.Image(encoded=image),
        text=text,
        settings=settings_pb2.Settings(**settings),
        sides=[settings_pb2.SIDE_IMAGE],
    )
    with (
        relayed(server.address) as relay,
        Client(relay.address, timeout=SECONDS) as client,
        ThreadPoolExecutor(1) as aside,
    ):
        answer = aside.submit(client.explain, image, text, model="tiny", sides=["image"], **settings)
        deadline = time.monotonic() + SECONDS
        while relay.bytes_to_server < len(image):
            assert time.monotonic() < deadline
            assert not answer.done(), answer.result()
            time.sleep(0.005)
        events = stub.ExplainStream(pb.ExplainStreamRequest(request=request), timeout=SECONDS)
        assert next(events).progress.step  # the job is under way
        relay.cut()
        explanation = answer.result(timeout=SECONDS)
        assert relay.connections == 2
        *_, last = events
    assert explanation.provenance.shared
    assert explanation.similarity == last.explanation.similarity


def endless(seed):
    settings = settings_pb2.Settings(steps=1000, samples=256, seed=seed)
    return explain_request(settings=settings)


def refusal(error):
    """Return the reason of a refusal, the kinds of its details, and its pushback."""
    kinds, reason = set(), ""
    for packed in rpc_status.from_call(error).details:
        kinds.add(packed.type_url.rpartition(".")[2])
        info = error_details_pb2.ErrorInfo()
        if packed.Unpack(info):
            reason = info.reason
    return reason, kinds, dict(error.trailing_metadata()).get("grpc-retry-pushback-ms")


def test_who_would_wait_too_long_is_told_when_to_come_back_and_what_outlasts_the_grace_that_the_server_drains(
    tiny_package, tmp_path
):
    flags = ("--max-wait-seconds", "0", "--grace-seconds", "1")
    with running_server(tiny_package, tmp_path, *flags) as running, grpc.insecure_channel(running.address) as channel:
        stub = attribution_pb2_grpc.AttributionServiceStub(channel)
        events = stub.ExplainStream(pb.ExplainStreamRequest(request=endless(1)))
        next(events)
        joined = stub.Explain.future(endless(1))  # it waits for no room, and writes nothing before the end
        with pytest.raises(grpc.RpcError) as caught:
            stub.Explain(endless(2))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        reason, kinds, pause = refusal(caught.value)
        assert (reason, kinds) == ("WAIT_TOO_LONG", {"ErrorInfo", "QuotaFailure", "RetryInfo"})
        assert 100 <= int(pause) <= 30_000
        stopping = threading.Thread(target=running.stop)
        stopping.start()
        with pytest.raises(grpc.RpcError) as caught:
            list(events)
        stopping.join(timeout=SECONDS)
        assert running.process.returncode == 0
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE  # without details where it was cut amid a message
        assert joined.code() is grpc.StatusCode.UNAVAILABLE
        assert refusal(joined) == ("DRAINING", {"ErrorInfo", "RetryInfo"}, "1000")


def test_health_is_told_while_the_engine_is_busy_and_newcomers_are_refused(tiny_package, tmp_path):
    flags = ("--max-wait-seconds", "0", "--health-listen", "127.0.0.1:0")
    with running_server(tiny_package, tmp_path, *flags) as running, grpc.insecure_channel(running.address) as channel:
        (probes,) = running.events("health")
        stub = attribution_pb2_grpc.AttributionServiceStub(channel)
        events = stub.ExplainStream(pb.ExplainStreamRequest(request=endless(1)))
        next(events)
        with grpc.insecure_channel(probes["address"]) as probed:
            for seed in range(2, 7):  # each refusal shows that the engine is busy, before an answer and after it
                with pytest.raises(grpc.RpcError) as caught:
                    stub.Explain(endless(seed))
                assert refusal(caught.value)[0] == "WAIT_TOO_LONG"
                for wire, name in ((channel, ""), (channel, "m2ib.v1.Model/tiny"), (probed, "")):
                    assert health_of(wire, name) == SERVING
        with pytest.raises(grpc.RpcError) as caught:
            stub.Explain(endless(7))
        assert refusal(caught.value)[0] == "WAIT_TOO_LONG"
        events.cancel()


def health_of(channel, name):
    request = health_pb2.HealthCheckRequest(service=name)
    return health_pb2_grpc.HealthStub(channel).Check(request, timeout=SECONDS).status


def test_a_second_sigterm_ends_the_server_at_once(tiny_package, tmp_path):
    with running_server(tiny_package, tmp_path) as running, grpc.insecure_channel(running.address) as channel:
        stub = attribution_pb2_grpc.AttributionServiceStub(channel)
        events = stub.ExplainStream(pb.ExplainStreamRequest(request=endless(1)))
        next(events)  # it is under way, and stays so while somebody holds the stream
        running.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + SECONDS
        while not running.events("draining"):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert running.stop() == 128 + signal.SIGTERM
        assert running.events("ended at once")
        events.cancel()


def test_a_server_that_loads_its_models_already_says_so(models, tmp_path):
    ready = tmp_path / "ready"
    command = [sys.executable, "-m", "m2ib_server", "serve", "--models", str(models), "--listen", "127.0.0.1:0"]
    with subprocess.Popen([*command, "--ready-file", str(ready)], stderr=subprocess.PIPE, text=True) as process:
        said = (json.loads(line) for line in process.stderr)
        address = next(line["address"] for line in said if line["event"] == "listening")
        with grpc.insecure_channel(address) as channel:
            with pytest.raises(grpc.RpcError) as caught:
                attribution_pb2_grpc.AttributionServiceStub(channel).ListModels(pb.ListModelsRequest(), timeout=SECONDS)
            assert not ready.exists()
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            assert refusal(caught.value) == ("LOADING", {"ErrorInfo", "RetryInfo"}, "2000")
            health = health_pb2_grpc.HealthStub(channel)
            status = health.Check(health_pb2.HealthCheckRequest(), timeout=SECONDS).status
            assert ready.exists() or status == health_pb2.HealthCheckResponse.NOT_SERVING
            assert next(line for line in said if line["event"] == "ready")["address"] == address
            status = health.Check(health_pb2.HealthCheckRequest(), timeout=SECONDS).status
            assert status == health_pb2.HealthCheckResponse.SERVING
        process.send_signal(signal.SIGTERM)
        process.stderr.read()
        assert process.wait(timeout=SECONDS) == 0


def test_a_server_that_is_told_to_stop_while_it_loads_stops(models, tmp_path):
    command = [sys.executable, "-m", "m2ib_server", "serve", "--models", str(models), "--listen", "127.0.0.1:0"]
    ready = tmp_path / "ready"
    with subprocess.Popen([*command, "--ready-file", str(ready)], stderr=subprocess.PIPE, text=True) as process:
        said = (json.loads(line) for line in process.stderr)
        assert next(line for line in said if line["event"] == "listening")
        process.send_signal(signal.SIGTERM)
        told = {line["event"]: line for line in said}
        assert process.wait(timeout=SECONDS) == 0
    assert told["stopped"]["reason"] == "SIGTERM"
    assert "ready" not in told
    assert not ready.exists()
