"""Checks what `verify` asks for, how it compares and what it says, against the public fake."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from typer.testing import CliRunner

from m2ib.v1 import attribution_pb2
from m2ib_client import InvalidRequestError, NotFoundError, Window
from m2ib_client._answer import read_explanation
from m2ib_client._cli.app import app
from m2ib_client._cli.exits import ExitCode
from m2ib_client._cli.verify import EXIT_BY_VERDICT, WORDS
from m2ib_client._recorded import SETTINGS, read_result
from m2ib_client._request import explain_request
from m2ib_client._results import Settings
from m2ib_client._verification import _rank_correlation, compare
from m2ib_client.testing import FakeService, _answers, _model, serve_fake

TEXT = "an opacity in the left lung"
PIXELS = np.random.default_rng(2).integers(0, 255, (30, 40), dtype=np.uint8)


def kept(**options: Any) -> dict[str, Any]:
    request = explain_request(PIXELS, TEXT, **options)
    return json.loads(read_explanation(_answers.fake_explanation(request, _model.fake_model("fake"))).to_json())


def test_a_result_comes_out_again(connect: Any, fake: FakeService) -> None:
    client = connect(fake)
    explanation = client.explain(PIXELS, TEXT, seed=7, beta=0.3, fit="stretch")
    line = json.dumps({"id": "1", "explanation": explanation.to_dict()})
    for form in (explanation, explanation.to_dict(), explanation.to_json(), line):
        verification = client.verify(form, PIXELS, TEXT)
        assert verification.verdict == "exact"
        assert verification.provenance_differences == {}
        assert verification.grid.max_abs_difference == verification.tokens.max_abs_difference == 0
    replayed = verification.replayed.provenance
    assert (replayed.settings, replayed.fit) == (explanation.provenance.settings, "stretch")
    json.dumps(verification.to_dict(), allow_nan=False)


def test_every_setting_of_a_result_is_asked_for_again() -> None:
    assert set(SETTINGS) == set(Settings.__dataclass_fields__)
    options = read_result(kept(seed=2**64 - 1, steps=3, samples=2, repeats=2, sides=("text",))).options
    assert (options["seed"], options["steps"], options["repeats"]) == (2**64 - 1, 3, 2)
    assert options["sides"] == ["text"]
    assert options["frame"] is options["window"] is None


def test_how_an_image_was_read_and_a_text_cut_is_asked_for_again() -> None:
    result = kept()
    result["provenance"]["rendering"] |= {
        "frame": 3,
        "window_source": "request window",
        "window": {"centre": -600, "width": 1500},
    }
    result["provenance"]["text_length"] = {"tokens_given": 90, "tokens_kept": 77}
    options = read_result(result).options
    assert (options["frame"], options["window"], options["truncate_text"]) == (3, Window(-600, 1500), True)
    result["provenance"]["rendering"]["window_source"] = "window"  # the file's own; it is found there again
    assert read_result(result).options["window"] is None


@pytest.mark.parametrize(
    "result",
    ["", "[]", "null", "{}", '{"explanation": null}', "{", {"explanation": {"partial": False}}, '{"partial": false}'],
)
def test_what_is_no_result_is_refused(result: Any) -> None:
    with pytest.raises(InvalidRequestError, match="provenance"):
        read_result(result)


def test_a_partial_result_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="partial") as caught:
        read_result({**kept(), "partial": True})
    assert caught.value.reason == "RESULT_PARTIAL"


def test_a_server_with_another_package_is_told_which_digest_it_needs(connect: Any, fake: FakeService) -> None:
    result = kept()
    result["provenance"]["digest"] = "5f" * 32
    with pytest.raises(NotFoundError, match="5f" * 32) as caught:
        connect(fake).verify(result, PIXELS, TEXT)
    assert caught.value.reason == "DIGEST_UNKNOWN"
    assert _model.fake_model("fake").digest in str(caught.value)


def test_the_version_that_the_result_came_from_is_asked_and_not_what_its_name_leads_to(
    connect: Any, fake: FakeService
) -> None:
    connect(fake).verify(kept(), PIXELS, TEXT)
    assert fake.calls[-1].request.model == "fake:1"


class SwappedService(FakeService):
    """Lists one package and explains with another, as a server does that swaps them in between."""

    def Explain(self, request: Any, context: Any) -> attribution_pb2.ExplainResponse:
        answer = super().Explain(request, context)
        answer.explanation.provenance.digest = "a7" * 32
        return answer


def test_an_answer_of_another_package_is_not_compared(connect: Any) -> None:
    with serve_fake(SwappedService()) as swapped, pytest.raises(NotFoundError, match="a7" * 32) as caught:
        connect(swapped).verify(kept(), PIXELS, TEXT)
    assert caught.value.reason == "DIGEST_UNKNOWN"
    assert _model.fake_model("fake").digest in caught.value.allowed


@pytest.mark.parametrize("tolerance", [-0.1, 1.0, float("nan")])
def test_a_tolerance_that_cannot_be_meant_is_refused(connect: Any, fake: FakeService, tolerance: float) -> None:
    with pytest.raises(InvalidRequestError, match="tolerance"):
        connect(fake).verify(kept(), PIXELS, TEXT, tolerance=tolerance)


def verdict(result: dict[str, Any], *, text: str = TEXT, **options: Any) -> Any:
    request = explain_request(PIXELS, text, **options)
    replayed = read_explanation(_answers.fake_explanation(request, _model.fake_model("fake")))
    return compare(read_result(result), replayed, text, tolerance=0.01)


def test_small_and_large_differences_are_told_apart() -> None:
    result = kept()
    grid = np.asarray(result["image"]["grid_bits"])
    for change, expected in ((0.005, "within_tolerance"), (0.02, "differs")):
        changed = grid.copy()
        changed[1, 1] += change * grid.max()
        result["image"]["grid_bits"] = changed.tolist()
        found = verdict(result)
        assert found.verdict == expected
        assert found.grid.relative_difference == pytest.approx(change, rel=0.05)
    result["image"]["grid_bits"] = grid[:1].tolist()
    assert (verdict(result).verdict, verdict(result).grid.rank_correlation) == ("differs", None)


def test_a_changed_similarity_differs() -> None:
    assert verdict({**kept(), "similarity": kept()["similarity"] + 0.01}).verdict == "differs"
    assert verdict({**kept(), "similarity": kept()["similarity"] + 1e-5}).verdict == "within_tolerance"


def test_a_kept_result_without_a_side_proves_nothing() -> None:
    recorded = replace(read_result(kept()), grid_bits=None, token_ids=None, token_bits=None)
    request = explain_request(PIXELS, TEXT)
    replayed = read_explanation(_answers.fake_explanation(request, _model.fake_model("fake")))
    assert compare(recorded, replayed, TEXT, tolerance=0.01).verdict == "differs"


@pytest.mark.parametrize("image", [None, {"grid_bits": []}, {"grid_bits": [[]]}])
@pytest.mark.parametrize("text", [None, {"tokens": []}])
def test_a_result_in_which_no_side_was_explained_is_refused(
    connect: Any, fake: FakeService, image: Any, text: Any
) -> None:
    result = {**kept(), "image": image, "text": text}
    with pytest.raises(InvalidRequestError, match="no side that was explained") as caught:
        connect(fake).verify(result, PIXELS, TEXT)
    assert caught.value.reason == "RESULT_MALFORMED"


def test_another_text_differs_even_where_only_the_image_was_explained() -> None:
    found = verdict(kept(sides=("image",)), text=f"{TEXT} ", sides=("image",))
    assert (found.verdict, found.same_text, found.tokens) == ("differs", False, None)
    result = kept(sides=("image",))
    del result["provenance"]["text_sha256"]  # of an older server
    assert verdict(result, sides=("image",)).same_text is None


def test_what_the_result_may_depend_on_is_shown_where_it_is_not_the_same() -> None:
    result = kept()
    result["provenance"]["device"] = "cuda"
    result["provenance"]["software"] = {"torch": "2.12"}
    assert verdict(result).provenance_differences == {
        "device": ("cuda", "cpu"),
        "m2ib-client": ("", "fake"),
        "torch": ("2.12", ""),
    }


@pytest.mark.parametrize(
    ("then", "now", "expected"),
    [([1, 2, 3], [10, 20, 30], 1.0), ([1, 2, 3], [3, 2, 1], -1.0), ([1, 1, 1], [1, 2, 3], None)],
)
def test_rank_correlation_is_spearman_s(then: list[float], now: list[float], expected: float | None) -> None:
    found = _rank_correlation(np.asarray(then, np.float32), np.asarray(now, np.float32))
    assert found == (None if expected is None else pytest.approx(expected))


def test_rank_correlation_with_ties_is_scipy_s() -> None:
    stats = pytest.importorskip("scipy.stats")
    generator = np.random.default_rng(0)
    then, now = (generator.integers(0, 5, 40).astype(np.float32) for _ in range(2))
    assert _rank_correlation(then, now) == pytest.approx(stats.spearmanr(then, now).statistic)


@pytest.fixture
def run(fake: FakeService, tmp_path: Path) -> Any:
    picture = tmp_path / "film.png"
    PIL.Image.fromarray(PIXELS).save(picture)

    def invoke(result: str, *arguments: str, text: str = TEXT) -> Any:
        file = tmp_path / "result.json"
        file.write_text(result)
        command = ["verify", str(file), str(picture), text, *arguments]
        return CliRunner().invoke(app, command, env={"M2IB_SERVER": fake.address})

    invoke.explained = lambda: CliRunner().invoke(
        app, ["explain", str(picture), TEXT, "--json"], env={"M2IB_SERVER": fake.address}
    )
    return invoke


def test_the_command_verifies_what_explain_printed(run: Any) -> None:
    explained = run.explained().stdout
    done = run(explained)
    assert done.exit_code == ExitCode.OK, done.output
    assert "exact" in done.stdout
    assert "package    fake version 1" in done.stdout
    assert json.loads(run(explained, "--json").stdout)["verdict"] == "exact"


def test_the_command_ends_differently_for_each_verdict(run: Any) -> None:
    result = json.loads(run.explained().stdout)
    result["image"]["grid_bits"][0][0] += 1e-4
    close = run(json.dumps(result))
    assert (close.exit_code, "within tolerance" in close.stdout) == (ExitCode.WITHIN_TOLERANCE, True)
    result["image"]["grid_bits"][0][0] += 5
    far = run(json.dumps(result))
    assert (far.exit_code, "differs" in far.stdout) == (ExitCode.DIFFERS, True)
    other = run(run.explained().stdout, text="no opacity at all")
    assert other.exit_code == ExitCode.DIFFERS
    assert "text       another one" in other.stdout
    assert run("no result").exit_code == ExitCode.INVALID
    assert run(json.dumps({**result, "image": None, "text": None})).exit_code == ExitCode.INVALID
    assert len(set(EXIT_BY_VERDICT.values())) == len(EXIT_BY_VERDICT) == len(WORDS)


def test_of_many_results_one_is_named(run: Any) -> None:
    explanation = json.loads(run.explained().stdout)
    lines = [json.dumps({"id": name, "text": TEXT, "explanation": explanation}) for name in ("a", "b")]
    many = "\n".join([*lines, '{"id": "c", "expl'])
    assert run(many, "--id", "b").exit_code == ExitCode.OK
    unnamed = run(many)
    assert unnamed.exit_code == ExitCode.INVALID
    assert "--id" in unnamed.output
    assert run(many, "--id", "z").exit_code == ExitCode.INVALID
