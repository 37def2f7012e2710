"""Phrases of the demo: complete for every finding, true of the right films, and each in the tokeniser's words."""

from __future__ import annotations

import numpy as np
import pytest

from m2ib_export.demo.anatomy import Side, Zone
from m2ib_export.demo.batch import truth_table
from m2ib_export.demo.finding import ALL_FINDINGS, Finding, Kind, sample_findings
from m2ib_export.demo.phrase import (
    NAMES,
    NORMAL_PHRASES,
    PLACES,
    Caption,
    all_phrases,
    decoy_of,
    is_true,
    matches,
    plain_phrase,
    sample_caption,
    wordings,
)

NODULE = Finding(kind=Kind.NODULE, side=Side.RIGHT, zone=Zone.UPPER)


def test_every_kind_and_zone_has_words() -> None:
    assert set(NAMES) == set(Kind)
    assert set(PLACES) == set(Zone)


@pytest.mark.parametrize("finding", ALL_FINDINGS, ids=lambda f: f"{f.kind.value}-{f.side}-{f.zone}")
def test_phrases_of_a_finding_are_many_and_name_side_and_kind(finding: Finding) -> None:
    phrases = wordings(finding)
    assert len(set(phrases)) == len(phrases) >= 6
    for phrase in phrases:
        assert any(name in phrase for name in NAMES[finding.kind])
        assert finding.side is None or finding.side.value in phrase


def test_no_phrase_stands_for_two_findings() -> None:
    phrases = [phrase for finding in ALL_FINDINGS for phrase in wordings(finding)]
    assert len(set(phrases)) == len(phrases)


def test_plain_phrase_is_the_reports_shortest() -> None:
    assert plain_phrase(NODULE) == "right upper zone nodule"


def test_article_fits_the_noun() -> None:
    opacity = Finding(kind=Kind.OPACITY, side=Side.LEFT, zone=Zone.MID)
    assert "there is an opacity in the left mid zone" in wordings(opacity)
    assert "there is consolidation in the left mid zone" in wordings(opacity)
    assert "there is a nodule in the right upper lobe" in wordings(NODULE)


@pytest.mark.parametrize(
    ("claim", "expected"),
    [
        (NODULE, True),
        (Finding(kind=Kind.NODULE, side=Side.RIGHT), True),
        (Finding(kind=Kind.NODULE), True),
        (Finding(kind=Kind.NODULE, side=Side.LEFT, zone=Zone.UPPER), False),
        (Finding(kind=Kind.NODULE, side=Side.RIGHT, zone=Zone.LOWER), False),
        (Finding(kind=Kind.MASS, side=Side.RIGHT, zone=Zone.UPPER), False),
    ],
)
def test_claim_fits_a_finding(claim: Finding, expected: bool) -> None:
    assert matches(claim, NODULE) is expected


def test_normal_phrase_is_true_of_normal_films_alone() -> None:
    normal = Caption(text=NORMAL_PHRASES[0], claims=())
    assert is_true(normal, ())
    assert not is_true(normal, (NODULE,))


def test_sampled_captions_are_true_and_decoys_false() -> None:
    rng = np.random.default_rng(4)
    for _ in range(300):
        findings = sample_findings(rng)
        caption = sample_caption(findings, rng)
        assert is_true(caption, findings)
        if caption.claims:
            assert decoy_of(caption.claims[0], findings, rng) not in findings


def test_truth_table_agrees_with_the_rule_for_one_pair() -> None:
    rng = np.random.default_rng(9)
    found = [sample_findings(rng) for _ in range(60)]
    captions = [sample_caption(findings, rng) for findings in found]
    expected = [[is_true(caption, findings) for caption in captions] for findings in found]
    assert np.array_equal(truth_table(found, captions), np.array(expected))


def test_phrase_corpus_holds_every_wording() -> None:
    corpus = set(all_phrases())
    assert all(phrase in corpus for finding in ALL_FINDINGS for phrase in wordings(finding))
    assert set(NORMAL_PHRASES) <= corpus
