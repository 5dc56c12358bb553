"""The tokenizer against its reference, on any text; and prompts in chunks with weights."""

from __future__ import annotations

import json
import random
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from core.errors import UserError
from core.prompts.tokenizer import Chunk, Tokenizer
from core.scenes.vocabulary import learn_vocabulary, save_tokenizer
from core.weights import find
from tests.small import SENTENCES

transformers = pytest.importorskip("transformers")

LENGTH = 20
WORDS = frozenset(["a", "red", "circle", "on", "blue", "background"])
START, END = "<|startoftext|>", "<|endoftext|>"


def _mark(content: str) -> dict[str, Any]:
    """A special token as the files of Stable Diffusion write it."""
    flags = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    return {"__type": "AddedToken", "content": content, **flags}


# How `tokenizer_config.json` speaks of the special tokens: ours, SD 1.x's and SD 2.x's; and no such file.
CONFIGS: dict[str, dict[str, Any]] = {
    "ours": {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END},
    "sd1": {"bos_token": _mark(START), "eos_token": _mark(END), "unk_token": _mark(END), "pad_token": END},
    "sd2": {"bos_token": _mark(START), "eos_token": _mark(END), "unk_token": _mark(END), "pad_token": "!"},
    "none": {},
}


@cache
def folder_of(kind: str) -> TemporaryDirectory[str]:
    vocab, merges = learn_vocabulary(SENTENCES * 3, 700)
    held = TemporaryDirectory()
    save_tokenizer(Tokenizer(vocab, merges, LENGTH, None), Path(held.name))
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": LENGTH, **CONFIGS[kind]}
    path = Path(held.name, "tokenizer_config.json")
    path.write_text(json.dumps(config)) if kind != "none" else path.unlink()
    return held


@cache
def tokenizer(kind: str = "ours") -> Tokenizer:
    return Tokenizer.load(Path(folder_of(kind).name), LENGTH, WORDS)


@cache
def reference(kind: str) -> Any:
    return transformers.CLIPTokenizer.from_pretrained(folder_of(kind).name)


ODD = (
    *("red", "It's", "12", "!", "  ", "\n", "\u3000", "\x00", "\u200b", END),
    *("🎈", "👩\u200d👩\u200d👧", "ÅΣς", "İ", "e\u0301", "日本"),
)
TEXTS = (
    st.text(max_size=80)
    | st.text(st.characters(categories=["Cc", "Cf", "Zs", "Zl", "So", "Mn"]), max_size=30)
    | st.lists(st.sampled_from(ODD)).map(" ".join)
    | st.lists(st.sampled_from((*ODD, START, START.upper(), END.title(), "'S", "<|"))).map("".join)
)


@pytest.mark.parametrize("kind", CONFIGS)
@settings(deadline=None, max_examples=100)
@given(TEXTS)
@example("a red circle on a blue background")
@example("Café  N°5 — “naïve” 日本語 ٣")
@example("<|startoftext|> a <|ENDOFTEXT|>!!'s")
@example("")
@example("a (red:1.3) [circle] \\(x\\) BREAK")
@example("It's a red circle, 12 of them 🎈 " * 600)
def test_the_ids_are_the_references(kind: str, text: str) -> None:
    assert tokenizer(kind).ids(text) == reference(kind)(text, add_special_tokens=False).input_ids


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_chunk_is_what_the_reference_pads_to(kind: str) -> None:
    expected = reference(kind)("a red circle!", padding="max_length", max_length=LENGTH).input_ids
    assert tokenizer(kind).chunks("a red circle!") == [Chunk(expected, [1.0] * LENGTH)]
    empty = reference(kind)("", padding="max_length", max_length=LENGTH).input_ids
    assert tokenizer(kind).chunks("") == [Chunk(empty, [1.0] * LENGTH)]


def test_a_newer_files_list_of_tokens_wins() -> None:
    with TemporaryDirectory() as folder:
        save_tokenizer(tokenizer(), Path(folder))
        path = Path(folder, "tokenizer_config.json")
        numbers = {str(tokenizer().vocab[mark]): _mark(mark) for mark in (START, END)}
        for marks in numbers.values():
            marks.pop("__type")
            marks["special"] = True
        path.write_text(json.dumps({**json.loads(path.read_text()), "added_tokens_decoder": numbers}))
        theirs = transformers.CLIPTokenizer.from_pretrained(folder)
        ours = Tokenizer.load(Path(folder), LENGTH)
        for text in (START.upper(), f"a {END.title()} b", "red"):
            assert ours.ids(text) == theirs(text, add_special_tokens=False).input_ids


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tokenizer, Any]:
    """The tokenizer that comes with the program, and the reference with the same vocabulary."""
    ours, folder = Tokenizer.load(find.CLIP, 77), tmp_path_factory.mktemp("clip")
    save_tokenizer(ours, folder)
    return ours, transformers.CLIPTokenizer.from_pretrained(folder)


