"""Memory modes: the same picture in each, what is held in each, and what happens where memory is short."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from core import memory
from core.errors import UserError
from core.inference import offload, run
from core.inference.offload import MODES
from core.inference.pipeline import Pipeline
from tests.small import write_model

RUN: dict[str, Any] = {"prompt": "a red circle", "steps": 3, "seed": 5, "sampler": "euler_ancestral"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "small")


def load(folder: Path | str, mode: str | None = None, dtype: str = "float32") -> Pipeline:
    return Pipeline.load(folder, device="cpu", dtype=dtype, memory=mode)


def held(network: nn.Module) -> int:
    """The numbers of a network that are in memory."""
    return sum(weight.numel() for weight in network.parameters() if weight.device.type != "meta")


def parts(pipe: Pipeline) -> list[nn.Module]:
    """The networks as they are: to look at them by the pipeline's names would read them."""
    each = pipe.model.networks
    return [each.text_encoder.module, each.vae.module, each.unet.module]


@pytest.mark.parametrize(
    ("model", "dtype"),
    [("small", "float32"), ("small", "bfloat16"), ("small", "float16"), ("tiny", "bfloat16")],
)
def test_every_mode_makes_the_same_picture(model: str, dtype: str, folder: Path) -> None:
    source = folder if model == "small" else model
    picture = torch.linspace(-1, 1, 3 * 64 * 64).reshape(1, 3, 64, 64)
    pipe = load(source, "full", dtype)
    full, encoded = pipe.generate(**RUN), pipe.encode(picture)
    for mode in MODES[1:]:
        pipe = load(source, mode, dtype)
        for _ in range(2):  # the second time everything is read again
            result = pipe.generate(**RUN)
            assert torch.equal(result.steps[-1].x, full.steps[-1].x)
            assert result.images[0].tobytes() == full.images[0].tobytes()
        assert result.words == ""
        assert torch.equal(pipe.encode(picture), encoded)


def test_what_each_mode_holds(folder: Path) -> None:
    full = load(folder, "full")
    sizes = list(map(held, parts(full)))
    assert all(sizes)
    pipe = load(folder, "offload")
    assert list(map(held, parts(pipe))) == [0, 0, 0]
    begun = pipe.stream(**RUN)
    next(begun)
    assert list(map(held, parts(pipe))) == [0, 0, sizes[2]]
    begun.result()
    assert list(map(held, parts(pipe))) == [0, sizes[1], 0]
    pipe = load(folder, "sequential")
    most: list[int] = []
    for layer in parts(pipe)[2].modules():
        layer.register_forward_hook(lambda *_: most.append(held(parts(pipe)[2])))
    result = pipe.generate(**RUN)
    assert result.steps
    few = sum(weight.numel() for weight in parts(full)[2].parameters() if weight.ndim < 2)
    largest = max(weight.numel() for weight in parts(full)[2].parameters())
    assert max(most) <= few + largest
    assert held(parts(pipe)[2]) == few


def test_a_network_can_be_looked_at_in_every_mode(folder: Path) -> None:
    wanted = load(folder, "full").vae.decode(torch.ones(1, 4, 8, 8))
    for mode in MODES:
        pipe = load(folder, mode)
        assert torch.equal(pipe.vae.decode(torch.ones(1, 4, 8, 8)), wanted)


def test_a_decoding_between_two_steps_changes_nothing(folder: Path) -> None:
    wanted = load(folder, "full").generate(**RUN).images[0]
    begun = load(folder, "offload").stream(**RUN)
    for step in begun:
        step.decode()
    assert begun.result().images[0].tobytes() == wanted.tobytes()


