"""The tokenizer against its reference, on any text."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from core.prompt import Tokenizer
from core.training.vocabulary import learn_vocabulary, save_tokenizer
from tests.small import SENTENCES

transformers = pytest.importorskip("transformers")


@cache
def tokenizer() -> Tokenizer:
    vocab, merges = learn_vocabulary(SENTENCES * 3, 700)
    return Tokenizer(vocab, merges, 20, frozenset(["a", "red", "circle", "on", "blue", "background"]))


@cache
def reference() -> Any:
    with TemporaryDirectory() as folder:
        save_tokenizer(tokenizer(), Path(folder))
        return transformers.CLIPTokenizer.from_pretrained(folder)


@settings(deadline=None, max_examples=300)
@given(
    st.text(max_size=80)
    | st.lists(st.sampled_from(("red", "It's", "12", "🎈", "  ", "\n", "ÅΣς", "<|endoftext|>"))).map(" ".join)
)
@example("a red circle on a blue background")
@example("Café  N°5 — “naïve” 日本語 ٣")
@example("<|startoftext|> a <|endoftext|>")
@example("")
def test_the_ids_are_the_references(text: str) -> None:
    theirs = reference()(text, add_special_tokens=False).input_ids
    ours = tokenizer()
    chunks = ours.chunks(text)
    room = ours.length - 2
    assert [len(chunk) for chunk in chunks] == [20] * len(chunks)
    assert len(chunks) == ours.count(text).chunks == max(1, -(-len(theirs) // room))
    for i, chunk in enumerate(chunks):
        part = theirs[i * room : (i + 1) * room]
        assert chunk == [ours.start, *part, *[ours.end] * (ours.length - 1 - len(part))]


def test_the_vocabulary_has_clips_order_and_whole_words() -> None:
    ours = tokenizer()
    tokens = list(ours.vocab)
    assert tokens[-2:] == ["<|startoftext|>", "<|endoftext|>"]
    assert tokens[256].endswith("</w>")
    assert not tokens[255].endswith("</w>")
    assert ours.count("a red circle").used == 3
    assert list(ours.vocab.values()) == list(range(len(tokens)))


def test_words_the_model_has_not_learned_are_named_once_in_their_order() -> None:
    count = tokenizer().count("A red Dragon, a blue unicorn; on a dragon")
    assert count.unknown == ("dragon", "unicorn")
    assert Tokenizer(tokenizer().vocab, tokenizer().merges, 20, None).count("dragon").unknown == ()
