"""What is not computed again: the same to the bit, little, let go with the model, safe with two at once."""

from __future__ import annotations

import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from core import lru
from core.errors import UserError
from core.inference.model import Model
from core.inference.pipeline import Pipeline
from core.inference.preview import Previewer
from core.lru import TensorCache
from tests.core.pictures import box_mask, noise
from tests.small import write_model

FIELDS: dict[str, Any] = {"prompt": "a house", "negative": "a star", "steps": 2, "seed": 1}
PICTURE, MASK = noise((64, 64)), box_mask((64, 64), (0, 0, 32, 64))


@pytest.fixture
def pipe(tmp_path: Path) -> Pipeline:
    return Pipeline.load(write_model(tmp_path / "small"), device="cpu")


class Calls:
    """Counts the calls of the parts of a model, which do their work all the same."""

    def __init__(self, pipe: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
        self.counts = {"text": 0, "encode": 0, "decode": 0}
        pipe.text_encoder.register_forward_hook(lambda *_: self.count("text"))
        for name in ("encode", "decode"):
            monkeypatch.setattr(pipe.vae, name, self.counted(name, getattr(pipe.vae, name)))

    def count(self, name: str) -> None:
        self.counts[name] += 1

    def counted(self, name: str, plain: Any) -> Any:
        def call(*arguments: Any) -> Any:
            self.count(name)
            return plain(*arguments)

        return call


def states(pipe: Pipeline, **fields: Any) -> list[Tensor]:
    return [step.x for step in pipe.generate(**FIELDS | fields).steps]


def test_the_same_prompt_is_not_encoded_again(pipe: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls(pipe, monkeypatch)
    first = states(pipe)
    assert calls.counts["text"] == 2
    second = states(pipe)
    assert calls.counts["text"] == 2
    pipe.forget()
    third = states(pipe)
    assert calls.counts["text"] == 4
    assert all(map(torch.equal, first, second))
    assert all(map(torch.equal, first, third))


@pytest.mark.parametrize(
    ("change", "more"),
    [
        ({"prompt": "a star"}, 0),  # the negative one before
        ({"seed": 9, "cfg_scale": 1.0}, 0),
        ({"prompt": "a large house"}, 1),
        ({"prompt": "a (house:1.3)"}, 1),
        ({"clip_skip": 2}, 2),
        ({"prompt": "a house BREAK a star"}, 2),  # the negative one is made as long
    ],
)
def test_another_text_is_encoded(
    pipe: Pipeline, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], more: int
) -> None:
    calls = Calls(pipe, monkeypatch)
    states(pipe)
    found = states(pipe, **change)
    assert calls.counts["text"] == 2 + more
    pipe.forget()
    assert all(map(torch.equal, found, states(pipe, **change)))


def test_an_unchanged_picture_is_not_encoded_again(pipe: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls(pipe, monkeypatch)
    given = {"image": PICTURE, "strength": 0.9}
    first = states(pipe, **given)
    assert calls.counts["encode"] == 1
    second = states(pipe, **given, prompt="a star")
    masked = states(pipe, **given, mask=MASK)
    assert calls.counts["encode"] == 1
    states(pipe, **given | {"image": noise((64, 64), 1)})
    assert calls.counts["encode"] == 2
    again, pipe_again = states(pipe, **given), states(pipe, **given, mask=MASK)
    assert calls.counts["encode"] == 2
    pipe.forget()
    fresh = states(pipe, **given), states(pipe, **given, mask=MASK)
    assert all(map(torch.equal, [*first, *masked], [*again, *pipe_again]))
    assert all(map(torch.equal, [*first, *masked], [*fresh[0], *fresh[1]]))
    assert not torch.equal(first[-1], second[-1])


def test_previews_do_not_decode(pipe: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Model, "previewer", Previewer([[0.1] * 3] * 5, 8))
    calls = Calls(pipe, monkeypatch)
    run = pipe.stream(**FIELDS)
    for step in run:
        step.preview()
    assert calls.counts["decode"] == 0
    run.result()
    assert calls.counts["decode"] == 1


def test_what_is_done_to_an_answer_reaches_nobody(pipe: Pipeline) -> None:
    [first] = pipe.encode_prompts("a house")
    kept = first.clone()
    first.zero_()
    [second] = pipe.encode_prompts("a house")
    assert torch.equal(second, kept)
    second.zero_()
    assert torch.equal(pipe.encode_prompts("a house")[0], kept)


def test_an_overflow_is_said_each_time(pipe: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipe.vae, "encode", lambda x: torch.full((1, 4, 8, 8), torch.inf))
    for _ in range(2):
        with pytest.raises(UserError, match="NaN or infinite"):
            pipe.encode(torch.zeros(1, 3, 64, 64))


def test_little_is_kept_and_the_oldest_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    keep, made = TensorCache(2), []

    def ask(key: str, size: int = 1) -> None:
        def make() -> Tensor:
            made.append(key)
            return torch.zeros(size)

        keep(key, make)

    for key in "abacab":  # c takes the place of b, then b that of c
        ask(key)
    assert made == list("abcb")
    monkeypatch.setattr(lru, "LARGEST", 40)
    for _ in range(2):
        ask("large", 11)
    assert made[4:] == ["large", "large"]
    for key in "ab":
        ask(key)
    assert len(made) == 6


def test_it_goes_with_the_model(pipe: Pipeline, tmp_path: Path) -> None:
    own = Pipeline.load(tmp_path / "small", device="cpu")
    states(own, image=PICTURE, strength=0.9)
    texts, latents = weakref.ref(own.model.kept_texts), weakref.ref(own.model.kept_latents)
    del own
    gc.collect()
    assert texts() is None
    assert latents() is None


def test_two_threads_at_once() -> None:
    keep, wall = TensorCache(3), threading.Barrier(4)

    def ask(number: int) -> bool:
        wall.wait(10)
        keys = [(number + i) % 5 for i in range(200)]
        return all(bool((keep(key, partial(torch.full, (4,), float(key))) == key).all()) for key in keys)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(ask, range(4)))
