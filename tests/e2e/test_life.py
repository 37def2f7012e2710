"""The life of the real server: health, reflection, drain, callers that leave, and what its log may hold."""

import os
import pty
import queue
import subprocess
import sys
import threading
import time

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from canary_inference import infer
from m2ib.oip import inference_pb2_grpc
from m2ib.v1 import attribution_pb2 as pb
from m2ib.v1 import attribution_pb2_grpc, settings_pb2
from raw_call import stalled_call
from serving import running_server
from wire import details_of, explain_request

SECONDS = 60
SERVING = health_pb2.HealthCheckResponse.SERVING


def test_health_is_told_for_the_server_the_service_and_each_model(channel):
    stub = health_pb2_grpc.HealthStub(channel)
    for name in ("", "m2ib.v1.AttributionService", "m2ib.v1.Model/tiny", "m2ib.v1.Model/demo"):
        assert stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=SECONDS).status == SERVING
    with pytest.raises(grpc.RpcError) as caught:
        stub.Check(health_pb2.HealthCheckRequest(service="m2ib.v1.Model/other"), timeout=SECONDS)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def asked_for_health(**variables):
    command = [sys.executable, "-m", "m2ib_server", "health"]
    environment = {**os.environ, **variables}
    return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, env=environment, check=False)


def test_health_is_asked_for_where_the_variable_says_the_server_listens(server):
    port = server.address.rpartition(":")[2]
    for listen in (server.address, f"0.0.0.0:{port}"):
        done = asked_for_health(M2IB_LISTEN=listen)
        assert (done.returncode, done.stdout) == (0, "serving\n")
    absent = asked_for_health(M2IB_LISTEN="127.0.0.1:1")
    assert (absent.returncode, absent.stderr) == (1, "not serving\n")


def listed_services(address):
    with grpc.insecure_channel(address) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        (answer,) = stub.ServerReflectionInfo(iter([request]), timeout=SECONDS)
        return {service.name for service in answer.list_services_response.service}


def test_reflection_is_on_by_flag_only(server, tiny_package, tmp_path):
    assert "m2ib.v1.AttributionService" in listed_services(server.address)
    with running_server(tiny_package, tmp_path) as silent:
        with pytest.raises(grpc.RpcError) as caught:
            listed_services(silent.address)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_sigterm_finishes_what_runs_and_exits_zero(tiny_package, tmp_path):
    with running_server(tiny_package, tmp_path) as running, grpc.insecure_channel(running.address) as channel:
        stub = attribution_pb2_grpc.AttributionServiceStub(channel)
        request = explain_request(settings=settings_pb2.Settings(steps=200), sides=[settings_pb2.SIDE_IMAGE])
        events = stub.ExplainStream(pb.ExplainStreamRequest(request=request), timeout=SECONDS)
        next(events)
        stopping = threading.Thread(target=running.stop)
        stopping.start()
        assert list(events)[-1].WhichOneof("event") == "explanation"
        stopping.join(timeout=SECONDS)
        assert running.process.returncode == 0
        assert not running.events("threads left behind")


def test_work_beyond_the_grace_is_cut_off_and_the_server_still_exits(tiny_package, tmp_path):
    with (
        running_server(tiny_package, tmp_path, "--grace-seconds", "0.2") as running,
        grpc.insecure_channel(running.address) as channel,
    ):
        stub = attribution_pb2_grpc.AttributionServiceStub(channel)
        request = explain_request(settings=settings_pb2.Settings(steps=1000, samples=256))
        events = stub.ExplainStream(pb.ExplainStreamRequest(request=request))
        next(events)
        assert running.stop() == 0
        with pytest.raises(grpc.RpcError) as caught:
            list(events)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def open_streams(channel):
    """Return a batch and a stream of inferences, each with one answer, and the queue whose None would end either."""
    silence = queue.Queue()

    def requests(first):
        yield first
        silence.get()  # until the test is over the client neither sends nor ends

    batch = attribution_pb2_grpc.AttributionServiceStub(channel).ExplainBatch
    inferences = inference_pb2_grpc.GRPCInferenceServiceStub(channel).ModelStreamInfer
    pair = pb.ExplainBatchRequest(request=explain_request(settings=settings_pb2.Settings(steps=1, samples=2)))
    streams = [batch(requests(pair)), inferences(requests(infer()))]
    next(streams[0])
    assert not next(streams[1]).error_message
    return streams, silence


def test_sigterm_ends_streams_that_are_open_and_idle_long_before_the_grace(tiny_package, tmp_path):
    with (
        running_server(tiny_package, tmp_path, "--grace-seconds", "3600") as running,
        grpc.insecure_channel(running.address) as channel,
    ):
        streams, silence = open_streams(channel)
        try:
            assert running.stop() == 0  # although no client has ended its stream
            for stream in streams:
                with pytest.raises(grpc.RpcError) as caught:
                    next(stream)
                assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
                assert details_of(caught.value)["ErrorInfo"].reason == "DRAINING"
                assert dict(caught.value.trailing_metadata())["grpc-retry-pushback-ms"] == "1000"
        finally:
            for _ in streams:
                silence.put(None)
        assert not running.events("calls cut off")
        ended = {each["method"]: each["code"] for each in running.events("call ended")}
        assert ended["ExplainBatch"] == ended["ModelStreamInfer"] == "UNAVAILABLE"
        assert ended["ExplainBatch.pair"] == ended["ModelStreamInfer.request"] == "OK"
        assert "Traceback" not in running.log()


