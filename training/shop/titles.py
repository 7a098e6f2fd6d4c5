"""Titles: brand, category words where the kind of listing says so, and fillers up to a length drawn before.

Length in characters, in words and in bytes is decided before the category is looked at, and fillers make up the
difference exactly: otherwise boosted trees read the category from the length of its words. Brands, fillers and codes
never look at the category. Templates of the splits are disjoint, category words are shared, and the demo knows brands
that training has not seen.

After catalogue.py and draws.py; before shop.py.
"""

from dataclasses import dataclass
from functools import cache
from typing import Literal

from training.shop.catalogue import CORNERS, THINGS, USES, Words
from training.shop.draws import Draws, key_of

Split = Literal["train", "demo"]
Language = Literal["korean", "english", "mixed"]
_LANGUAGES: tuple[Language, ...] = ("korean", "english", "mixed")
_LANGUAGE_CUMULATIVE = (0.5, 0.75, 1.0)

# {b} brand, {c} category words and fillers in any order, {f} fillers only.
TEMPLATES: dict[Split, tuple[str, ...]] = {
    "train": ("[{b}] {c} - {f}", "{c} / {b} ({f})", "{b} | {c} ({f})", "({f}) {b}: {c}", "{f} * {c} [{b}]"),
    "demo": ("{b} ~ {c} <{f}>", "<{f}> {c} @ {b}", "#{b}# {c} + {f}", "{f} ! {b} {{{c}}}"),
}
_BRANDS = 160
BRAND_RANGES: dict[Split, tuple[int, int]] = {"train": (0, 119), "demo": (40, _BRANDS - 1)}

_FILLERS_KOREAN = (
    "신상", "특가", "정품", "추천", "인기", "할인", "당일", "행사", "최신", "한정", "베이직", "감성", "고급스러운",
    "데일리", "무료배송", "국내배송", "당일출고", "사은품증정", "가성비", "선물용", "신학기", "봄여름", "가을겨울",
    "프리미엄", "트렌디", "모던한", "심플한", "깔끔한", "빈티지", "화이트", "블랙", "네이비", "카키", "베이지",
    "라이트", "컬렉션", "에디션", "모음전", "기획전", "단독", "공식", "본사직영", "빠른배송", "교환가능",
)  # fmt: skip
_FILLERS_ENGLISH = (
    "new", "hot", "sale", "best", "pro", "plus", "lite", "basic", "daily", "classic", "modern", "premium",
    "official", "limited", "edition", "season", "spring", "autumn", "winter", "black", "white", "navy", "khaki",
    "beige", "soft", "simple", "vintage", "original", "delivery", "bestseller", "special", "value", "gift",
    "trend", "series", "select",
)  # fmt: skip
_CODE_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ"
_CODE_DIGITS = "0123456789"
_FIRST = ("no", "ve", "lu", "ka", "to", "mi", "ra", "se", "do", "fa", "zi", "ho", "pe", "ju", "be", "wo")
_SECOND = ("vara", "lite", "mond", "rix", "seno", "dal", "wick", "tano", "bel", "nora")
_FIRST_KOREAN = tuple("노베루카토미라세도파지호페주비우")
_SECOND_KOREAN = ("바라", "리테", "몬드", "릭스", "세노", "달", "윅", "타노", "벨", "노라")

_WORDS = (9, 13)  # words of a title, brand and codes included
# Characters a word, and the share of them that is Hangul: where the fillers at hand can meet all three numbers.
_WORD_LENGTH = {"korean": (4.3, 4.9), "english": (5.2, 6.2), "mixed": (4.8, 5.5)}
_HANGUL_SHARE = {"korean": (0.32, 0.40), "english": (0.0, 0.0), "mixed": (0.18, 0.24)}
_SHORTEST_HANGUL, _LONGEST_HANGUL = 2, 5
_SHORTEST_LETTERS, _LONGEST_LETTERS = 2, 9


@dataclass(frozen=True, slots=True)
class Title:
    """A title and the brand that stands in it."""

    text: str
    brand: str


