"""Models come, go and change places in the real server while it answers."""

import hashlib
import json
import os
import shutil
import threading
import time

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from fakes.repository import copy_package
from m2ib.oip import inference_pb2 as oip
from m2ib.oip import inference_pb2_grpc
from m2ib.v1 import attribution_pb2 as pb
from m2ib.v1 import attribution_pb2_grpc, model_repository_pb2_grpc, settings_pb2
from m2ib.v1 import model_repository_pb2 as repository_pb
from serving import running_server
from wire import details_of, explain_request, png

SECONDS = 60
LONG = settings_pb2.Settings(steps=300, samples=10)


class Operator:
    """A running server's services, and its models' folder."""

    def __init__(self, running, channel, models):
        self.running, self.models = running, models
        self.attribution = attribution_pb2_grpc.AttributionServiceStub(channel)
        self.repository = model_repository_pb2_grpc.ModelRepositoryStub(channel)
        self.health = health_pb2_grpc.HealthStub(channel)

    def version_of(self, model="tiny", **changes):
        """Explain a pair and return the version that answered."""
        request = explain_request(model=model, settings=settings_pb2.Settings(steps=1), **changes)
        return self.attribution.Explain(request, timeout=SECONDS).explanation.provenance.version

    def stream(self, model="tiny"):
        """Begin an explanation that takes a while; return its events once the first has come, without that."""
        request = explain_request(model=model, settings=LONG)
        events = self.attribution.ExplainStream(pb.ExplainStreamRequest(request=request), timeout=SECONDS)
        next(events)
        return events

    def states(self):
        listed = self.repository.ListVersions(repository_pb.ListVersionsRequest(name="tiny"), timeout=SECONDS)
        return {each.version: repository_pb.VersionState.Name(each.state)[14:] for each in listed.versions}

    def load(self, version):
        return self.repository.LoadModel(repository_pb.LoadModelRequest(name="tiny", version=version), timeout=SECONDS)

    def swap(self, version):
        return self.repository.SwapModel(repository_pb.SwapModelRequest(name="tiny", version=version), timeout=SECONDS)

    def until(self, condition):
        deadline = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < deadline, self.states()
            time.sleep(0.05)


def version_of_last(events):
    return list(events)[-1].explanation.provenance.version


