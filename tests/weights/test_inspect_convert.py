"""What files are recognised as, and what is written of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from core.errors import UserError
from core.weights.convert import convert
from core.weights.inspect import inspect
from core.weights.layouts.compvis import averaged
from core.weights.model_files import open_model
from core.weights.readers.checkpoint import open_checkpoint
from tests.checkpoints import LIGHTNING, Base, state_dict, write_ckpt, write_folder, write_safetensors

UNET, VAE = "model.diffusion_model.", "first_stage_model."
FIRST = f"{UNET}input_blocks.0.0.weight"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small SD 1.x model as `folder`, `model.safetensors` and, with an averaged copy, `both.ckpt`."""
    home = tmp_path_factory.mktemp("home")
    tensors = state_dict(write_safetensors(home / "model.safetensors", write_folder(home / "folder")))
    copies = {
        averaged(name.removeprefix(UNET)): tensor for name, tensor in tensors.items() if name.startswith(UNET)
    }
    write_ckpt(home / "both.ckpt", tensors | copies)
    return home


def test_a_checkpoint_is_described_part_by_part(home: Path) -> None:
    found = inspect(home / "both.ckpt").to_dict()
    sizes = {"unet": 0, "vae": 0, "text_encoder": 0}
    for name, tensor in state_dict(home / "model.safetensors").items():
        part = "unet" if name.startswith(UNET) else "vae" if name.startswith(VAE) else "text_encoder"
        sizes[part] += tensor.numel()
    assert found["parameters"] == sizes | {"ema": sizes["unet"]}
    assert found["format"] == "PyTorch zip"
    assert (found["architecture"], found["base"], found["ema"], found["loads"]) == ("SD1", "SD1", True, True)
    assert found["prediction"].startswith("epsilon")
    assert found["dtypes"] == {"float16": sum(sizes.values()) + sizes["unet"]}
    assert f"{LIGHTNING}.ModelCheckpoint" in found["globals"]
    assert found["refused"] == ()
    assert "can be loaded" in found["verdict"]


@pytest.mark.parametrize(
    ("base", "channels", "architecture"), [("SD1", 4, "SD1"), ("SD2", 4, "SD2"), ("SD1", 9, "inpainting")]
)
def test_folders_and_files_of_a_model_are_recognised_alike(
    tmp_path: Path, base: Base, channels: int, architecture: str
) -> None:
    folder = write_folder(tmp_path / "folder", base, channels)
    single = write_safetensors(tmp_path / "x.safetensors", folder)
    for path in (folder, single):
        found = inspect(path)
        assert (found.architecture, found.base, found.loads) == (architecture, base, True)


def zeros(*shape: int) -> Tensor:
    return torch.zeros(shape)


@pytest.mark.parametrize(
    ("tensors", "architecture", "words"),
    [
        ({FIRST: zeros(320, 4, 3, 3), "conditioner.embedders.1.x": zeros(1)}, "SDXL", "is an SDXL model"),
        ({FIRST: zeros(320, 4, 3, 3), f"{UNET}label_emb.0.0.weight": zeros(1)}, "SDXL", "is an SDXL model"),
        ({"lora_unet_down.lora_up.weight": zeros(4, 2)}, "LoRA", "is a LoRA"),
        ({"unet.down.attn.to_q.lora_A.weight": zeros(4, 2)}, "LoRA", "is a LoRA"),
        ({"decoder.conv_in.weight": zeros(1), "post_quant_conv.weight": zeros(1)}, "VAE", "--vae"),
        ({"emb_params": zeros(3, 768)}, "embedding", "textual-inversion"),
        ({"<cat>": zeros(768)}, "embedding", "textual-inversion"),
        ({f"{UNET}double_blocks.0.x": zeros(1)}, "unknown", "a Flux model"),
        ({f"{UNET}joint_blocks.0.x": zeros(1)}, "unknown", "a Stable Diffusion 3 model"),
        ({"control_model.x": zeros(1)}, "unknown", "a ControlNet"),
        ({FIRST: zeros(320, 8, 3, 3)}, "unknown", "InstructPix2Pix"),
        ({FIRST: zeros(320, 5, 3, 3)}, "unknown", "depth-to-image"),
        ({FIRST: zeros(320, 4, 3, 3)}, "unknown", "without the text encoder and the VAE"),
        ({"down_blocks.0.x": zeros(1)}, "unknown", "one part of a diffusers folder"),
        (
            {"layer1.weight": zeros(5, 5), "b": zeros(2, 2), "c": zeros(1)},
            "unknown",
            "tensors of an unknown arch",
        ),
    ],
)
def test_files_of_other_kinds_are_named_and_not_loaded(
    tmp_path: Path, tensors: dict[str, Tensor], architecture: str, words: str
) -> None:
    path = tmp_path / "x.safetensors"
    save_file(tensors, path)
    found = inspect(path)
    assert (found.architecture, found.loads) == (architecture, False)
    assert words in found.verdict
    with pytest.raises(UserError) as caught:
        open_model(path)
    assert str(caught.value) == found.verdict