def draw_title(draws: Draws, split: Split, thing: str, use: str, difficulty: float, corner: str = "") -> Title:
    """Writes a title that names the thing and the use ("" where the photo has to say it).

    Args:
        corner: where in the photo the thing is, if there are several.
        difficulty: 0 … 1; with a tenth of it a category word loses or doubles a letter.
    """
    language = _LANGUAGES[draws.weighted(_LANGUAGE_CUMULATIVE)]
    template = draws.choice(TEMPLATES[split])
    words = draws.between(*_WORDS)
    characters = round(words * draws.uniform(*_WORD_LENGTH[language]))
    hangul = round(characters * draws.uniform(*_HANGUL_SHARE[language]))
    brand = _brand(draws, split, language)
    named = [_misspelt(draws, word, difficulty) for word in _named(draws, language, thing, use, corner)]
    said = " ".join([brand, *named])
    fillers = _fillers(
        draws,
        hangul=hangul - _hangul_in(said),
        letters=characters - hangul - (len(said) - _hangul_in(said) - said.count(" ")),
        words=words - 1 - said.count(" "),
    )
    cut = draws.between(1, max(1, len(fillers) - 1))
    middle = draws.shuffled([*fillers[cut:], " ".join(named)] if named else fillers[cut:])
    text = template.format(b=brand, c=" ".join(middle), f=" ".join(fillers[:cut]))
    return Title(" ".join(text.split()), brand)


def brand_name(number: int, korean: bool) -> str:
    """The name of brand 0 … 159 in one of its two spellings."""
    first, second = divmod(_brand_order()[number], len(_SECOND))
    if korean:
        return _FIRST_KOREAN[first] + _SECOND_KOREAN[second]
    return (_FIRST[first] + _SECOND[second]).capitalize()


@cache
def _brand_order() -> list[int]:
    return Draws(key_of("brands"), 0).shuffled(range(_BRANDS))


def _brand(draws: Draws, split: Split, language: Language) -> str:
    number, coin = draws.between(*BRAND_RANGES[split]), draws.chance(0.5)
    return brand_name(number, korean=language == "korean" or (language == "mixed" and coin))


def _named(draws: Draws, language: Language, thing: str, use: str, corner: str) -> list[str]:
    """Use, thing and corner in any order, in the title's language."""
    said = ((USES, use), (THINGS, thing), (CORNERS, corner))
    named = [_word(draws, language, words[name]) for words, name in said if name]
    return draws.shuffled(named)


def _word(draws: Draws, language: Language, words: Words) -> str:
    korean = language == "korean" or (language == "mixed" and draws.chance(0.5))
    return draws.choice(words.korean if korean else words.english)


def _misspelt(draws: Draws, word: str, difficulty: float) -> str:
    if not draws.chance(0.1 * difficulty):
        return word
    place = draws.between(0, len(word) - 1)
    return word[:place] + (word[place] * 2 if len(word) < 4 or draws.chance(0.5) else "") + word[place + 1 :]


def _fillers(draws: Draws, hangul: int, letters: int, words: int) -> list[str]:
    """Exactly so many words with so many Hangul and other characters in all, in random order.

    Where the numbers cannot be met (a Hangul filler has 2 to 5 syllables) the nearest that can is taken.
    """
    korean = _hangul_words(draws, hangul)
    other = []
    for left in range(max(words - len(korean), 1), 0, -1):
        mean = letters // left
        low = max(mean - 2, letters - _LONGEST_LETTERS * (left - 1), _SHORTEST_LETTERS)
        high = min(mean + 2, letters - _SHORTEST_LETTERS * (left - 1), _LONGEST_LETTERS)
        length = draws.between(low, max(low, high))
        fits = _fillers_of(length)
        other.append(draws.choice(fits) if fits and draws.chance(0.8) else _code(draws, length))
        letters -= length
    return draws.shuffled(korean + other)


@cache
def _fillers_of(length: int) -> list[str]:
    return [word for word in _FILLERS_KOREAN + _FILLERS_ENGLISH if len(word) == length and word.isascii()]


def _hangul_words(draws: Draws, syllables: int) -> list[str]:
    words = []
    while syllables >= _SHORTEST_HANGUL:
        lengths = [
            length
            for length in range(_SHORTEST_HANGUL, _LONGEST_HANGUL + 1)
            if syllables - length == 0 or syllables - length >= _SHORTEST_HANGUL
        ]
        length = draws.choice(lengths)
        words.append(draws.choice([word for word in _FILLERS_KOREAN if len(word) == length]))
        syllables -= length
    return words


def _code(draws: Draws, length: int) -> str:
    letters = min(length // 2, 3)
    alphabets = [_CODE_LETTERS] * letters + [_CODE_DIGITS] * (length - letters)
    return "".join(draws.choice(alphabet) for alphabet in alphabets)


def _hangul_in(text: str) -> int:
    return sum("가" <= character <= "힣" for character in text)
