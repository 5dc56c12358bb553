"""Diffusers folders as they come: any file names, older names inside, other VAEs, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from core.errors import UserError
from core.inference.pipeline import Pipeline
from core.weights import find
from core.weights.model_files import open_model
from tests.checkpoints import state_dict, write_ckpt, write_folder, write_safetensors

UNET, VAE, TEXT = (
    "unet/diffusion_pytorch_model",
    "vae/diffusion_pytorch_model",
    "text_encoder/model",
)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("folder") / "folder")


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "folder"))


@pytest.fixture(scope="module")
def expected(original: Path) -> Tensor:
    return latents(original)


def latents(path: Path, **arguments: Any) -> Tensor:
    pipe = Pipeline.load(path, device="cpu", **arguments)
    run = pipe.stream(prompt="a red circle", steps=2, width=64, height=64, seed=1, cfg_scale=3.0)
    return run.result().steps[-1].x


def variant(folder: Path) -> None:
    for part in (UNET, VAE, TEXT):
        (folder / f"{part}.safetensors").rename(folder / f"{part}.fp16.safetensors")


def pickled(folder: Path) -> None:
    for part, name in ((UNET, UNET), (VAE, f"{VAE}.fp16"), (TEXT, "text_encoder/pytorch_model")):
        torch.save(state_dict(folder / f"{part}.safetensors"), folder / f"{name}.bin")
        (folder / f"{part}.safetensors").unlink()


def sharded(folder: Path) -> None:
    path = folder / f"{UNET}.safetensors"
    tensors = state_dict(path)
    names = sorted(tensors)
    places = {name: f"shard-{i % 3}.safetensors" for i, name in enumerate(names)}
    for shard in set(places.values()):
        save_file({name: tensors[name] for name in names if places[name] == shard}, path.with_name(shard))
    Path(f"{path}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    path.unlink()


def older_names(folder: Path) -> None:
    """As diffusers wrote its VAE in 2022, and transformers its text encoder before 4.31."""
    path = folder / f"{VAE}.safetensors"
    old = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    tensors = state_dict(path)
    for new, name in old.items():
        tensors = {key.replace(new, name): tensor for key, tensor in tensors.items()}
    save_file(tensors, path)
    text = folder / f"{TEXT}.safetensors"
    positions = {"text_model.embeddings.position_ids": torch.arange(48)[None]}
    save_file(state_dict(text) | positions, text)


def newer_names(folder: Path) -> None:
    """As transformers 5 writes the text encoder, one level of the name shorter."""
    path = folder / f"{TEXT}.safetensors"
    save_file({key.removeprefix("text_model."): tensor for key, tensor in state_dict(path).items()}, path)


def head_counts(folder: Path) -> None:
    """What newer configs call the number of heads."""
    edit(folder / "unet" / "config.json", num_attention_heads=8, attention_head_dim=4)


@pytest.mark.parametrize(
    "change", [variant, pickled, sharded, older_names, newer_names, head_counts], ids=lambda f: f.__name__
)
def test_every_kind_of_folder_draws_the_same_picture(
    folder: Path, expected: Tensor, change: Callable[[Path], None]
) -> None:
    change(folder)
    assert torch.equal(latents(folder), expected)


def edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize(
    ("file", "values", "words"),
    [
        ("unet/config.json", {"class_embed_type": "timestep"}, "class_embed_type is 'timestep'"),
        ("unet/config.json", {"transformer_layers_per_block": [1, 2]}, "transformer_layers_per_block"),
        ("unet/config.json", {"addition_embed_type": "text_time"}, "addition_embed_type"),
        ("vae/config.json", {"use_quant_conv": False}, "use_quant_conv"),
        ("scheduler/scheduler_config.json", {"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr"),
        ("scheduler/scheduler_config.json", {"beta_schedule": "laplace"}, "laplace"),
        ("unet/config.json", {"in_channels": 8}, "must read latents"),
    ],
)
def test_configurations_of_other_architectures_are_refused(
    folder: Path, file: str, values: dict[str, Any], words: str
) -> None:
    edit(folder / file, **values)
    with pytest.raises(UserError, match=words):
        open_model(folder)


def test_other_pipelines_are_named(folder: Path) -> None:
    index = folder / "model_index.json"
    index.write_text(json.dumps({"_class_name": "StableDiffusionXLPipeline"}))
    with pytest.raises(UserError, match="is a StableDiffusionXLPipeline"):
        open_model(folder)
    for known in ("StableDiffusionPipeline", "StableDiffusionInpaintPipelineLegacy"):
        index.write_text(json.dumps({"_class_name": known}))
        open_model(folder)


def test_defaults_follow_what_the_folder_says(folder: Path) -> None:
    edit(folder / "unet" / "config.json", sample_size=96)
    edit(
        folder / "scheduler" / "scheduler_config.json",
        timestep_spacing="trailing",
        prediction_type="v_prediction",
    )
    model = open_model(folder)
    assert (model.notes.defaults.width, model.notes.defaults.schedule) == (768, "trailing")
    assert model.config.noise.prediction_type == "v_prediction"
    edit(folder / "unet" / "config.json", sample_size=9999)
    assert open_model(folder).notes.defaults.width == 2048


def test_a_tokenizer_is_found_beside_the_model_or_in_data(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(find, "DATA", tmp_path / "data")
    monkeypatch.setattr(find, "MODELS", tmp_path / "data" / "models")
    tokenizer = folder / "tokenizer"
    assert find.find_tokenizer(folder) == tokenizer
    files = {name: (tokenizer / name).read_bytes() for name in ("vocab.json", "merges.txt")}
    shutil.rmtree(tokenizer)
    model = tmp_path / "model.safetensors"
    model.touch()
    assert find.find_tokenizer(model) == find.CLIP
    for home in (tmp_path / "data", tmp_path / "data" / "tokenizer", tmp_path, tmp_path / "tokenizer"):
        home.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            # Also without their suffixes, as some people save them.
            (home / (name if home.name == "tokenizer" else name.partition(".")[0])).write_bytes(data)
        assert find.find_tokenizer(model) == home
    assert find.find_tokenizer(folder) == tmp_path / "data" / "tokenizer"


def test_a_tokenizer_of_another_model_is_refused(folder: Path) -> None:
    shutil.rmtree(folder / "tokenizer")
    shutil.copytree(find.EMBEDDED / "tokenizer", folder / "tokenizer")
    with pytest.raises(UserError, match="has more tokens"):
        Pipeline.load(folder)


def other_vae(home: Path, seed: int) -> tuple[Path, dict[str, Tensor]]:
    """Another model in a folder, and its tensors under CompVis' names."""
    folder = write_folder(home / f"other-{seed}", seed=seed)
    return folder, state_dict(write_safetensors(home / f"other-{seed}.safetensors", folder))


