"""Prompts to token ids: CLIP's byte-pair encoding (Radford et al. 2021, arXiv:2103.00020), in chunks.

The rules (lower case, one token per digit, `</w>` at a word's end) are CLIP's, so a folder's `vocab.json` and
`merges.txt` give the ids that its text encoder was trained with. The reference for any text is the class
`CLIPTokenizer` of transformers 5. The slow class of earlier versions, which A1111 uses, also drops control
characters and separates Chinese characters.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import count, takewhile
from pathlib import Path
from typing import Any, NamedTuple, cast

from tokenizers import AddedToken, Regex, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Engine
from tokenizers.models import BPE

from core.errors import UserError
from core.prompts.emphasis import read_prompt

START, END = "<|startoftext|>", "<|endoftext|>"
WORD_END = "</w>"
OPENCLIP_PAD = "!"  # of SD 2.x, whose text encoder was trained with token 0 after the end token
SINGLE_TOKENS = 2 * 256 + 2  # tokens without a merge: each byte, also at a word's end; start and end
PIECES = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
CLIP_MERGES = 48894  # their order gives the ids of CLIP's 49,408 tokens
COMMA = "," + WORD_END
_TOKEN_FILES = ("tokenizer_config.json", "tokenizer.json", "added_tokens.json")
COMMA_REACH = 20  # a chunk may end this many tokens early, after a comma, as in A1111


class Chunk(NamedTuple):
    """One input of the text encoder: ids and the weight of each, both of the tokenizer's length."""

    ids: list[int]
    weights: list[float]


@dataclass(frozen=True)
class TokenCount:
    """The token count of a prompt.

    used: tokens of the prompt; limit: tokens of one chunk; chunks: how many are run; unknown: words that the
    model was not trained on, in the prompt's order (empty for a model that does not list its words);
    nearest: for some of these, the words that it was trained on and that are nearest in meaning or spelling.
    """

    used: int
    limit: int
    chunks: int
    unknown: tuple[str, ...] = ()
    nearest: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


class Tokenizer:
    """Prompts to chunks, each `length` long: start, up to `length - 2` tokens, end, and padding.

    words: the words that the model was trained on, if it lists them; others are then reported as unknown.
    nearest: for words that are not among them, those that are nearest in meaning. added: tokens that are
    matched whole, before a text is split; start and end if empty. pad: the token that fills a chunk: the end
    token for SD 1.x and "!" for SD 2.x.
    """

    def __init__(
        self,
        vocab: dict[str, int],
        merges: list[tuple[str, str]],
        length: int,
        words: frozenset[str] | None = None,
        *,
        nearest: Mapping[str, tuple[str, ...]] | None = None,
        added: Iterable[AddedToken] = (),
        pad: str = END,
    ) -> None:
        added = list(added)
        self.vocab, self.merges = vocab, merges
        self.engine = engine(vocab, merges, added)
        self._vectors = {vocab[token.content]: _vectors(token.content, vocab) for token in added}
        self.start, self.end, self.pad, self.comma = vocab[START], vocab[END], vocab[pad], vocab.get(COMMA)
        self.length = length
        self.words, self.nearest = words, nearest or {}

    @classmethod
    def load(
        cls,
        folder: Path,
        length: int,
        words: frozenset[str] | None = None,
        pad: str = END,
        nearest: Mapping[str, tuple[str, ...]] | None = None,
    ) -> Tokenizer:
        """From a folder with `vocab.json` and `merges.txt`, also without their suffixes, or `tokenizer.json`;
        or with CLIP's merges alone.

        Its added tokens are used, and the special tokens and padding of `tokenizer_config.json`; without that
        the padding is `pad`. Raises UserError when a file is missing or damaged.
        """
        try:
            vocab, merges = _vocabulary(folder)
            if len(vocab) != len(merges) + SINGLE_TOKENS:
                raise ValueError(f"{len(vocab)} tokens do not match {len(merges)} merges")
            vocab, added, pad = _added_tokens(folder, vocab, pad)
            return cls(vocab, merges, length, words, nearest=nearest, added=added, pad=pad)
        except FileNotFoundError as error:
            raise UserError(
                f"The tokenizer's file {error.filename} is missing: copy the model again."
            ) from None
        except Exception as error:
            files = f"{folder / 'vocab.json'}, merges.txt or another of the tokenizer's files"
            raise UserError(f"{files} is damaged ({error}): copy the model again.") from None

    def ids(self, text: str) -> list[int]:
        """The text's tokens without start and end; weights and BREAK are not interpreted."""
        found: list[int] = self.engine.encode(text, add_special_tokens=False).ids
        return [one for token in found for one in self._vectors.get(token, (token,))]

    def chunks(self, prompt: str) -> list[Chunk]:
        """The prompt's tokens with their weights, at least one chunk. Raises UserError for bad weights."""
        return [self._chunk(piece) for piece in self._pieces(prompt)]

    def count(self, prompt: str) -> TokenCount:
        """The token count of the prompt, with the words that the model does not know. Raises UserError."""
        pieces = self._pieces(prompt)
        unknown = self._unknown(prompt)
        nearest = {word: offered for word in unknown if (offered := self._near(word))}
        return TokenCount(sum(map(len, pieces)), self.length - 2, len(pieces), unknown, nearest)

    def _pieces(self, prompt: str) -> list[list[tuple[int, float]]]:
        """(id, weight) of the tokens of each chunk. An empty part after the last BREAK adds no chunk."""
        parts = [
            [(token, span.weight) for span in spans for token in self.ids(span.text)]
            for spans in read_prompt(prompt)
        ]
        if len(parts) > 1 and not parts[-1]:
            parts.pop()
        return [piece for part in parts for piece in self._cut(part)]

    def _cut(self, part: list[tuple[int, float]]) -> list[list[tuple[int, float]]]:
        """The part in pieces that fit a chunk, ending after a comma if one is near."""
        room, pieces = self.length - 2, []
        while len(part) > room:
            end = room
            if part[room][0] != self.comma:
                commas = [i for i in range(max(room - COMMA_REACH, 0), room) if part[i][0] == self.comma]
                end = commas[-1] + 1 if commas else room
            pieces.append(part[:end])
            part = part[end:]
        return [*pieces, part]

    def _chunk(self, piece: list[tuple[int, float]]) -> Chunk:
        padding = self.length - 2 - len(piece)
        return Chunk(
            [self.start, *(token for token, _ in piece), self.end, *[self.pad] * padding],
            [1.0, *(weight for _, weight in piece), 1.0, *[1.0] * padding],
        )

    def _unknown(self, prompt: str) -> tuple[str, ...]:
        if self.words is None:
            return ()
        text = " ".join(span.text for part in read_prompt(prompt) for span in part)
        found = re.findall(r"[^\W_]+", text.lower())
        return tuple(dict.fromkeys(word for word in found if word not in self.words))

    def _near(self, word: str) -> tuple[str, ...]:
        """What is known instead of a word: by meaning, of the singular too, or else by spelling."""
        for form in (word, word.removesuffix("s"), word.removesuffix("es")):
            if form in self.nearest:
                return self.nearest[form]
        return tuple(get_close_matches(word, self.words or (), 2, 0.8)) if len(word) > 3 else ()