def test_runs_in_several_threads_wait_for_each_other(folder: Path) -> None:
    pipe, made = load(folder, "offload"), dict[int, bytes]()
    wanted = {seed: load(folder, "full").generate(**RUN | {"seed": seed}).images[0] for seed in range(3)}

    def work(seed: int) -> None:
        made[seed] = pipe.generate(**RUN | {"seed": seed}).images[0].tobytes()

    threads = [threading.Thread(target=work, args=(seed,)) for seed in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert made == {seed: image.tobytes() for seed, image in wanted.items()}


@pytest.mark.parametrize(
    ("free", "mode", "why"),
    [
        (None, "full", "as enough memory is free"),
        (300, "full", "as enough memory is free"),
        (299, "offload", "would be needed"),
        (150, "offload", "would be needed"),
        (149, "sequential", "would be needed"),
    ],
)
def test_the_room_decides(free: int | None, mode: str, why: str) -> None:
    chosen, words = offload.choose_mode(None, 200, 100, free)
    assert chosen == mode
    assert words.startswith(f"{mode}, ")
    assert why in words
    assert offload.choose_mode("full", 200, 100, 1) == ("full", "full, as requested")


def test_the_pipeline_says_its_mode(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "; memory full, as enough memory is free; runs in float32" in load(folder).about
    monkeypatch.setattr(offload, "free_memory", lambda _device: 1000)
    assert load(folder).model.networks.mode == "sequential"
    assert "; memory offload, as requested; " in load(folder, "offload").about
    with pytest.raises(UserError, match="memory 'half' is not known; known are full, offload, sequential"):
        load(folder, "half")


@pytest.mark.parametrize("mode", MODES)
def test_a_damaged_weight_is_found_when_the_model_is_loaded(tmp_path: Path, mode: str) -> None:
    broken = write_model(tmp_path / "broken")
    path = broken / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    weights["conv_in.weight"][0, 0, 0, 0] = torch.nan
    save_file(weights, path)
    with pytest.raises(UserError, match="infinite values"):
        load(broken, mode)


ERRORS: list[Callable[[], Exception]] = [
    lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
    lambda: RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to"),
    MemoryError,
]


class Short:
    """Lets a network's calls fail for want of memory as long as the mode is one of these."""

    def __init__(self, pipe: Pipeline, modes: tuple[str, ...], error: Callable[[], Exception]) -> None:
        self.pipe, self.modes, self.error, self.failed = pipe, modes, error, 0

    def __call__(self, *_: object) -> None:
        if self.pipe.model.networks.mode in self.modes:
            self.failed += 1
            raise self.error()


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("part", ["text_encoder", "unet", "vae"])
def test_where_memory_is_short_the_next_smaller_mode_goes_on(
    folder: Path, part: str, error: Callable[[], Exception], caplog: pytest.LogCaptureFixture
) -> None:
    wanted = load(folder, "full").generate(**RUN).images[0]
    pipe = load(folder, "full")
    short = Short(pipe, ("full",), error)
    network = getattr(pipe, part)
    (network.decoder if part == "vae" else network).register_forward_pre_hook(short)
    with caplog.at_level(logging.WARNING):
        result = pipe.generate(**RUN)
    assert result.images[0].tobytes() == wanted.tobytes()
    assert result.words == "out of memory: continued with memory offload"
    assert caplog.messages == ["out of memory on cpu: continuing with memory offload"]
    assert short.failed == 1
    pipe.forget()
    pipe.generate(**RUN)  # the next run begins as was chosen
    assert short.failed == 2


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize(("mode", "failures"), [("full", 2), ("offload", 2), ("sequential", 1)])
def test_where_that_does_not_help_one_sentence_says_so(
    folder: Path, mode: str, failures: int, error: Callable[[], Exception]
) -> None:
    pipe = load(folder, mode)
    short = Short(pipe, MODES, error)
    handle = pipe.unet.register_forward_pre_hook(short)
    with pytest.raises(UserError, match=r"not enough memory on cpu .* smaller size or batch") as said:
        pipe.generate(**RUN)
    assert short.failed == failures
    assert ("--memory sequential" in str(said.value)) == (mode == "full")
    handle.remove()
    assert pipe.generate(**RUN).images[0].tobytes() == load(folder).generate(**RUN).images[0].tobytes()


def test_a_sampler_that_runs_out_of_memory_is_not_blamed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        raise ERRORS[1]()

    monkeypatch.setattr(run, "run_sampler", lambda *_: map(fail, [0]))
    with pytest.raises(UserError, match="not enough memory"):
        load(folder).generate(**RUN)


def test_the_memory_of_a_call_that_failed_is_free_before_the_next(folder: Path) -> None:
    """Or the second try would have less than the first."""
    pipe = load(folder, "full")
    held: list[weakref.ref[Tensor]] = []

    def call(_network: object) -> str:
        if held:
            return "gone" if held[0]() is None else "still there"
        large = torch.ones(1000)
        held.append(weakref.ref(large))
        raise MemoryError

    assert pipe.model.networks.run(pipe.model.networks.unet, call) == "gone"


def test_other_errors_pass(folder: Path) -> None:
    pipe = load(folder)
    pipe.unet.register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        pipe.predict(torch.zeros(1, 4, 8, 8), torch.zeros(1), torch.zeros(1, 48, 16))
    assert pipe.model.networks.mode == "full"


def test_apples_words_are_known() -> None:
    assert memory.is_out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 18 GB)"))
    assert not memory.is_out_of_memory(RuntimeError("shapes do not fit"))
    assert not memory.is_out_of_memory(ValueError("out of memory"))


@pytest.mark.gpu
@pytest.mark.parametrize("mode", MODES)
def test_on_an_accelerator_every_mode_makes_the_same_picture(folder: Path, mode: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    full = Pipeline.load(folder, device="cuda", memory="full").generate(**RUN)
    pipe = Pipeline.load(folder, device="cuda", memory=mode)
    assert pipe.generate(**RUN).images[0].tobytes() == full.images[0].tobytes()
