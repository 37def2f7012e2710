"""What the four distributions promise one another, and what the repository promises its readers."""

import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import m2ib_client
import m2ib_export
import m2ib_server

ROOT = Path(__file__).resolve().parents[2]
DISTRIBUTIONS = ("proto", "client", "server", "export")
HEAVY = {"torch", "onnxruntime", "onnxruntime-gpu", "transformers", "onnx", "tokenizers"}


def project(folder):
    return tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["project"]


def closure(name, seen=frozenset()):
    """Every distribution that installing `name` without extras brings along."""
    found = {name}
    for line in requires(name) or []:
        requirement = Requirement(line)
        is_extra = requirement.marker is not None and not requirement.marker.evaluate({"extra": ""})
        if not is_extra and requirement.name not in seen | found:
            found |= closure(requirement.name, seen | found)
    return found


def test_all_distributions_have_one_version():
    versions = {project(folder)["version"] for folder in DISTRIBUTIONS}
    assert versions == {m2ib_client.__version__} == {m2ib_server.__version__} == {m2ib_export.__version__}


def test_nothing_heavy_comes_along_with_the_client():
    assert not closure("m2ib-client") & HEAVY
    assert {"grpcio", "protobuf", "numpy"} <= closure("m2ib-client")


def test_the_client_imports_nothing_heavy():
    modules = "m2ib_client, m2ib_client.__main__, m2ib_client.testing"
    code = f"import sys, {modules}; sys.exit(bool({HEAVY!r} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_server_brings_no_checkpoint_loading_along():
    assert not closure("m2ib-server") & {"transformers", "onnx", "safetensors"}


def test_onnxruntime_is_chosen_by_an_extra():
    extras = project("server")["optional-dependencies"]
    tensorrt = ["onnxruntime-gpu", "tensorrt-cu13"]
    assert extras == {"cpu": ["onnxruntime"], "gpu": ["onnxruntime-gpu"], "tensorrt": tensorrt}
    assert not any("onnxruntime" in line for line in project("server")["dependencies"])


@pytest.mark.parametrize("folder", DISTRIBUTIONS)
def test_every_dependency_is_pinned(folder):
    pinned = {
        re.sub(r"[-_.]+", "-", line.split("==")[0]).lower()
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    extras = project(folder).get("optional-dependencies", {})
    lines = [*project(folder)["dependencies"], *(line for extra in extras.values() for line in extra)]
    names = {re.sub(r"[-_.]+", "-", Requirement(line).name).lower() for line in lines}
    assert {name for name in names if not name.startswith("m2ib-")} <= pinned


def test_torch_is_the_pinned_one_everywhere():
    lines = [line for folder in DISTRIBUTIONS for line in project(folder)["dependencies"]]
    lines += (ROOT / "constraints.txt").read_text().splitlines()
    assert {line for line in lines if re.match(r"torch\b", line)} == {"torch==2.13.0"}


@pytest.mark.parametrize("command", ["m2ib", "m2ib-server", "m2ib-export"])
def test_every_command_explains_itself(command):
    program = Path(sys.executable).parent / command
    done = subprocess.run([program, "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "Usage" in done.stdout


def test_the_readmes_commands_are_make_targets():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = re.findall(r"\bmake ([a-z-]+)", (ROOT / "README.md").read_text() + (ROOT / "CONTRIBUTING.md").read_text())
    assert set(named) <= targets
    assert {"install", "proto", "format", "lint", "test", "test-all", "demo", "bench"} <= targets


def test_the_readmes_links_lead_somewhere():
    for page in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"):
        text = (ROOT / page).read_text()
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", text) + re.findall(
            r"`((?:docs|export|server|bench)/[\w./-]+)`", text
        ):
            assert (ROOT / target).exists(), (page, target)


def test_generated_code_is_fresh():
    done = subprocess.run(
        [sys.executable, ROOT / "tests/contract/fresh_proto.py"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_demo_is_exported_anew_when_the_exporter_or_the_contract_changes():
    answer = subprocess.run(
        ["make", "--print-data-base", "--question", "models/demo/manifest.json"],  # noqa: S607 - make from the PATH
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    (rule,) = re.findall(r"^models/demo/manifest\.json: (.*)$", answer.stdout, flags=re.MULTILINE)
    sources = [*ROOT.glob("export/m2ib_export/*.py"), *ROOT.glob("export/m2ib_export/families/**/*.py")]
    sources += [*ROOT.glob("export/m2ib_export/demo/checkpoint/*"), *ROOT.glob("proto/m2ib/v1/*_pb2.py")]
    assert {str(path.relative_to(ROOT)) for path in sources} <= set(rule.split())


def test_the_image_installs_our_own_wheels_and_none_of_their_names():
    installed = re.search(r"pip install (.*?)\n\n", (ROOT / "Dockerfile").read_text(), flags=re.DOTALL)[1]
    assert re.findall(r"(?<![/_\w])m2ib[-_]\w+", installed) == []
    assert set(re.findall(r"/wheels/(m2ib_\w+)-\*\.whl", installed)) == {"m2ib_proto", "m2ib_server"}


def test_the_images_health_check_takes_the_address_that_the_server_listens_on():
    dockerfile = (ROOT / "Dockerfile").read_text()
    (check,) = re.findall(r"HEALTHCHECK (?:.*\\\n)*\s*CMD (.*)", dockerfile)
    assert json.loads(check) == ["m2ib-server", "health"]