def test_callers_that_leave_or_come_too_late_cost_the_engine_nothing_more(tiny_package, tmp_path):
    endless = explain_request(settings=settings_pb2.Settings(steps=1000, samples=256))
    with running_server(tiny_package, tmp_path) as running, grpc.insecure_channel(running.address) as channel:
        stub = attribution_pb2_grpc.AttributionServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Explain(endless, timeout=0.5)  # boot has taught the engine that this cannot be done
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        events = stub.ExplainStream(pb.ExplainStreamRequest(request=endless))
        next(events)
        events.cancel()
        pairs = [pb.ExplainBatchRequest(id=str(seed), request=endless) for seed in range(3)]
        for seed, pair in enumerate(pairs):
            pair.request.settings.seed = seed
        answers = stub.ExplainBatch(iter(pairs))
        threading.Timer(1.0, answers.cancel).start()
        with pytest.raises(grpc.RpcError) as caught:
            next(answers)
        assert caught.value.code() is grpc.StatusCode.CANCELLED
        deadline = time.monotonic() + SECONDS / 2
        while not (idle := running.events("engine idle")):
            assert time.monotonic() < deadline, "the engine still works for callers who have left"
            time.sleep(0.1)
    tally = idle[-1]
    assert tally["waiting"] == tally["running"] == tally["callers"] == 0
    assert tally["answered"] == 1  # the reference texts, at boot
    assert (tally["refused"], tally["expired"], tally["cancelled"]) == (1, 0, 1 + 3)


def test_the_end_of_standard_input_ends_the_server_when_so_asked(tiny_package, tmp_path):
    command = [sys.executable, "-m", "m2ib_server", "serve", "--models", str(tiny_package)]
    flags = ["--listen", "127.0.0.1:0", "--exit-with-stdin", "--ready-file", str(tmp_path / "ready")]
    done = subprocess.run([*command, *flags], stdin=subprocess.DEVNULL, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0
    assert b"standard input ended" in done.stderr


def test_a_terminal_is_shown_that_models_are_being_loaded(tiny_package, tmp_path):
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "m2ib_server", "serve", "--models", str(tiny_package), "--listen", "127.0.0.1:0"]
    with subprocess.Popen([*command, "--exit-with-stdin"], stderr=theirs, stdin=subprocess.PIPE) as running:
        os.close(theirs)
        told = ""
        while '"event": "ready"' not in told:
            told += os.read(ours, 4096).decode(errors="replace")
        running.communicate(timeout=SECONDS)
    os.close(ours)
    assert "loading models" in told
    assert running.returncode == 0


def test_an_engine_that_cannot_be_helped_ends_the_server_with_an_error(demo_package, tmp_path):
    flags = ("--stuck-seconds", "1", "--max-restarts", "0", "--max-rows", "2048", "--max-samples", "2048")
    slow = explain_request(model="demo", settings=settings_pb2.Settings(steps=5, samples=2048))
    with running_server(demo_package, tmp_path, *flags) as running, grpc.insecure_channel(running.address) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            attribution_pb2_grpc.AttributionServiceStub(channel).Explain(slow, timeout=SECONDS)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert running.process.wait(timeout=SECONDS) == 1
        assert [line["reason"] for line in running.events("engine given up")] == ["engine stuck"]
        assert [line["reason"] for line in running.events("stopped")] == ["engine given up"]


def test_a_stranger_who_watches_health_and_reads_nothing_does_not_keep_the_server_from_ending(tiny_package, tmp_path):
    with (
        running_server(tiny_package, tmp_path, "--health-listen", "127.0.0.1:0") as running,
        stalled_call(running.address, "/grpc.health.v1.Health/Watch"),
        stalled_call(running.events("health")[0]["address"], "/grpc.health.v1.Health/Watch"),
        grpc.insecure_channel(running.address) as channel,
    ):
        stub = health_pb2_grpc.HealthStub(channel)
        watching = stub.Watch(health_pb2.HealthCheckRequest(), timeout=SECONDS)
        assert next(watching).status == SERVING
        assert running.stop() == 0
        told = [each.status for each in until_it_ends(watching)]
        assert told == [health_pb2.HealthCheckResponse.NOT_SERVING]


def until_it_ends(stream):
    """Yield a stream's messages until the server cuts it off."""
    try:
        yield from stream
    except grpc.RpcError as error:
        assert error.code() is grpc.StatusCode.UNAVAILABLE