def refused(call):
    """Return the status and the reason with which a call is refused."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code(), details_of(caught.value)["ErrorInfo"].reason


@pytest.fixture(scope="module")
def operator(tiny_package, tmp_path_factory):
    """A server of its own with one version loaded, in a folder that holds no more than that."""
    models = tmp_path_factory.mktemp("repository") / "models"
    copy_package(tiny_package, models / "tiny" / "1")
    flags = ("--model-memory-mebibytes", "2")
    with (
        running_server(models, tmp_path_factory.mktemp("operator"), *flags) as running,
        grpc.insecure_channel(running.address) as channel,
    ):
        yield Operator(running, channel, models)


@pytest.fixture
def versions(operator, tiny_package):
    """Put versions into the folder; afterwards version 1 is the only one again, in the folder and in service."""

    def put(*names, **changes):
        for name in names:
            copy_package(tiny_package, operator.models / "tiny" / name, version=name, **changes)

    yield put
    delete = repository_pb.DeleteAliasRequest(name="tiny", alias="champion")
    operator.repository.DeleteAlias(delete, timeout=SECONDS)
    if not (operator.models / "tiny" / "1").exists():
        copy_package(tiny_package, operator.models / "tiny" / "1")
    operator.swap("1")
    operator.until(lambda: "DRAINING" not in operator.states().values())
    for folder in (operator.models / "tiny").iterdir():
        if folder.name != "1":
            shutil.rmtree(folder)


def test_versions_are_loaded_named_promoted_and_unloaded_while_streams_run(operator, versions):
    versions("2", "10")
    first = operator.stream()
    assert not operator.load("2").was_loaded
    assert operator.load("2").was_loaded
    assert operator.version_of() == operator.version_of("tiny@latest") == "2"
    assert operator.version_of("tiny:1") == "1"
    assert operator.load("").version.version == "10"  # by number, not by character
    assert operator.version_of("tiny") == "10"
    alias = repository_pb.SetAliasRequest(name="tiny", alias="champion", version="1")
    assert operator.repository.SetAlias(alias, timeout=SECONDS).previous == ""
    assert (operator.version_of("tiny"), operator.version_of("tiny@champion")) == ("1", "1")
    second = operator.stream("tiny:10")
    unload = repository_pb.UnloadModelRequest(name="tiny", version="10")
    assert operator.repository.UnloadModel(unload, timeout=SECONDS).was_loaded
    assert refused(lambda: operator.version_of("tiny:10")) == (grpc.StatusCode.NOT_FOUND, "MODEL_UNKNOWN")
    aliased = repository_pb.UnloadModelRequest(name="tiny", version="1")
    answer = refused(lambda: operator.repository.UnloadModel(aliased, timeout=SECONDS))
    assert answer == (grpc.StatusCode.FAILED_PRECONDITION, "VERSION_ALIASED")
    assert (version_of_last(first), version_of_last(second)) == ("1", "10")
    operator.until(lambda: operator.states()["10"] == "AVAILABLE")
    listed = operator.attribution.ListModels(pb.ListModelsRequest(), timeout=SECONDS).models
    assert [model.version for model in listed] == ["1", "2"]


def test_a_swap_loses_no_request_and_each_is_answered_by_one_version(operator, versions):
    versions("2")
    seen, faults, done = [], [], threading.Event()

    def ask(seed):
        while not done.is_set():
            try:
                seen.append(operator.version_of(image=pb.Image(encoded=png(seed=seed + 10 * len(seen)))))
            except grpc.RpcError as error:
                faults.append(error.code())

    askers = [threading.Thread(target=ask, args=(seed,)) for seed in range(3)]
    for asker in askers:
        asker.start()
    events = operator.stream()
    operator.until(lambda: len(seen) >= 3)
    assert list(operator.swap("2").retired) == ["1"]
    count = len(seen)
    operator.until(lambda: len(seen) >= count + 6)
    done.set()
    for asker in askers:
        asker.join(timeout=SECONDS)
    assert not faults
    assert set(seen[:3]) == {"1"}
    assert set(seen[-3:]) == {"2"}
    assert version_of_last(events) == "1"
    operator.until(lambda: operator.states() == {"1": "AVAILABLE", "2": "READY"})


def test_a_package_that_fails_its_digests_or_its_warm_up_never_becomes_visible(operator, versions, tiny_package):
    versions("2", damaged=["vision_tail.weights"])
    nonsense = copy_package(tiny_package, operator.models / "tiny" / "3", version="3")
    weights = nonsense / "vision_tail.weights"
    weights.write_bytes(b"\xff" * weights.stat().st_size)  # every float32 is NaN
    manifest = json.loads((nonsense / "manifest.json").read_text())
    for packaged in manifest["files"]:
        if packaged["name"] == weights.name:
            packaged["sha256"] = hashlib.sha256(weights.read_bytes()).hexdigest()
    (nonsense / "manifest.json").write_text(json.dumps(manifest))
    for version in ("2", "3"):
        for change in (operator.load, operator.swap):
            answer = refused(lambda change=change, version=version: change(version))
            assert answer == (grpc.StatusCode.FAILED_PRECONDITION, "PACKAGE_CORRUPT")
    assert operator.version_of() == "1"
    assert operator.states()["1"] == "READY"


def test_a_model_whose_folder_is_removed_serves_on_and_nothing_swaps_to_a_removed_one(operator, versions):
    versions("2")
    shutil.rmtree(operator.models / "tiny" / "2")
    assert refused(lambda: operator.swap("2")) == (grpc.StatusCode.NOT_FOUND, "VERSION_ABSENT")
    shutil.rmtree(operator.models / "tiny" / "1")
    # new pixels and new words: neither head nor tail, whose weights are mapped from the file, is answered by the cache
    for seed in range(3):
        assert operator.version_of(image=pb.Image(encoded=png(seed=100 + seed)), text=f"a cat {seed}") == "1"
    assert operator.states() == {"1": "READY"}
    assert operator.running.process.poll() is None


def test_a_model_that_does_not_fit_is_refused_with_the_figures(operator, versions):
    versions("2", "3", "4", "5")
    listed = operator.repository.ListVersions(repository_pb.ListVersionsRequest(), timeout=SECONDS)
    size, limit = listed.versions[0].memory_bytes, listed.allowed_memory_bytes
    assert (limit, listed.used_memory_bytes) == (2 << 20, size)
    fitting = limit // size
    assert 1 <= fitting <= 4, "the folder holds enough versions to fill the memory"
    for version in list("2345")[: fitting - 1]:
        operator.load(version)
    with pytest.raises(grpc.RpcError) as caught:
        operator.load("2345"[fitting - 1])
    assert details_of(caught.value)["ErrorInfo"].reason == "MODEL_MEMORY_EXCEEDED"
    assert f"needs {size} bytes" in caught.value.details()
    assert f"take {fitting * size} of {limit}" in caught.value.details()


def test_names_that_are_none_are_refused_by_field(operator):
    for request, field in (
        (repository_pb.LoadModelRequest(name="../tiny", version="1"), "name"),
        (repository_pb.LoadModelRequest(name="tiny", version="1/.."), "version"),
        (repository_pb.LoadModelRequest(version="1"), "name"),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            operator.repository.LoadModel(request, timeout=SECONDS)
        assert details_of(caught.value)["BadRequest"].field_violations[0].field == field


def test_with_polling_models_come_and_go_with_their_folders_and_health_follows(tiny_package, tmp_path):
    models = tmp_path / "models"
    copy_package(tiny_package, models / "tiny" / "1")
    with (
        running_server(models, tmp_path, "--poll-seconds", "0.1") as running,
        grpc.insecure_channel(running.address) as channel,
    ):
        operator = Operator(running, channel, models)

        def health(name):
            request = health_pb2.HealthCheckRequest(service=f"m2ib.v1.Model/{name}")
            try:
                return operator.health.Check(request, timeout=SECONDS).status
            except grpc.RpcError as error:
                return error.code()

        half = copy_package(tiny_package, models / "tiny" / "2", damaged=["text_head.weights"], version="2")
        operator.until(lambda: operator.states().get("2") == "UNUSABLE")
        assert operator.version_of() == "1"
        shutil.copy(tiny_package / "text_head.weights", half)  # the rest of it has arrived
        operator.until(lambda: operator.states().get("2") == "READY")
        assert operator.version_of() == "2"
        assert health("other") is grpc.StatusCode.NOT_FOUND
        copy_package(tiny_package, models / "other" / "1", name="other")
        operator.until(lambda: health("other") == health_pb2.HealthCheckResponse.SERVING)
        assert operator.version_of("other") == "1"
        events = operator.stream()
        for name in ("tiny/2", "other"):
            shutil.rmtree(models / name)
        operator.until(lambda: health("other") == health_pb2.HealthCheckResponse.NOT_SERVING)
        assert operator.version_of() == "1"
        assert version_of_last(events) == "2"
        operator.until(lambda: operator.states() == {"1": "READY"})
        shutil.rmtree(models)  # a mount that is lost is not the end of what is loaded
        time.sleep(1)
        assert operator.version_of(image=pb.Image(encoded=png(seed=7))) == "1"
        assert running.stop() == 0


@pytest.mark.slow
def test_an_alias_outlives_the_server(tiny_package, tmp_path):
    models, kept = tmp_path / "models", tmp_path / "aliases.json"
    for version in ("1", "2"):
        copy_package(tiny_package, models / "tiny" / version, version=version)
    for is_first in (True, False):
        folder = tmp_path / str(is_first)
        folder.mkdir()
        with (
            running_server(models, folder, "--aliases-file", str(kept)) as running,
            grpc.insecure_channel(running.address) as channel,
        ):
            operator = Operator(running, channel, models)
            if is_first:
                assert operator.version_of() == "2"
                alias = repository_pb.SetAliasRequest(name="tiny", alias="champion", version="1")
                operator.repository.SetAlias(alias, timeout=SECONDS)
            assert operator.version_of() == "1"


def test_a_load_that_outlasts_the_grace_is_told_that_the_server_drains(tiny_package, tmp_path):
    """The warm-up of a load stands behind interactive requests, and here it gets no turn beside them."""
    models = tmp_path / "models"
    copy_package(tiny_package, models / "tiny" / "1")
    flags = ("--bulk-patience-ms", "600000", "--grace-seconds", "1")
    with running_server(models, tmp_path, *flags) as running, grpc.insecure_channel(running.address) as channel:
        operator = Operator(running, channel, models)
        settings = settings_pb2.Settings(steps=1000, samples=256)
        request = pb.ExplainStreamRequest(request=explain_request(settings=settings))
        events = operator.attribution.ExplainStream(request)
        next(events)
        copy_package(tiny_package, models / "tiny" / "2", version="2")
        load = repository_pb.LoadModelRequest(name="tiny", version="2")
        loading = operator.repository.LoadModel.future(load, timeout=SECONDS)
        operator.until(lambda: operator.states() == {"1": "READY", "2": "LOADING"})
        assert running.stop() == 0
        assert refused(loading.result) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
        assert refused(lambda: list(events)) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")


def until_it_hangs(path):
    """Hold a FIFO open for writing once somebody reads it, who waits from then on."""
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            return os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # nobody reads it yet
            assert time.monotonic() < deadline, "nobody reads it"
            time.sleep(0.05)


@pytest.mark.parametrize("hung", ["aliases.json", "hung/manifest.json"])
def test_what_hangs_in_the_models_folder_keeps_no_server_from_ending(tiny_package, tmp_path, hung):
    models = tmp_path / "models"
    copy_package(tiny_package, models / "tiny" / "1")
    flags = ("--poll-seconds", "0.1", "--grace-seconds", "2")
    with (
        running_server(models, tmp_path, *flags) as running,
        grpc.insecure_channel(running.address) as channel,
    ):
        (models / hung).parent.mkdir(exist_ok=True)
        os.mkfifo(models / hung)
        held = until_it_hangs(models / hung)
        stub = inference_pb2_grpc.GRPCInferenceServiceStub(channel)
        calls = [stub.RepositoryIndex.future(oip.RepositoryIndexRequest(), timeout=0.5) for _ in range(8)]
        ends = {call.code() for call in calls}
        assert ends == {grpc.StatusCode.OK if hung == "aliases.json" else grpc.StatusCode.DEADLINE_EXCEEDED}
        try:
            assert running.stop() == 0
        finally:
            os.close(held)
        assert running.events("stopped")
