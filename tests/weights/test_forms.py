"""Single files and folders in the forms that other programs write: each draws what the plain form draws."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from core.errors import UserError
from core.inference.pipeline import Pipeline
from core.models.config import ModelConfig, UNetConfig
from core.models.unet import guidance_embedding
from core.weights import find
from core.weights.inspect import inspect
from core.weights.layouts import compvis
from core.weights.layouts.canonical import canonical
from core.weights.layouts.single import read_single
from core.weights.model_files import open_model
from core.weights.parts import expected_shapes
from core.weights.readers.checkpoint import Checkpoint, open_checkpoint
from core.weights.readers.mapped_file import MappedFile, TensorEntry
from tests.checkpoints import Base, state_dict, write_folder, write_safetensors

UNET = "model.diffusion_model."
Tensors = dict[str, Tensor]


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> dict[Base, Path]:
    """A small model of each kind as `folder` and `plain.safetensors`, with its tokenizer next to it."""
    bases: tuple[Base, ...] = ("SD1", "SD2")
    found = {}
    for base in bases:
        found[base] = home = tmp_path_factory.mktemp(base)
        folder = write_folder(home / "folder", base)
        (home / "tokenizer").symlink_to(folder / "tokenizer")
        write_safetensors(home / "plain.safetensors", folder)
    return found


def latents(path: Path) -> Tensor:
    pipe = Pipeline.load(path, device="cpu", dtype="float32")
    run = pipe.stream(prompt="a red circle", steps=2, width=64, height=64, seed=1, cfg_scale=3.0)
    return run.result().steps[-1].x


def averaged_only(tensors: Tensors) -> Tensors:
    return {
        compvis.averaged(name.removeprefix(UNET)) if name.startswith(UNET) else name: tensor
        for name, tensor in tensors.items()
    }


def with_vision_tower(tensors: Tensors) -> Tensors:
    start = "cond_stage_model.transformer."
    names = ("vision_model.embeddings.class_embedding", "visual_projection.weight", "text_projection.weight")
    return {
        **tensors,
        **{start + name: torch.ones(4) for name in names},
        f"{start}logit_scale": torch.ones(()),
    }


def with_open_clips_vision_tower(tensors: Tensors) -> Tensors:
    start = "cond_stage_model.model."
    names = (
        "visual.proj",
        "visual.class_embedding",
        "visual.transformer.resblocks.0.ln_1.weight",
        "attn_mask",
    )
    return {**tensors, **{start + name: torch.ones(4) for name in names}}


def renamed(old: str, new: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name.replace(old, new): tensor for name, tensor in tensors.items()}


@pytest.mark.parametrize(
    ("base", "change"),
    [
        ("SD2", renamed("cond_stage_model.", "conditioner.embedders.0.")),
        ("SD1", renamed("cond_stage_model.", "conditioner.embedders.0.")),
        ("SD1", averaged_only),
        ("SD2", averaged_only),
        ("SD1", with_vision_tower),
        ("SD2", with_open_clips_vision_tower),
    ],
)
def test_other_forms_make_the_same_latents(
    homes: dict[Base, Path], base: Base, change: Callable[[Tensors], Tensors]
) -> None:
    home = homes[base]
    save_file(change(state_dict(home / "plain.safetensors")), home / "other.safetensors")
    found = inspect(home / "other.safetensors")
    assert (found.base, found.loads) == (base, True)
    assert torch.equal(latents(home / "other.safetensors"), latents(home / "plain.safetensors"))


def test_every_name_of_sd15_survives_without_its_dots() -> None:
    """The names of an averaged copy lose their dots; those of every weight can be restored."""
    names = compvis.unet_names(UNetConfig())
    theirs = {compvis.translated(key, names): key for key in expected_shapes(ModelConfig())[2]}
    entry = TensorEntry(MappedFile(find.CLIP / "README.md"), 0, "bool", (1,))
    averages = Checkpoint(Path(), "", {compvis.averaged(str(name)): entry for name in theirs})
    found = canonical(averages).entries.keys() - averages.entries.keys()
    assert found == {f"{UNET}{name}" for name in theirs}


def test_an_unclip_model_and_an_upscaler_are_not_called_sdxl(homes: dict[Base, Path]) -> None:
    home = homes["SD2"]
    tensors = state_dict(home / "plain.safetensors") | {f"{UNET}label_emb.0.0.weight": torch.ones(2, 2)}
    save_file(tensors, home / "other.safetensors")
    assert "unCLIP" in inspect(home / "other.safetensors").verdict
    tensors[f"{UNET}input_blocks.0.0.weight"] = torch.ones(32, 7, 3, 3)
    save_file(tensors, home / "other.safetensors")
    assert "upscaler" in inspect(home / "other.safetensors").verdict


@pytest.mark.parametrize(("layers", "used"), [(24, 23), (23, 23)])
def test_sd2_uses_23_layers_whether_or_not_the_last_is_there(layers: int, used: int) -> None:
    shapes = {"token_embedding.weight": (49408, 1024), "positional_embedding": (77, 1024)}
    for i in range(layers):
        shapes[f"transformer.resblocks.{i}.mlp.c_fc.weight"] = (4096, 1024)
    assert compvis.read_open_clip(shapes).num_hidden_layers == used


def test_a_file_without_a_vae_needs_and_takes_one(homes: dict[Base, Path]) -> None:
    home = homes["SD1"]
    tensors = state_dict(home / "plain.safetensors")
    part = {name: tensor for name, tensor in tensors.items() if not name.startswith("first_stage_model.")}
    save_file(part, home / "other.safetensors")
    with pytest.raises(UserError, match=r"1\.x model without a VAE: give one as --vae"):
        open_model(home / "other.safetensors")
    assert "without a VAE" in inspect(home / "other.safetensors").verdict
    for vae in (home / "folder" / "vae", home / "plain.safetensors"):
        model = open_model(home / "other.safetensors", vae=vae)
        assert model.config.vae.scaling_factor == 0.18215
    pictures = [
        Pipeline.load(path, device="cpu", vae=vae).generate(prompt="x", steps=1, width=64, height=64, seed=1)
        for path, vae in ((home / "other.safetensors", home / "folder"), (home / "plain.safetensors", None))
    ]
    assert pictures[0].images[0].tobytes() == pictures[1].images[0].tobytes()


def test_scaled_float8_is_multiplied_by_its_scale(homes: dict[Base, Path]) -> None:
    home = homes["SD1"]
    tensors = state_dict(home / "plain.safetensors")
    name = f"{UNET}middle_block.1.transformer_blocks.0.attn1.to_q"
    text = "cond_stage_model.transformer.text_model.encoder.layers.0.mlp.fc1"
    kinds = ((name, torch.tensor(0.02), "scale_weight"), (text, torch.tensor([0.5]), "weight_scale"))
    for stem, scale, end in kinds:
        stored = (tensors[f"{stem}.weight"].float() / scale).to(torch.float8_e4m3fn)
        tensors |= {f"{stem}.weight": stored, f"{stem}.{end}": scale, f"{stem}.scale_input": torch.ones(1)}
    tensors[f"{UNET}scaled_fp8"] = torch.empty(2, dtype=torch.float8_e4m3fn)
    save_file(tensors, home / "other.safetensors")
    model = open_model(home / "other.safetensors")
    assert "scaled float8_e4m3fn" in model.about
    source = model.unet.sources["mid_block.attentions.0.transformer_blocks.0.attn1.to_q.weight"]
    assert torch.equal(source.tensor(), tensors[f"{name}.weight"].float() * 0.02)
    apart = latents(home / "other.safetensors") - latents(home / "plain.safetensors")
    assert 0 < apart.abs().max() < 0.05
    tensors[f"{name}.scale_weight"] = torch.ones(3)
    save_file(tensors, home / "other.safetensors")
    with pytest.raises(UserError, match="scale_weight"):
        Pipeline.load(home / "other.safetensors")


def test_zero_terminal_snr_is_acted_on(homes: dict[Base, Path]) -> None:
    home = homes["SD1"]
    tensors = state_dict(home / "plain.safetensors")
    save_file(tensors | {"v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)}, home / "other.safetensors")
    model = open_model(home / "other.safetensors")
    noise = model.config.noise
    assert (noise.prediction_type, noise.rescale_betas_zero_snr) == ("v_prediction", True)
    assert noise.schedule().sigma_max == pytest.approx(4096, rel=1e-6)
    assert model.notes.defaults.schedule == "trailing"
    assert "zero-terminal SNR" in model.about
    save_file(tensors | {"ztsnr": torch.zeros(0)}, home / "other.safetensors")
    assert not open_model(home / "other.safetensors").config.noise.rescale_betas_zero_snr
    metadata = {"modelspec.prediction_type": "v", "ss_zero_terminal_snr": "True"}
    save_file(tensors, home / "other.safetensors", metadata)
    assert open_model(home / "other.safetensors").config.noise.rescale_betas_zero_snr


def test_added_tokens_of_a_vocabulary_leave_start_and_end(homes: dict[Base, Path]) -> None:
    shapes = {
        "text_model.embeddings.token_embedding.weight": (49411, 768),
        "text_model.embeddings.position_embedding.weight": (77, 768),
        "text_model.encoder.layers.0.mlp.fc1.weight": (3072, 768),
    }
    config = compvis.read_clip(shapes)
    assert (config.vocab_size, config.bos_token_id, config.eos_token_id) == (49411, 49406, 49407)
    home = homes["SD1"]
    tensors = state_dict(home / "plain.safetensors")
    name = "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight"
    tensors[name] = torch.cat([tensors[name], torch.ones(2, 64).half()])
    save_file(tensors, home / "other.safetensors")
    pipe = Pipeline.load(home / "other.safetensors", device="cpu")
    assert "2 tokens of its vocabulary have no word in its tokenizer" in pipe.model.about
    assert torch.equal(latents(home / "other.safetensors"), latents(home / "plain.safetensors"))


def test_a_long_header_is_read(homes: dict[Base, Path]) -> None:
    home = homes["SD1"]
    tensors = state_dict(home / "plain.safetensors")
    save_file(tensors, home / "other.safetensors", {"note": "x" * 20_000_000})
    assert open_checkpoint(home / "other.safetensors").entries.keys() == tensors.keys()


def test_a_folder_with_all_of_clip(homes: dict[Base, Path], tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "folder")
    path = folder / "text_encoder" / "model.safetensors"
    vision = {f"vision_model.{name}": torch.ones(2) for name in ("post_layernorm.bias", "pre_layrnorm.bias")}
    extra = {"visual_projection.weight": torch.ones(2), "logit_scale": torch.ones(())}
    save_file(state_dict(path) | vision | extra, path)
    assert torch.equal(latents(folder), latents(homes["SD1"] / "folder"))


def test_an_lcm_reads_the_cfg_scale_itself(tmp_path: Path) -> None:
    """In a folder and in a single file, and the embedding as diffusers has it."""
    pipelines = pytest.importorskip("diffusers").pipelines
    scales = torch.tensor([0.0, 7.5])
    expected = pipelines.LatentConsistencyModelPipeline.get_guidance_scale_embedding(None, scales, 256)
    torch.testing.assert_close(guidance_embedding(scales, 256), expected)

    folder = write_folder(tmp_path / "folder")
    (tmp_path / "tokenizer").symlink_to(folder / "tokenizer")
    path = folder / "unet" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "time_cond_proj_dim": 256}))
    weights = path.with_name("diffusion_pytorch_model.safetensors")
    projection = {"time_embedding.cond_proj.weight": torch.randn(32, 256).half()}
    save_file(state_dict(weights) | projection, weights)
    single = write_safetensors(tmp_path / "one.safetensors", folder)
    assert torch.equal(latents(folder), latents(single))
    assert read_single(canonical(open_checkpoint(single))).config.unet.time_cond_proj_dim == 256

    pipe = Pipeline.load(folder, device="cpu", dtype="float32")
    fields: dict[str, Any] = {"prompt": "a red circle", "width": 64, "height": 64, "seed": 1}
    defaults = pipe.model.files.notes.defaults
    assert (defaults.sampler, defaults.steps, defaults.cfg_scale) == ("lcm", 4, 8.5)
    result = pipe.stream(**fields).result()
    assert result.steps[0].unconditional is None
    other = pipe.stream(**fields, cfg_scale=1.0).result().steps[-1].x
    assert not torch.equal(result.steps[-1].x, other)
    saved = pipe.stream(**fields, feature_reuse=2).result().steps[-1].x
    assert saved.isfinite().all()