def test_clips_own_ids(clip: tuple[Tokenizer, Any]) -> None:
    ours, _ = clip
    assert len(ours.vocab) == 49408
    assert (ours.start, ours.end, ours.vocab["!"]) == (49406, 49407, 0)
    assert ours.ids("a photo of a cat") == [320, 1125, 539, 320, 2368]


def test_random_texts_with_clips_vocabulary(clip: tuple[Tokenizer, Any]) -> None:
    ours, theirs = clip
    rng = random.Random(7)
    words = [token.removesuffix("</w>") for token in rng.sample(list(ours.vocab), 3000)]
    ranges = [(0, 0x7F), (0x80, 0x24F), (0x250, 0xFFF), (0x1000, 0xD7FF), (0xE000, 0x10FFFF)]
    texts = []
    for _ in range(2000):
        letters = ["".join(chr(rng.randint(*rng.choice(ranges))) for _ in range(rng.randint(1, 6)))]
        pieces = [*letters, *rng.choices(words, k=rng.randint(0, 8)), *rng.choices(ODD, k=rng.randint(0, 3))]
        rng.shuffle(pieces)
        texts.append(rng.choice(("", " ")).join(pieces))
    expected = theirs(texts, add_special_tokens=False).input_ids
    assert [ours.ids(text) for text in texts] == expected


