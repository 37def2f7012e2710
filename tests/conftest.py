"""Fixtures that take seconds to make, made once: exported packages and running servers."""

import shutil
from importlib.resources import as_file, files

import pytest
from hypothesis import settings
from hypothesis.database import DirectoryBasedExampleDatabase

from checkpoints import write_checkpoint
from packages import export
from scrape import METRICS
from serving import running_server

# The same examples on every machine in `make test` and, more of them, in `make test-all`; ever new ones in `make fuzz`.
settings.register_profile("quick", max_examples=100, derandomize=True, deadline=None, database=None, print_blob=True)
settings.register_profile("deep", settings.get_profile("quick"), max_examples=500)
settings.register_profile(
    "endless",
    settings.get_profile("quick"),
    max_examples=2000,
    derandomize=False,
    database=DirectoryBasedExampleDatabase(".hypothesis/examples"),
)
settings.load_profile("quick")


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny", "tiny")


@pytest.fixture(scope="session")
def kept_packages(request):
    """A folder where exported packages outlive a run of the tests; `pytest --cache-clear` empties it."""
    return request.config.cache.mkdir("packages")


@pytest.fixture(scope="session")
def tiny_package(tiny_checkpoint, tmp_path_factory, kept_packages):
    folder = tmp_path_factory.mktemp("package") / "tiny"
    return export(tiny_checkpoint, folder, "--name", "tiny", "--version", "1", kept=kept_packages)


@pytest.fixture(scope="session")
def demo_checkpoint():
    with as_file(files("m2ib_export.demo") / "checkpoint") as folder:
        yield folder


@pytest.fixture(scope="session")
def demo_package(tmp_path_factory, kept_packages):
    return export("demo", tmp_path_factory.mktemp("package") / "demo", kept=kept_packages)


@pytest.fixture(scope="session")
def models(tiny_package, demo_package, tmp_path_factory):
    """A folder with two models."""
    folder = tmp_path_factory.mktemp("models")
    for package in (tiny_package, demo_package):
        shutil.copytree(package, folder / package.name)
    return folder


@pytest.fixture(scope="session")
def server(models, tmp_path_factory):
    """A server with two models that every test may call and none may stop."""
    with running_server(models, tmp_path_factory.mktemp("server"), "--reflection", *METRICS) as running:
        yield running
