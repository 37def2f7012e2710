"""`make demo`, as a newcomer runs it: in a copy of the repository, with that copy's code alone."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from m2ib_export.demo.__main__ import chosen_findings
from m2ib_export.demo.finding import Kind
from m2ib_export.demo.phantom import render_film
from m2ib_export.demo.phrase import plain_phrase

ROOT = Path(__file__).resolve().parents[2]
DISTRIBUTIONS = ("proto", "client", "server", "export")
SEED, SIZE, PHRASE = 22, 1024, "right mid zone mass"  # the Makefile's
PLACES = (
    "import m2ib.v1, m2ib_client, m2ib_server, m2ib_export as e; print(*m2ib.v1.__path__, m2ib_client, m2ib_server, e)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Demo:
    folder: Path
    done: subprocess.CompletedProcess


def copy_of_the_repository(folder):
    """Copy what git knows of, as it is now: uncommitted changes too, and nothing that a run has left."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S607
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The demo's run. The tools of the running interpreter stand for an installation, and nothing is installed."""
    folder = copy_of_the_repository(tmp_path_factory.mktemp("demo"))
    variables = os.environ | {"PYTHONPATH": os.pathsep.join(str(folder / name) for name in DISTRIBUTIONS)}
    venv = f"VENV={sys.prefix}"
    run = {"cwd": folder, "env": variables, "capture_output": True, "text": True}
    places = subprocess.run([Path(sys.prefix) / "bin/python", "-c", PLACES], check=True, **run)
    assert places.stdout.count(f"{folder}/") == len(DISTRIBUTIONS), places.stdout + places.stderr
    done = subprocess.run(["make", venv, "-o", f"{sys.prefix}/.installed", "demo"], check=False, **run)  # noqa: S607
    return Demo(folder=folder, done=done)


pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_the_demo_ends_well_and_names_what_to_try_next(demo):
    assert demo.done.returncode == 0, demo.done.stderr
    assert "m2ib-server serve --models models" in demo.done.stdout
    assert PHRASE in demo.done.stdout
    assert (demo.folder / "models/demo/manifest.json").exists()


def test_the_overlay_has_the_films_size_and_marks_the_finding_that_the_phrase_names(demo):
    film = render_film(SEED, (SIZE, SIZE), chosen_findings(SEED, [Kind.MASS, Kind.EFFUSION]))
    (named,) = (
        mask for finding, mask in zip(film.findings, film.masks, strict=True) if plain_phrase(finding) == PHRASE
    )
    with Image.open(demo.folder / "out/overlay.png") as picture:
        assert (picture.size, picture.mode) == ((SIZE, SIZE), "RGB")
        overlay = np.asarray(picture).astype(int)
    changed = np.abs(overlay - film.pixels_u8[..., np.newaxis]).max(axis=-1)
    assert changed[named].mean() > 20  # of 255 grey levels; 37 when this was written, and 1 in the rest of the film
    assert changed[named].mean() > 10 * changed[~named].mean()