def test_an_incomplete_model_says_what_it_lacks(home: Path, tmp_path: Path) -> None:
    tensors = state_dict(home / "model.safetensors")
    del tensors[f"{VAE}decoder.mid.attn_1.q.bias"]
    save_file(tensors, tmp_path / "x.safetensors")
    found = inspect(tmp_path / "x.safetensors")
    assert not found.loads
    assert "lacks decoder.mid_block.attentions.0.to_q.bias" in found.verdict


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch pwned",)


def test_a_malicious_file_is_described_without_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = inspect(write_ckpt(tmp_path / "x.ckpt", {"a": zeros(1)}, extra=Evil()))
    assert found.refused == (f"{os.system.__module__}.system",)
    assert not found.loads
    assert "os.system" in found.verdict
    assert not (tmp_path / "pwned").exists()


def test_a_converted_file_holds_the_same_tensors(home: Path, tmp_path: Path) -> None:
    tensors = {
        "across": torch.arange(6.0).view(2, 3).t(),
        "half": torch.ones(3, 5).half(),
        "whole": torch.arange(4),
        "none": torch.zeros(0, 2),
        "scalar": torch.tensor(2.0),
        "bool": torch.tensor([True, False]),
    }
    convert(write_ckpt(tmp_path / "x.ckpt", tensors), tmp_path / "x.safetensors")
    found = state_dict(tmp_path / "x.safetensors")
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name
    size = convert(home / "both.ckpt", tmp_path / "both.safetensors")
    assert size == (tmp_path / "both.safetensors").stat().st_size
    assert open_checkpoint(tmp_path / "both.safetensors").entries.keys() == (
        open_checkpoint(home / "both.ckpt").entries.keys()
    )


def test_nothing_is_written_of_what_cannot_be_converted(home: Path, tmp_path: Path) -> None:
    target = tmp_path / "x.safetensors"
    target.write_bytes(b"what was here")
    write_ckpt(tmp_path / "evil.ckpt", {"a": zeros(1)}, extra=Evil())
    torch.save({"a": 1}, tmp_path / "empty.ckpt")
    torch.save({"a": torch.zeros(1, dtype=torch.complex128)}, tmp_path / "complex.ckpt")
    for source, words in (
        (tmp_path / "evil.ckpt", "os.system"),
        (tmp_path / "empty.ckpt", "no tensors"),
        (tmp_path / "complex.ckpt", "complex128"),
        (target, "not a checkpoint|is the file"),
    ):
        with pytest.raises(UserError, match=words):
            convert(source, target)
        assert target.read_bytes() == b"what was here"
    with pytest.raises(UserError, match=r"name that ends in \.safetensors"):
        convert(home / "both.ckpt", tmp_path / "x.ckpt")
    with pytest.raises(UserError, match="does not exist"):
        convert(home / "both.ckpt", tmp_path / "nowhere" / "x.safetensors")
    assert {path.name for path in tmp_path.iterdir()} == {
        *("x.safetensors", "evil.ckpt", "empty.ckpt", "complex.ckpt"),
    }
