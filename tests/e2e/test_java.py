"""The wire from Java: the example of docs/clients, compiled with Debian's grpc-java, explains an image."""

import os
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "docs/clients/java/Explain.java"
TOOLS = ("javac", "java", "protoc", "grpc_java_plugin")
JARS = [
    str(jar)
    for name in (
        "grpc-*",
        "protobuf",
        "guava",
        "gson",
        "netty-*",
        "opencensus-*",
        "perfmark-*",
        "error_prone*",
        "geronimo-annotation*",
    )
    for jar in sorted(Path("/usr/share/java").glob(f"{name}.jar"))
]
missing = [tool for tool in TOOLS if shutil.which(tool) is None]
missing += [
    jar
    for jar in ("grpc-netty.jar", "protobuf.jar", "netty-all.jar", "perfmark-api.jar")
    if f"/usr/share/java/{jar}" not in JARS
]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        bool(missing),
        reason=f"missing {', '.join(missing)}: install libgrpc-java libprotobuf-java libnetty-java libperfmark-java "
        "protobuf-compiler protobuf-compiler-grpc-java-plugin and a JDK",
    ),
]


def run(*command, **variables):
    return subprocess.run(
        list(map(str, command)),
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        env={**os.environ, **variables},
    )


@pytest.fixture(scope="module")
def classes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("java")
    sources, out = folder / "sources", folder / "classes"
    sources.mkdir()
    standard = Path(find_spec("grpc_tools").origin).parent / "_proto"
    google = Path(next(iter(find_spec("google.rpc").submodule_search_locations))).parents[1]
    plugin = f"--plugin=protoc-gen-grpc-java={shutil.which('grpc_java_plugin')}"
    protos = [f"m2ib/v1/{name}.proto" for name in ("attribution", "settings", "manifest")]
    protos += ["google/rpc/status.proto", "google/rpc/error_details.proto"]
    includes = [f"-I{path}" for path in (ROOT / "proto", google, standard)]
    generated = run("protoc", *includes, plugin, f"--java_out={sources}", f"--grpc-java_out={sources}", *protos)
    assert generated.returncode == 0, generated.stderr
    java = [EXAMPLE, *sources.rglob("*.java")]
    compiled = run("javac", "-nowarn", "-cp", ":".join(JARS), "-d", out, *java)
    assert compiled.returncode == 0, compiled.stderr
    return out


def explain(classes, *arguments, **variables):
    return run("java", "-cp", ":".join([str(classes), *JARS]), "Explain", *arguments, **variables)


def test_the_java_example_explains_an_image(classes, server, tmp_path):
    picture, overlay = tmp_path / "film.png", tmp_path / "overlay.png"
    Image.fromarray(np.random.default_rng(3).integers(0, 255, (30, 40), dtype=np.uint8)).save(picture)
    done = explain(classes, server.address, picture, "a cat", overlay, M2IB_MODEL="tiny")
    assert done.returncode == 0, done.stderr
    similarity, patch, *words = done.stdout.splitlines()
    assert similarity.startswith("similarity ")
    assert "bits around pixel (" in patch
    assert [line.split()[-1] for line in words] == ["a", "cat"]
    with Image.open(overlay) as drawn:
        assert drawn.size == (40, 30)

    refused = explain(classes, server.address, picture, "", M2IB_MODEL="tiny")
    assert refused.returncode == 1
    assert "INVALID_ARGUMENT TEXT_EMPTY: " in refused.stderr
