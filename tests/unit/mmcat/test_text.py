"""Titles become ids: dynamic padding, truncation, digits kept, Hangul whole, the same vocabulary every time."""

from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer as HfTokenizer
from tokenizers import models

from mmcat.errors import ModelError
from mmcat.text import Tokenizer
from tests.support.tiny import TITLES, tiny_tokenizer


def test_a_batch_is_padded_to_its_longest_title() -> None:
    tokenizer = tiny_tokenizer()
    ids, mask = tokenizer.encode(["puma", "puma men sneakers blue", ""])
    assert ids.shape == mask.shape
    assert ids.dtype == mask.dtype == np.int64
    assert mask[1].all()
    assert (ids[mask == 0] == tokenizer.pad_id).all()
    assert mask.sum(axis=1)[2] == 2  # the two special tokens
    assert tokenizer.encode(["puma"])[0].tolist()[0] == ids[0][mask[0] == 1].tolist()


def test_a_long_title_is_cut_and_keeps_its_closing_token() -> None:
    ids, _ = tiny_tokenizer().encode(["puma " * 100])
    closing = tiny_tokenizer().encode([""])[0][0, -1]
    assert ids.shape == (1, 16)
    assert ids[0, -1] == closing


def test_no_titles_and_empty_titles_have_a_shape() -> None:
    assert tiny_tokenizer().encode([])[0].shape == (0, 1)
    assert tiny_tokenizer().encode(["", ""])[0].shape[0] == 2


def test_training_twice_gives_the_same_file(tmp_path: Path) -> None:
    titles = [f"{title} {number}" for title in TITLES for number in range(20)]
    for name in ("a", "b"):
        Tokenizer.train_wordpiece(iter(titles), size=150).write(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_trained_vocabulary_keeps_its_size_digits_and_hangul() -> None:
    tokenizer = Tokenizer.train_wordpiece([f"운동화 {number}" for number in range(100)], size=60)
    assert tokenizer.vocabulary_size <= 60
    first, second = tokenizer.encode(["운동화 27"])[0].tolist(), tokenizer.encode(["운동화 72"])[0].tolist()
    assert first != second
    unknown = tokenizer.encode(["☃"])[0][0, 1]
    assert unknown not in first[0]


def test_writing_and_loading_changes_no_id(tmp_path: Path) -> None:
    tiny_tokenizer().write(tmp_path / "tokenizer.json")
    loaded = Tokenizer.load(tmp_path / "tokenizer.json", max_tokens=16)
    for ours, theirs in zip(tiny_tokenizer().encode(TITLES), loaded.encode(TITLES), strict=True):
        assert np.array_equal(ours, theirs)


def test_padding_and_truncation_of_a_foreign_tokenizer_are_replaced(test_weights: Path) -> None:
    tokenizer = Tokenizer.load(test_weights / "minilm" / "tokenizer.json", max_tokens=8)
    assert tokenizer.encode(["puma tee"])[0].shape[1] < 8
    assert tokenizer.encode(["puma tee " * 20])[0].shape[1] == 8


def test_what_is_no_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text("{}")
    with pytest.raises(ModelError, match="cannot read the tokenizer"):
        Tokenizer.load(tmp_path / "broken.json")
    with pytest.raises(ModelError, match="padding"):
        Tokenizer(HfTokenizer(models.WordPiece({"[UNK]": 0}, unk_token="[UNK]")))


def test_a_bpe_keeps_digits_whole_knows_every_character_and_is_the_same_every_time(tmp_path: Path) -> None:
    titles = [f"{title} {number}" for title in TITLES for number in range(20)]
    first, second = (Tokenizer.train_bpe(iter(titles), size=400) for _ in range(2))
    first.write(tmp_path / "a")
    second.write(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert first.vocabulary_size <= 400
    assert first.encode(["x-1042"])[0].shape[1] == first.encode(["x-"])[0].shape[1] + 1  # 1042 is one piece
    assert first.encode(["☃"])[0].tolist() != first.encode(["☂"])[0].tolist()
    assert first.encode(["ＰＵＭＡ"])[0].tolist() == first.encode(["puma"])[0].tolist()


def test_pieces_of_a_bpe_never_span_two_morphemes() -> None:
    titles = ["운동화 240", "운동복 100"] * 20

    def cut(word: str) -> list[str]:
        return [word[:2], word[2:]] if word.startswith("운동") else [word]

    whole, cut_up = Tokenizer.train_bpe(titles, size=400), Tokenizer.train_bpe(titles, size=400, morphemes=cut)
    assert whole.encode(["운동화"])[0].shape[1] == 3  # and the two special tokens
    assert cut_up.encode(["운동화"])[0].shape[1] == 4
    assert cut_up.encode(["운동화"])[0][0, 1] == cut_up.encode(["운동복"])[0][0, 1]