def vocabulary_of(merges: Iterable[tuple[str, str]]) -> dict[str, int]:
    """The token ids that follow from merges: every byte, also at a word's end, the merges, start and end."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    ending = (letter + WORD_END for letter in letters)
    tokens = dict.fromkeys([*letters, *ending, *map("".join, merges), START, END])
    return {token: index for index, token in enumerate(tokens)}


def engine(vocab: dict[str, int], merges: list[tuple[str, str]], added: Iterable[AddedToken] = ()) -> Engine:
    """CLIP's normalisation, splitting and merging, with this vocabulary."""
    tokenizer = Engine(
        BPE(vocab, merges, continuing_subword_prefix="", end_of_word_suffix=WORD_END, unk_token=END)
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    # Typed in a prompt, they become these tokens.
    tokenizer.add_tokens(list(added) or [AddedToken(mark, special=True) for mark in (START, END)])
    return tokenizer


def _vocabulary(folder: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Ids and merges: from CLIP's two files, its merges alone, or the single file of newer transformers."""
    whole, ids = folder / "tokenizer.json", _either(folder, "vocab.json", "vocab")
    if whole.is_file() and not ids.is_file():
        model = json.loads(whole.read_text(encoding="utf-8"))["model"]
        pairs = [line.split(" ") if isinstance(line, str) else line for line in model["merges"]]
    else:
        lines = _either(folder, "merges.txt", "merges").read_text(encoding="utf-8").splitlines()
        pairs = [line.split(" ") for line in lines if line and not line.startswith("#version")]
        clips = len(pairs) == CLIP_MERGES and not ids.is_file()
        model = {} if clips else {"vocab": json.loads(ids.read_text(encoding="utf-8"))}
    merges = [cast("tuple[str, str]", tuple(pair)) for pair in pairs]
    return dict(model["vocab"]) if model else vocabulary_of(merges), merges


def _either(folder: Path, name: str, other: str) -> Path:
    """The file that exists; the first one if neither does."""
    return folder / (other if (folder / other).is_file() and not (folder / name).is_file() else name)


def _added_tokens(
    folder: Path, vocab: dict[str, int], pad: str
) -> tuple[dict[str, int], list[AddedToken], str]:
    """The vocabulary with a folder's added tokens, these and the special tokens, and the padding token.

    A token is its text, or an object with its text and matching flags. Newer files list the added ones in
    `tokenizer_config.json` or `tokenizer.json`, older ones in `added_tokens.json`.
    """
    config, whole, old = (
        json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        for path in (
            folder / name for name in ("tokenizer_config.json", "tokenizer.json", "added_tokens.json")
        )
    )
    listed: dict[int, Any] = {int(token["id"]): token for token in whole.get("added_tokens", ())}
    listed |= {int(index): text for text, index in old.items()}
    listed |= {int(index): token for index, token in config.get("added_tokens_decoder", {}).items()}
    vocab = {**vocab, **{_content(token): index for index, token in sorted(listed.items())}}
    named = [config[key] for key in ("bos_token", "eos_token", "unk_token", "pad_token") if config.get(key)]
    found = {_content(token): _added(token, special=True) for token in named if _content(token) in vocab}
    found |= {_content(token): _added(token, special=False) for token in listed.values()}
    wanted = _content(config.get("pad_token") or pad)
    return vocab, list(found.values()), wanted if wanted in vocab else pad


def _content(token: Any) -> str:
    return str(token["content"] if isinstance(token, dict) else token)


def _added(token: Any, *, special: bool) -> AddedToken:
    flags = token if isinstance(token, dict) else {"normalized": not special}
    names = ("single_word", "lstrip", "rstrip", "normalized")
    return AddedToken(
        _content(token),
        special=bool(flags.get("special", special)),
        **{name: bool(flags[name]) for name in names if name in flags},
    )


def _vectors(token: str, vocab: Mapping[str, int]) -> list[int]:
    """The ids of a trained word, which has a token for each of its vectors: `<cat>`, `<cat>_1`, `<cat>_2`."""
    more = takewhile(vocab.__contains__, (f"{token}_{i}" for i in count(1)))
    return [vocab[token], *(vocab[name] for name in more)]
