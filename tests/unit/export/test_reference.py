import numpy as np
import pytest

from m2ib_export.errors import ReferenceTextsInvalid
from m2ib_export.families import load_original
from m2ib_export.reference import BUILT_IN, embed_reference_texts, read_reference_texts
from m2ib_export.tokeniser import pad, read_tokeniser


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_built_in_list_has_enough_texts_to_rank_among(name):
    assert len(read_reference_texts(name)) >= 60


def test_empty_lines_and_margins_are_dropped(tmp_path):
    (tmp_path / "texts").write_text("  a cat \n\nun œdème\r\n", encoding="utf-8")
    assert read_reference_texts(str(tmp_path / "texts")) == ("a cat", "un œdème")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "seen FileNotFoundError; allowed: general, radiology, or a UTF-8 file"),
        (b"caf\xe9", "seen UnicodeDecodeError"),
        (b"\n \n", "seen no text; allowed: at least one"),
        (b"a cat\na dog\na cat\n", "seen 1 lines that repeat another"),
    ],
)
def test_a_bad_list_is_refused(tmp_path, content, text):
    path = tmp_path / "texts"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ReferenceTextsInvalid, match=text):
        read_reference_texts(str(path))


def test_embeddings_are_the_originals_and_normalised(tiny_checkpoint):
    original, tokeniser = load_original("clip", tiny_checkpoint), read_tokeniser(tiny_checkpoint)
    texts = tuple(f"photo {number}" for number in range(20))
    embeddings = embed_reference_texts(texts, source="x", tokeniser=tokeniser, original=original)
    alone = pad([tokeniser.encode(texts[17])], padding=tokeniser.end_token_id)
    expected = original.embed_texts(alone.token_ids, alone.attention_mask)[0].numpy()
    assert embeddings.shape == (20, 16)
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(embeddings[17], expected / np.linalg.norm(expected), atol=1e-6)


def test_a_text_longer_than_the_context_is_refused(tiny_checkpoint):
    original, tokeniser = load_original("clip", tiny_checkpoint), read_tokeniser(tiny_checkpoint)
    texts = ("a cat", "cat " * original.geometry.text.context_length)
    limit = original.geometry.text.context_length
    with pytest.raises(ReferenceTextsInvalid, match=rf"seen {limit + 2} tokens in text 2; allowed: at most {limit}"):
        embed_reference_texts(texts, source="x", tokeniser=tokeniser, original=original)
