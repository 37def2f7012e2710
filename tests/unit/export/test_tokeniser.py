import json

import pytest
from tokenizers import Tokenizer

from checkpoints import build_tokeniser
from m2ib_export.errors import CheckpointInvalid
from m2ib_export.tokeniser import Tokeniser, pad, read_tokeniser

TEXT = "A photo of a Cat, and pneumonia."


def test_padding_and_truncation_of_the_checkpoint_are_switched_off(tmp_path):
    tokeniser = build_tokeniser(800)
    tokeniser.enable_padding(length=20)
    tokeniser.enable_truncation(4)
    tokeniser.save(str(tmp_path / "tokenizer.json"))
    written = json.loads(read_tokeniser(tmp_path).to_json())
    assert (written["padding"], written["truncation"]) == (None, None)


def test_vocabulary_and_merges_give_the_same_tokens_as_the_file(tmp_path):
    document = json.loads(build_tokeniser(800).to_str())
    (tmp_path / "vocab.json").write_text(json.dumps(document["model"]["vocab"]), encoding="utf-8")
    merges = "\n".join(" ".join(merge) for merge in document["model"]["merges"])
    (tmp_path / "merges.txt").write_text(f"#version: 0.2\n{merges}\n", encoding="utf-8")
    built = read_tokeniser(tmp_path)
    assert built.encode(TEXT) == Tokeniser(build_tokeniser(800)).encode(TEXT)
    assert Tokenizer.from_str(built.to_json()).encode(TEXT).ids == built.encode(TEXT)


def test_a_text_is_framed_by_start_and_end():
    tokeniser = Tokeniser(build_tokeniser(800))
    first, *words, last = tokeniser.encode(TEXT)
    assert (first, last) == (tokeniser.start_token_id, tokeniser.end_token_id) == (798, 799)
    assert tokeniser.highest_token_id == 799
    assert not {798, 799} & set(words)


def test_a_tokeniser_without_a_frame_is_refused(tmp_path):
    document = json.loads(build_tokeniser(800).to_str())
    document["post_processor"] = None
    (tmp_path / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(CheckpointInvalid, match="seen 0 tokens for an empty text; allowed: 2"):
        read_tokeniser(tmp_path)


@pytest.mark.parametrize("content", [None, "{}"])
def test_a_missing_or_broken_tokeniser_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content, encoding="utf-8")
    with pytest.raises(CheckpointInvalid, match=r"allowed: tokenizer\.json"):
        read_tokeniser(tmp_path)


def test_shorter_texts_are_padded_on_the_right():
    batch = pad([[1, 2, 9], [1, 9]], padding=9)
    assert batch.token_ids.tolist() == [[1, 2, 9], [1, 9, 9]]
    assert batch.attention_mask.tolist() == [[1, 1, 1], [1, 1, 0]]