def test_a_vae_of_its_own_in_every_form(folder: Path, tmp_path: Path) -> None:
    other, tensors = other_vae(tmp_path, 5)
    alone = {
        name.removeprefix("first_stage_model."): t for name, t in tensors.items() if "first_stage" in name
    }
    torch.save({"state_dict": alone | {"loss.logvar": torch.zeros(())}}, tmp_path / "kl.ckpt")
    forms = {
        "whole model": tmp_path / "other-5.safetensors",
        "CompVis' names alone": tmp_path / "kl.ckpt",
        "file of diffusers": other / "vae" / "diffusion_pytorch_model.safetensors",
        "folder": other / "vae",
        "folder of the model": other,
    }
    latent = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    wanted = Pipeline.load(other, device="cpu", dtype="float32").vae.decode(latent)
    own = Pipeline.load(folder, device="cpu", dtype="float32")
    assert not torch.equal(own.vae.decode(latent), wanted)
    for form, path in forms.items():
        pipe = Pipeline.load(folder, device="cpu", dtype="float32", vae=path)
        assert torch.equal(pipe.vae.decode(latent), wanted), form
        assert path.name in pipe.about
        assert pipe.sha256 == own.sha256
        assert len(pipe.model.ref.vae_sha256) == 64
    assert own.model.ref.vae_sha256 == ""


def test_vaes_that_do_not_fit_are_refused(folder: Path, tmp_path: Path) -> None:
    torch.save({"string_to_param": {"*": torch.zeros(1, 768)}}, tmp_path / "word.pt")
    for path, words in (
        (find.EMBEDDED, "a VAE of 16 channels"),
        (tmp_path / "nothing", "was not found"),
        (tmp_path / "word.pt", "textual-inversion embedding, not a VAE"),
    ):
        with pytest.raises(UserError, match=words):
            Pipeline.load(folder, vae=path)


def test_files_in_the_models_folder_go_by_their_names(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(find, "MODELS", tmp_path / "models")
    (tmp_path / "models").mkdir()
    path = write_ckpt(tmp_path / "models" / "inkpunk.v1.ckpt", {"a": torch.zeros(1)})
    (tmp_path / "models" / "notes.txt").touch()
    assert find.find_model("inkpunk.v1") == find.find_model("inkpunk.v1.ckpt") == path
    assert find.installed()[1:] == [path]
    with pytest.raises(UserError, match=r"was not found: give a model's folder or file, .*tiny, inkpunk\.v1"):
        find.find_model("inkpunk")
