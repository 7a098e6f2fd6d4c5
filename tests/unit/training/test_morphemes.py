"""MeCab-ko cuts Korean words at morphemes."""

from training.morphemes import splitter


def test_a_compound_is_cut_at_its_morphemes() -> None:
    assert splitter()("나이키여성운동화") == ["나이키", "여성", "운동", "화"]
