"""Fault drills on the real server: callers that vanish, stall or say nothing, clocks that jump, folders that go."""

import hashlib
import os
import resource
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc
import pytest

from fakes import doomed_client
from knock import SECONDS
from m2ib.v1 import attribution_pb2 as pb
from m2ib.v1 import attribution_pb2_grpc, settings_pb2
from serving import running_server
from vitals import vitals_of
from wire import explain_request, png

MEBIBYTE = 1 << 20
QUICK = settings_pb2.Settings(steps=2, samples=2)
ENDLESS = settings_pb2.Settings(steps=1000, samples=256)


@pytest.fixture(scope="module")
def drilled(tiny_package, tmp_path_factory):
    """A server of this module's own, so that its log and its memory tell of nobody else.

    It is started with the soft limit of descriptors that most systems have, which a thousand connections exceed.
    """
    folder = tmp_path_factory.mktemp("drilled")
    with ExitStack() as life:
        with soft_limit(1024):
            running = life.enter_context(running_server(tiny_package, folder, "--upload-mebibytes", "2"))
        yield running


@contextmanager
def soft_limit(descriptors: int) -> Iterator[None]:
    """Let this process, and those it starts meanwhile, open so many descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(scope="module")
def stub(drilled):
    with stub_of(drilled.address) as stub:
        yield stub


@contextmanager
def stub_of(address: str, **options: int) -> Iterator[attribution_pb2_grpc.AttributionServiceStub]:
    named = [(f"grpc.{name}", value) for name, value in options.items()]
    with grpc.insecure_channel(address, named) as channel:
        yield attribution_pb2_grpc.AttributionServiceStub(channel)


@contextmanager
def doomed(address: str, *arguments: object) -> Iterator[subprocess.Popen]:
    """A client in a process of its own that has begun its call."""
    command = [sys.executable, doomed_client.__file__, address, *map(str, arguments)]
    ours = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}  # where the client finds the tests' requests
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ours) as client:
        try:
            assert client.stdout.readline() == "begun\n"
            yield client
        finally:
            client.kill()


def eventually(holds, what: str):
    """Wait for something to hold and return it."""
    deadline = time.monotonic() + SECONDS
    while not (held := holds()):
        assert time.monotonic() < deadline, what
        time.sleep(0.05)
    return held


def explained(stub, **changes) -> pb.Explanation:
    return stub.Explain(explain_request(**{"settings": QUICK, **changes}), timeout=SECONDS).explanation


def upload(stub, encoded: bytes) -> str:
    header = pb.UploadHeader(size_bytes=len(encoded), sha256=hashlib.sha256(encoded).hexdigest())
    parts = [pb.UploadImageRequest(header=header), pb.UploadImageRequest(chunk=encoded)]
    return stub.UploadImage(iter(parts), timeout=SECONDS).handle


def code_of(call: Callable[[], object]) -> grpc.StatusCode:
    try:
        call()
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def test_a_client_killed_amid_an_upload_gives_back_the_room_it_had(drilled, stub):
    large = bytes(MEBIBYTE)
    with doomed(drilled.address, "upload", 2 * MEBIBYTE - 8192) as client:
        assert code_of(lambda: upload(stub, large)) is grpc.StatusCode.RESOURCE_EXHAUSTED
        client.kill()
        eventually(
            lambda: code_of(lambda: upload(stub, large)) is grpc.StatusCode.OK, "the killed client's room stays taken"
        )


def test_a_client_killed_amid_a_stream_costs_the_engine_nothing_more(drilled, stub):
    idle = len(drilled.events("engine idle"))
    with doomed(drilled.address, "stream", 1000) as client:
        client.kill()
        (ended, *_) = eventually(lambda: drilled.events("engine idle")[idle:], "the engine works on for the dead")
    assert ended["running"] == ended["waiting"] == ended["callers"] == 0
    assert explained(stub).image.grid_bits.data
    lines = [line for line in drilled.events("call ended") if line["method"] == "ExplainStream"]
    assert [line["code"] for line in lines] == ["CANCELLED"]


def test_a_deadline_shorter_than_a_step_ends_as_one_and_harms_nobody(stub):
    large = explain_request(settings=ENDLESS)
    neighbours = [
        stub.Explain.future(explain_request(settings=QUICK, text=f"cat {i}"), timeout=SECONDS) for i in range(3)
    ]
    for seconds in (0.001, 0.02, 0.1):
        large.on_deadline = pb.ON_DEADLINE_REFUSE
        assert code_of(lambda: stub.Explain(large, timeout=seconds)) is grpc.StatusCode.DEADLINE_EXCEEDED  # noqa: B023
        large.on_deadline = pb.ON_DEADLINE_PARTIAL
        assert code_of(lambda: stub.Explain(large, timeout=seconds)) in (  # noqa: B023
            grpc.StatusCode.DEADLINE_EXCEEDED,
            grpc.StatusCode.OK,  # with what one step gave
        )
    assert all(call.result().explanation.image.grid_bits.data for call in neighbours)
    assert explained(stub).image.grid_bits.data


def test_a_model_whose_folder_is_removed_is_served_on(tiny_package, tmp_path):
    folder = tmp_path / "models" / "tiny"
    shutil.copytree(tiny_package, folder)
    with running_server(folder.parent, tmp_path) as running, stub_of(running.address) as stub:
        before = explained(stub)
        shutil.rmtree(folder.parent)
        after = explained(stub, text="another text", image=pb.Image(encoded=png(seed=9)))
        again = explained(stub)
        assert after.image.grid_bits != before.image.grid_bits
        assert again.image.grid_bits == before.image.grid_bits
        assert again.provenance.digest == before.provenance.digest
        assert running.stop() == 0


def test_a_thousand_connections_that_say_nothing_keep_nobody_out(drilled, stub):
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most < 4096:
        pytest.skip(f"this machine allows {most} descriptors")
    explained(stub)
    before = vitals_of(drilled.process.pid)
    host, port = drilled.address.rsplit(":", 1)
    with soft_limit(4096), ExitStack() as connections:
        for _ in range(1000):
            connections.enter_context(socket.create_connection((host, int(port)), timeout=SECONDS))
        for _ in range(100):  # these have said that they speak HTTP/2, and no more
            channel = grpc.insecure_channel(drilled.address, [("grpc.use_local_subchannel_pool", 1)])
            connections.callback(channel.close)
            grpc.channel_ready_future(channel).result(timeout=SECONDS)
        with stub_of(drilled.address, use_local_subchannel_pool=1) as newcomer:
            assert explained(newcomer).image.grid_bits.data
        amid = vitals_of(drilled.process.pid)
    assert amid.descriptors - before.descriptors >= 1000, "the server did not hold the connections"
    assert amid.threads - before.threads <= 32
    assert amid.resident_bytes - before.resident_bytes < 256 * MEBIBYTE
    eventually(
        lambda: vitals_of(drilled.process.pid).descriptors <= before.descriptors + 20, "connections are kept after all"
    )


def test_a_reader_that_stalls_is_told_the_latest_step_and_gets_the_explanation(drilled):
    steps = 1000
    request = explain_request(settings=settings_pb2.Settings(steps=steps, samples=1), sides=[settings_pb2.SIDE_IMAGE])
    small = {"http2.bdp_probe": 0, "http2.lookahead_bytes": 1024, "use_local_subchannel_pool": 1}
    idle = len(drilled.events("engine idle"))
    with stub_of(drilled.address, **small) as stub:
        events = stub.ExplainStream(pb.ExplainStreamRequest(request=request, partial_maps=True), timeout=SECONDS)
        first = next(events)
        before = vitals_of(drilled.process.pid)
        eventually(lambda: drilled.events("engine idle")[idle:], "the engine waits for the reader")
        after = vitals_of(drilled.process.pid)
        rest = list(events)
    told = [event.progress.step for event in (first, *rest[:-1])]
    assert told == sorted(set(told))
    assert told[-1] == steps, "the newest step is the one that is kept"
    assert len(told) < steps, "the server held every step for a reader that did not read"
    assert rest[-1].WhichOneof("event") == "explanation"
    assert len(rest[-1].explanation.image.trace) == steps
    assert after.resident_bytes - before.resident_bytes < 64 * MEBIBYTE


DAY = 24 * 3600


@pytest.fixture
def jumping_clock(tmp_path):
    """The variables that give a process a wall clock that jumps, and what makes it jump by so many seconds.

    libfaketime will not do: of version 0.9.10 the monotonic clock's sleeps fail once the wall clock has jumped.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    library, jump = tmp_path / "jumping_clock.so", tmp_path / "jump"
    source = Path(doomed_client.__file__).with_name("jumping_clock.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    jump.write_bytes(bytes(8))

    def leap(seconds: int) -> None:
        with jump.open("r+b") as file:  # in one write, for the server has the file mapped
            file.write(seconds.to_bytes(8, "little", signed=True))

    return {"LD_PRELOAD": str(library), "JUMPING_CLOCK": str(jump)}, leap


def test_a_clock_that_jumps_moves_no_deadline_and_forgets_no_upload(tiny_package, tmp_path, jumping_clock):
    variables, leap = jumping_clock
    with running_server(tiny_package, tmp_path, **variables) as running, stub_of(running.address) as stub:
        handle = upload(stub, png())
        for days in (400, -400):
            settings = settings_pb2.Settings(steps=200, samples=20, seed=days + 400)
            request = pb.ExplainStreamRequest(request=explain_request(settings=settings))
            events = stub.ExplainStream(request, timeout=SECONDS)
            next(events)
            leap(days * DAY)
            assert list(events)[-1].WhichOneof("event") == "explanation"
            assert explained(stub, image=pb.Image(handle=handle)).image.grid_bits.data
            late = explain_request(settings=ENDLESS, on_deadline=pb.ON_DEADLINE_PARTIAL)
            late.settings.seed = days + 400
            started = time.monotonic()
            assert stub.Explain(late, timeout=2).explanation.partial
            assert time.monotonic() - started > 0.5
        assert running.stop() == 0
        lines = running.events("call ended")
    assert len({line["time"][:4] for line in lines}) >= 2, "the server's wall clock did not jump"
    assert all(0 <= line["seconds"] < SECONDS for line in lines)
