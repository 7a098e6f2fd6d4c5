"""Titles → token ids, with the tokenizer that the bundle carries as `tokenizer.json`.

A thin cover over Hugging Face `tokenizers`: dynamic padding per batch, truncation, and training a WordPiece or a BPE of
one's own from catalogue titles (digits are kept: they tell a 27-inch monitor from a 27-piece puzzle).

After listing.py; before preparation.py and model.py. Thread-safe after construction. No torch.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer as _HfTokenizer
from tokenizers import models, normalizers, pre_tokenizers, processors, trainers

from mmcat.errors import ModelError

Ids = npt.NDArray[np.int64]

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_PAD_NAMES = ("[PAD]", "<pad>")
BPE_SMALLEST = 256 + len(_SPECIAL)
"""Pieces of a byte-level BPE that has learned nothing: the bytes and the special tokens."""
_JOINER = "\u2060"  # word joiner: stands where no merge may cross, only while a BPE is learned


class Tokenizer:
    """Turns titles into padded id matrices.

    Args:
        inner: a `tokenizers.Tokenizer`; its own padding and truncation are replaced.
        max_tokens: longer titles are cut, the closing special token kept.
    """

    def __init__(self, inner: _HfTokenizer, max_tokens: int = 48) -> None:
        pad_ids = [id_ for name in _PAD_NAMES if (id_ := inner.token_to_id(name)) is not None]
        if not pad_ids:
            raise ModelError(f"the tokenizer has none of the padding tokens {', '.join(_PAD_NAMES)}")
        inner.no_padding()
        inner.enable_truncation(max_tokens)
        self._inner = inner
        self._pad_id: int = pad_ids[0]
        self.max_tokens = max_tokens

    @classmethod
    def load(cls, path: str | Path, max_tokens: int = 48) -> "Tokenizer":
        """Reads a `tokenizer.json`.

        Raises:
            ModelError: missing, not a tokenizer, or without a padding token.
        """
        try:
            inner = _HfTokenizer.from_file(str(path))
        except Exception as error:  # the Rust library raises plain Exception
            raise ModelError(f"cannot read the tokenizer {path}: {error}") from error
        return cls(inner, max_tokens)

    @classmethod
    def train_wordpiece(cls, titles: Iterable[str], size: int, max_tokens: int = 48) -> "Tokenizer":
        """Learns a WordPiece vocabulary of at most `size` pieces (Schuster & Nakajima 2012) from titles.

        NFKC and lower case; accents stay, because stripping them takes Hangul syllables apart. The same titles give
        the same vocabulary: the library's trainer numbers the alphabet in hash order, which decides ties between
        merges, so the alphabet is handed to it as numbered pieces and taken back out of its special tokens.
        """
        titles = list(titles)
        learner = _HfTokenizer(models.WordPiece(unk_token="[UNK]"))  # noqa: S106  the name of a vocabulary entry
        _set_splitting(learner)
        alphabet, pieces = _alphabet(learner, titles, limit=(size - len(_SPECIAL)) // 2)
        trainer = trainers.WordPieceTrainer(
            vocab_size=size,
            special_tokens=[*_SPECIAL, *pieces],
            initial_alphabet=alphabet,
            limit_alphabet=len(alphabet),
            show_progress=False,
        )
        learner.train_from_iterator(titles, trainer)
        vocabulary = learner.get_vocab()
        inner = _HfTokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))  # noqa: S106  as above
        _set_splitting(inner)
        inner.add_special_tokens(list(_SPECIAL))
        inner.post_processor = processors.BertProcessing(("[SEP]", vocabulary["[SEP]"]), ("[CLS]", vocabulary["[CLS]"]))
        return cls(inner, max_tokens)

    @classmethod
    def train_bpe(
        cls,
        titles: Iterable[str],
        size: int,
        max_tokens: int = 48,
        morphemes: Callable[[str], list[str]] | None = None,
    ) -> "Tokenizer":
        """Learns a byte-level BPE (Sennrich et al. 2016; Radford et al. 2019) of at most `size` pieces from titles.

        NFKC and lower case; digits stand apart from letters and merge among themselves, so sizes and model numbers
        stay whole; no text is unknown, because every byte is a piece. The same titles give the same vocabulary.

        Args:
            size: at least BPE_SMALLEST.
            morphemes: cuts a word; pieces then never span two of its parts. Only learning needs it.
        """
        inner = _HfTokenizer(models.BPE())
        inner.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase(), normalizers.Prepend(" ")])
        inner.pre_tokenizer = pre_tokenizers.Sequence([
            pre_tokenizers.Split(_JOINER, "removed"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),  # its pattern parts letters, digits and signs
        ])  # fmt: skip
        trainer = trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=list(_SPECIAL),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        cut = titles if morphemes is None else (_cut(title, morphemes) for title in titles)
        inner.train_from_iterator(cut, trainer)
        vocabulary = inner.get_vocab()
        inner.post_processor = processors.BertProcessing(("[SEP]", vocabulary["[SEP]"]), ("[CLS]", vocabulary["[CLS]"]))
        return cls(inner, max_tokens)

    def encode(self, texts: Sequence[str]) -> tuple[Ids, Ids]:
        """Encodes a batch, padded to its longest title.

        Returns:
            ids int64 [B, T] and mask int64 [B, T] (1 token, 0 padding); T ≥ 1 even where all titles are empty.
        """
        encodings = self._inner.encode_batch(list(texts))
        length = max((len(encoding.ids) for encoding in encodings), default=0) or 1
        ids_BT = np.full((len(encodings), length), self._pad_id, np.int64)
        mask_BT = np.zeros((len(encodings), length), np.int64)
        for row, encoding in enumerate(encodings):
            ids_BT[row, : len(encoding.ids)] = encoding.ids
            mask_BT[row, : len(encoding.ids)] = 1
        return ids_BT, mask_BT

    @property
    def vocabulary_size(self) -> int:
        """Number of ids, special tokens included: what the encoder's embedding table must hold."""
        return int(self._inner.get_vocab_size())

    @property
    def pad_id(self) -> int:
        return self._pad_id

    @property
    def definition(self) -> str:
        """All that decides the ids of a title, as JSON: what `write` writes."""
        return str(self._inner.to_str())

    def write(self, path: str | Path) -> None:
        """Writes `tokenizer.json`."""
        self._inner.save(str(path))


def _set_splitting(tokenizer: _HfTokenizer) -> None:
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()


def _cut(title: str, morphemes: Callable[[str], list[str]]) -> str:
    """The title with a joiner between the morphemes of each word."""
    return " ".join(_JOINER.join(morphemes(word)) for word in title.split())


def _alphabet(tokenizer: _HfTokenizer, titles: Sequence[str], limit: int) -> tuple[list[str], list[str]]:
    """The most frequent characters, and their pieces (x at a word's start, ##x inside), at most `limit` pieces."""
    counts: Counter[str] = Counter()
    for title in titles:
        normal = tokenizer.normalizer.normalize_str(title)
        for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normal):
            counts.update(character if at == 0 else f"##{character}" for at, character in enumerate(word))
    kept = sorted(sorted(counts, key=lambda piece: (-counts[piece], piece))[:limit])
    return sorted({piece[-1] for piece in kept}), kept