ADDED = {"content": "", "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}


@pytest.mark.parametrize("form", ["tokenizer_config.json", "added_tokens.json", "tokenizer.json"])
def test_added_tokens_are_one_id_each(form: str, tmp_path: Path) -> None:
    save_tokenizer(tokenizer(), tmp_path)
    size = len(tokenizer().vocab)
    added = {"<Cat-Toy>": size, "sks_style": size + 1, "<cat>": size + 2}
    if form == "tokenizer_config.json":
        path = tmp_path / form
        decoder = {str(i): {**ADDED, "content": text, "special": False} for text, i in added.items()}
        path.write_text(json.dumps({**json.loads(path.read_text()), "added_tokens_decoder": decoder}))
    else:
        (tmp_path / "added_tokens.json").write_text(json.dumps(added))
    theirs = transformers.CLIPTokenizer.from_pretrained(tmp_path)
    if form == "tokenizer.json":
        (tmp_path / "added_tokens.json").unlink()
        theirs.save_pretrained(tmp_path)
    ours = Tokenizer.load(tmp_path, LENGTH)
    assert size in ours.ids("a photo of <cat-toy>!")
    for text in ("<cat-toy>", "a <CAT-TOY>, red", "x<cat>sks_style red<cat-toy>", "sks style", "<cat", START):
        assert ours.ids(text) == theirs(text, add_special_tokens=False).input_ids, text


def test_a_trained_word_of_several_vectors_is_all_of_them(tmp_path: Path) -> None:
    save_tokenizer(tokenizer(), tmp_path)
    size = len(tokenizer().vocab)
    added = {"<cat>": size, "<cat>_1": size + 1, "<cat>_2": size + 2, "<dog>": size + 3}
    (tmp_path / "added_tokens.json").write_text(json.dumps(added))
    ours = Tokenizer.load(tmp_path, LENGTH)
    assert ours.ids("<cat><dog>") == [size, size + 1, size + 2, size + 3]
    assert ours.count("<cat>").used == 3


def test_files_without_suffixes_and_a_padding_from_outside(tmp_path: Path) -> None:
    save_tokenizer(tokenizer(), tmp_path)
    (tmp_path / "vocab.json").rename(tmp_path / "vocab")
    (tmp_path / "merges.txt").rename(tmp_path / "merges")
    (tmp_path / "tokenizer_config.json").unlink()
    ours = Tokenizer.load(tmp_path, LENGTH, pad="!")
    assert ours.ids("red 12") == tokenizer().ids("red 12")
    assert ours.chunks("red") == tokenizer("sd2").chunks("red")
    (tmp_path / "merges").unlink()
    with pytest.raises(UserError, match=r"merges\.txt is missing"):
        Tokenizer.load(tmp_path, LENGTH)


@given(st.lists(st.sampled_from(("red", "12", "🎈", " ", "\\(", "\\]", "\\\\", "circles"))).map(" ".join))
@settings(deadline=None)
def test_a_long_prompt_without_commas_is_cut_where_a_chunk_is_full(prompt: str) -> None:
    ours, room = tokenizer(), LENGTH - 2
    ids = ours.ids("".join(f" {word[-1] if word[0] == chr(92) else word}" for word in prompt.split()))
    chunks = ours.chunks(prompt)
    assert len(chunks) == ours.count(prompt).chunks == max(1, -(-len(ids) // room))
    assert ours.count(prompt).used == len(ids)
    for i, chunk in enumerate(chunks):
        part = ids[i * room : (i + 1) * room]
        assert chunk == Chunk([ours.start, *part, *[ours.end] * (LENGTH - 1 - len(part))], [1.0] * LENGTH)


def _texts(prompt: str) -> list[str]:
    """What each chunk holds, without its marks."""
    ours = tokenizer()
    names = {number: token for token, number in ours.vocab.items()}
    kept = [[names[i] for i in chunk.ids if i not in (ours.start, ours.end)] for chunk in ours.chunks(prompt)]
    return ["".join(tokens).replace("</w>", " ").strip() for tokens in kept]


def test_a_border_moves_back_behind_the_last_comma() -> None:
    assert _texts("red " * 10 + ", " + "blue " * 9) == ["red " * 10 + ",", ("blue " * 9).strip()]
    assert _texts("red " * 17 + ", blue") == ["red " * 17 + ",", "blue"]
    # A comma that does not fit starts the next chunk, and moves nothing.
    assert _texts("a , " + "red " * 16 + ", blue") == ["a , " + "red " * 15 + "red", ", blue"]


def test_a_comma_further_back_than_twenty_tokens_moves_no_border() -> None:
    long = Tokenizer(tokenizer().vocab, tokenizer().merges, 32, None)  # room for 30

    def used(prompt: str) -> list[int]:
        return [len(chunk.ids) - chunk.ids.count(long.end) - 1 for chunk in long.chunks(prompt)]

    assert used("red " * 10 + ", " + "blue " * 25) == [11, 25]
    assert used("red " * 9 + ", " + "blue " * 25) == [30, 5]


def test_break_starts_a_chunk_and_is_no_token() -> None:
    assert _texts("a red BREAK circle") == ["a red", "circle"]
    assert _texts("a red BREAK") == ["a red"]
    assert _texts("BREAK a") == ["", "a"]
    assert _texts("BREAK") == [""]
    assert tokenizer().count("a red BREAK circle").used == 3
    assert tokenizer().count("a red BREAK circle").chunks == 2


def test_weights_lie_on_the_tokens_of_their_words() -> None:
    ours = tokenizer()
    [chunk] = ours.chunks("a (red circle:1.5) on")
    assert chunk.ids[: 1 + 4 + 1] == [ours.start, *ours.ids("a red circle on"), ours.end]
    assert chunk.weights == [1.0, 1.0, 1.5, 1.5, 1.0, *[1.0] * (LENGTH - 5)]
    first, second = ours.chunks("(" + "red " * 20 + ":0.5)")
    assert first.weights == [1.0, *[0.5] * 18, 1.0]
    assert second.weights == [1.0, 0.5, 0.5, *[1.0] * (LENGTH - 3)]


def test_bad_weights_are_one_sentence() -> None:
    for read in (tokenizer().chunks, tokenizer().count):
        with pytest.raises(UserError, match="weight 1000"):
            read("(red:1000)")


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


def test_marks_are_no_words() -> None:
    assert tokenizer().count("(a:1.3) [red] BREAK ((circle:0.5) on\\)").unknown == ()
    assert tokenizer().count("(green:1.3)(blue)").unknown == ("green",)


def test_what_is_nearest_is_offered_for_words_that_are_not_known(tmp_path: Path) -> None:
    save_tokenizer(tokenizer(), tmp_path)
    known = frozenset({"fox", "penguin", "and"})
    ours = Tokenizer.load(tmp_path, LENGTH, known, nearest={"coyote": ("fox", "dog")})
    count = ours.count("coyotes and pinguin and a qwertz")
    assert count.unknown == ("coyotes", "pinguin", "a", "qwertz")
    assert count.nearest == {"coyotes": ("fox", "dog"), "pinguin": ("penguin",)}
