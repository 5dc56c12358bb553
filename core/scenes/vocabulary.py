"""A byte-pair vocabulary in CLIP's form, made from captions."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer as Engine
from tokenizers import pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

from core.files import write_whole
from core.prompts.tokenizer import END, START, WORD_END, Tokenizer, engine, vocabulary_of


def learn_vocabulary(captions: Iterable[str], size: int) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """At most `size` tokens: 256 bytes, 256 bytes that end a word, merges by frequency, start, end.

    That order, with the two special tokens last, is CLIP's; every string of bytes can be written.
    """
    like_clip = engine({END: 0}, [])
    learner = Engine(BPE(continuing_subword_prefix="", end_of_word_suffix=WORD_END))
    learner.normalizer, learner.pre_tokenizer = like_clip.normalizer, like_clip.pre_tokenizer
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = BpeTrainer(
        vocab_size=size,
        initial_alphabet=alphabet,
        end_of_word_suffix=WORD_END,
        min_frequency=2,
        show_progress=False,
    )
    learner.train_from_iterator(captions, trainer)
    learned = json.loads(learner.to_str())["model"]["merges"]
    room = size - 2 * len(alphabet) - 2
    merges = [(str(a), str(b)) for a, b in learned][:room]
    return vocabulary_of(merges), merges


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write `vocab.json`, `merges.txt` and `tokenizer_config.json`, as CLIP's tokenizers read them."""
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "vocab.json", json.dumps(tokenizer.vocab, ensure_ascii=False).encode())
    lines = ["#version: 0.2", *(f"{a} {b}" for a, b in tokenizer.merges)]
    write_whole(folder / "merges.txt", ("\n".join(lines) + "\n").encode())
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": tokenizer.length,
        "bos_token": START,
        "eos_token": END,
        "pad_token": END,
        "unk_token": END,
    }
    write_whole(folder / "tokenizer_config.json", (json.dumps(config, indent=2) + "\n").encode())
