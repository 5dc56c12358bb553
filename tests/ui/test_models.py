"""`models inspect` and `models convert`, and the options that choose a model's parts."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from core.recipes.png import png_bytes, read_recipe
from core.recipes.recipe import ModelRef
from tests.checkpoints import lightning, write_ckpt
from tests.ui.commandline import LoadedPipeline, failure, run


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch pwned",)


def test_inspect_says_what_a_file_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"a.lora_up.weight": torch.zeros(4, 2), "a.lora_down.weight": torch.zeros(2, 4)}, path)
    code, out, _ = run(capsys, "models", "inspect", str(path))
    assert code == 0
    assert "architecture  LoRA" in out
    code, out, _ = run(capsys, "models", "inspect", str(path), "--json")
    found = json.loads(out)
    assert (code, found["architecture"], found["parameters"]) == (0, "LoRA", {"other": 16})
    assert set(found) == {
        *("path", "format", "architecture", "base", "prediction", "dtypes", "parameters", "ema"),
        *("globals", "refused", "ignored", "loads", "verdict"),
    }


@pytest.mark.parametrize("inside", [True, False])
def test_a_malicious_file_is_named_and_ends_in_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], inside: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    extra = lightning({"hook": Evil()}) if inside else Evil()
    path = write_ckpt(tmp_path / "evil.ckpt", {"a": torch.zeros(1)}, extra=extra)
    code, out, _ = run(capsys, "models", "inspect", str(path), "--json")
    assert code == 2
    assert json.loads(out)["refused"] == [f"{os.system.__module__}.system"]
    for command in (
        ("generate", "x", "--model", str(path)),
        ("generate", "x", "--vae", str(path)),
        ("models", "convert", str(path), "out.safetensors"),
    ):
        assert "os.system" in failure(capsys, *command)
    assert not (tmp_path / "pwned").exists()
    assert not (tmp_path / "out.safetensors").exists()


def test_convert_writes_safetensors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = write_ckpt(tmp_path / "x.ckpt", {"a": torch.ones(3)}), tmp_path / "x.safetensors"
    code, said, _ = run(capsys, "models", "convert", str(path), str(out))
    assert (code, said.startswith(str(out))) == (0, True)
    assert out.exists()
    assert "a name that ends in .safetensors" in failure(
        capsys, "models", "convert", str(path), str(tmp_path / "x.pt")
    )


def test_what_is_not_there_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert "was not found" in failure(capsys, "models", "inspect", "nothing.ckpt")
    assert "write --json after inspect" in failure(capsys, "models", "--json", "inspect", "x")


def test_a_recipe_remembers_the_averaged_copy_and_asks_for_its_vae(
    pipeline: type[LoadedPipeline], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made_with = ModelRef(name="fake", sha256="0" * 64, vae_sha256="1" * 64, ema=True)
    run(capsys, "generate", "x", "--steps", "1", "--out", "made")
    [path] = Path("made").iterdir()
    recipe = replace(read_recipe(path), model=made_with)
    path.write_bytes(png_bytes(Image.new("RGB", (8, 8)), recipe))
    assert recipe.model == read_recipe(path).model
    _, _, err = run(capsys, "generate", "--from", str(path))
    assert pipeline.parts[-1] == (None, True)
    assert "made with another VAE: name it with --vae" in err
    monkeypatch.setattr(pipeline, "ref", made_with)
    _, _, err = run(capsys, "generate", "--from", str(path), "--vae", "v.pt")
    assert "another VAE" not in err


def test_generate_passes_vae_and_ema_on(
    pipeline: type[LoadedPipeline], capsys: pytest.CaptureFixture[str]
) -> None:
    _, _, err = run(capsys, "generate", "x", "--model", "m", "--vae", "v.pt", "--ema")
    run(capsys, "generate", "x")
    assert pipeline.parts == [(Path("v.pt"), True), (None, False)]
    assert "model fake: a fake" in err
