"""From words to token ids: CLIP's byte-pair encoding (Radford et al. 2021, arXiv:2103.00020), in chunks.

The rules (lower case, one token per digit, `</w>` at a word's end) are CLIP's, so a folder's `vocab.json` and
`merges.txt` give the ids that its text encoder was trained with.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from tokenizers import Regex, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Engine
from tokenizers.models import BPE

from core.errors import UserError

START, END = "<|startoftext|>", "<|endoftext|>"
WORD_END = "</w>"
SINGLE_TOKENS = 2 * 256 + 2  # what no merge makes: each byte, also at a word's end, and the two marks
PIECES = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


@dataclass(frozen=True)
class TokenCount:
    """How much of the text encoder's room a prompt takes.

    used: tokens of the prompt; limit: tokens of one chunk; chunks: how many are run; unknown: words that
    the model has never met in training, in the prompt's order (empty for a model that does not list its
    words).
    """

    used: int
    limit: int
    chunks: int
    unknown: tuple[str, ...] = ()


class Tokenizer:
    """Prompts to chunks of ids, each `length` long: start, up to `length - 2` tokens, end, and ends as
    padding.

    words: the words that the model was trained on, where it lists them; then others are reported as unknown.
    """

    def __init__(
        self, vocab: dict[str, int], merges: list[tuple[str, str]], length: int, words: frozenset[str] | None
    ) -> None:
        self.vocab, self.merges = vocab, merges
        self.engine = engine(vocab, merges)
        self.start, self.end = vocab[START], vocab[END]
        self.length = length
        self.words = words

    @classmethod
    def load(cls, folder: Path, length: int, words: frozenset[str] | None = None) -> Tokenizer:
        """From a folder with `vocab.json` and `merges.txt`. Raises UserError when one is missing or
        damaged.
        """
        try:
            vocab = dict(json.loads((folder / "vocab.json").read_text(encoding="utf-8")))
            lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
            merges = [
                cast("tuple[str, str]", tuple(line.split(" ")))
                for line in lines
                if line and not line.startswith("#version")
            ]
            if len(vocab) != len(merges) + SINGLE_TOKENS:
                raise ValueError(f"{len(vocab)} tokens do not go with {len(merges)} merges")
            return cls(vocab, merges, length, words)
        except FileNotFoundError as error:
            raise UserError(
                f"The tokenizer's file {error.filename} is missing: copy the model again."
            ) from None
        except Exception as error:
            files = f"{folder / 'vocab.json'} or merges.txt"
            raise UserError(f"{files} is damaged ({error}): copy the model again.") from None

    def chunks(self, prompt: str) -> list[list[int]]:
        """Ids of the prompt, one list of `length` ids a chunk; one chunk of ends for the empty prompt."""
        ids = self.engine.encode(prompt, add_special_tokens=False).ids
        room = self.length - 2
        parts = [ids[i : i + room] for i in range(0, len(ids), room)] or [[]]
        return [[self.start, *part, *[self.end] * (self.length - 1 - len(part))] for part in parts]

    def count(self, prompt: str) -> TokenCount:
        """How many tokens the prompt takes, and the words in it that the model does not know."""
        used = len(self.engine.encode(prompt, add_special_tokens=False).ids)
        room = self.length - 2
        return TokenCount(used, room, max(1, -(-used // room)), self._unknown(prompt))

    def _unknown(self, prompt: str) -> tuple[str, ...]:
        if self.words is None:
            return ()
        found = re.findall(r"[^\W_]+", prompt.lower())
        return tuple(dict.fromkeys(word for word in found if word not in self.words))


def engine(vocab: dict[str, int], merges: list[tuple[str, str]]) -> Engine:
    """CLIP's normalising, splitting and merging, with this vocabulary."""
    tokenizer = Engine(
        BPE(vocab, merges, continuing_subword_prefix="", end_of_word_suffix=WORD_END, unk_token=END)
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.add_special_tokens([START, END])  # typed in a prompt they count as the marks they are
    return tokenizer
