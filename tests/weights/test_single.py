"""Models in single files: their names, and that every form of the same weights draws the same picture."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from core.errors import UserError
from core.inference.pipeline import Pipeline
from core.weights.layouts.compvis import averaged
from core.weights.layouts.single import read_single
from core.weights.model_files import open_model
from core.weights.readers.checkpoint import open_checkpoint
from tests.checkpoints import Base, state_dict, write_ckpt, write_folder, write_safetensors

POSITIONS = "cond_stage_model.transformer.text_model.embeddings.position_ids"
UNET, VAE = "model.diffusion_model.", "first_stage_model."
BASES: list[Base] = ["SD1", "SD2"]


@pytest.fixture(scope="module", params=BASES)
def base(request: pytest.FixtureRequest) -> Base:
    base: Base = request.param
    return base


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, base: Base) -> Path:
    return write_folder(tmp_path_factory.mktemp(base) / "folder", base)


@pytest.fixture(scope="module")
def single(folder: Path) -> Path:
    """The folder's weights in one file, with its tokenizer beside it."""
    (folder.parent / "tokenizer").symlink_to(folder / "tokenizer")
    return write_safetensors(folder.parent / "model.safetensors", folder)


@pytest.fixture(scope="module")
def sd1_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("sd1")
    folder = write_folder(home / "folder")
    (home / "tokenizer").symlink_to(folder / "tokenizer")
    write_safetensors(home / "plain.safetensors", folder)
    return home


@pytest.fixture
def sd1(sd1_home: Path) -> tuple[Path, dict[str, Tensor]]:
    """Where a small SD 1.x model lies as `folder` and `plain.safetensors`, and the latter's tensors."""
    return sd1_home, state_dict(sd1_home / "plain.safetensors")


def latents(path: Path, **arguments: Any) -> Tensor:
    pipe = Pipeline.load(path, device="cpu", **arguments)
    run = pipe.stream(prompt="a red circle", steps=2, width=64, height=64, seed=1, cfg_scale=3.0)
    return run.result().steps[-1].x


def test_every_form_of_the_same_weights_draws_the_same_picture(folder: Path, single: Path) -> None:
    tensors = state_dict(single)
    files = [
        single,
        write_ckpt(folder.parent / "lightning.ckpt", tensors),
        write_ckpt(folder.parent / "older.ckpt", tensors, legacy=True),
    ]
    torch.save(tensors, bare := folder.parent / "bare.ckpt")  # no state_dict around the weights
    expected = latents(folder)
    for path in (*files, bare):
        assert torch.equal(latents(path), expected), path.name


def test_another_dtype_makes_the_same_picture_from_both_forms(folder: Path, single: Path) -> None:
    assert torch.equal(latents(single, dtype="bfloat16"), latents(folder, dtype="bfloat16"))


def test_the_names_are_those_of_the_original_code(folder: Path, single: Path) -> None:
    """Diffusers' own converter turns our single file back into the folder."""
    utils = pytest.importorskip("diffusers.loaders.single_file_utils")

    def config(part: str) -> Any:
        values = json.loads((folder / part / "config.json").read_text())
        levels = len(values["block_out_channels"])
        return {"down_block_types": [""] * levels, "up_block_types": [""] * levels} | values

    tensors = state_dict(single)
    for part, convert in (
        ("unet", utils.convert_ldm_unet_checkpoint),
        ("vae", utils.convert_ldm_vae_checkpoint),
    ):
        expected = state_dict(folder / part / "diffusion_pytorch_model.safetensors")
        found = convert(dict(tensors), config(part))
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            assert torch.equal(found[name].reshape(tensor.shape), tensor), name


def test_the_text_tower_is_split_as_transformers_has_it(folder: Path, single: Path) -> None:
    expected = state_dict(folder / "text_encoder" / "model.safetensors")
    found = read_single(open_checkpoint(single)).text.sources
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name].tensor(), tensor), name


def test_open_clip_is_read_as_diffusers_reads_it(tmp_path: Path) -> None:
    """OpenCLIP's tower, with its last layer and its projection, by diffusers' converter and ours."""
    utils = pytest.importorskip("diffusers.loaders.single_file_utils")
    transformers = pytest.importorskip("transformers")
    folder = write_folder(tmp_path / "folder", "SD2")
    tensors = state_dict(write_safetensors(tmp_path / "model.safetensors", folder))
    prefix = "cond_stage_model.model."
    generator = torch.Generator().manual_seed(0)
    for name, tensor in tensors.items():
        if name.startswith(prefix):
            tensors[name] = torch.randn(tensor.shape, generator=generator)
    tensors[f"{prefix}text_projection"] = torch.randn(128, 128)
    tensors[f"{prefix}logit_scale"] = torch.tensor(4.6)
    save_file(tensors, tmp_path / "other.safetensors")

    model = read_single(open_checkpoint(tmp_path / "other.safetensors"))
    numbers = {**vars(model.config.text), "projection_dim": 128}
    theirs = transformers.CLIPTextModel(transformers.CLIPTextConfig(**numbers))
    expected = utils.convert_open_clip_checkpoint(theirs, dict(tensors), prefix=prefix)
    ours = {name.removeprefix("text_model."): source.tensor() for name, source in model.text.sources.items()}
    expected = {name.removeprefix("text_model."): tensor for name, tensor in expected.items()}
    assert ours.keys() <= expected.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, expected[name]), name
    assert model.ignored[f"{prefix}logit_scale"] == "is not used by the UNet"
    assert "last layer" in model.ignored[f"{prefix}transformer.resblocks.2.ln_1.weight"]


def test_names_of_an_averaged_copy_have_no_dots() -> None:
    assert averaged("input_blocks.0.0.weight") == "model_ema.diffusion_modelinput_blocks00weight"


def test_ema_takes_the_averaged_copy(sd1: tuple[Path, dict[str, Tensor]]) -> None:
    home, tensors = sd1
    unet = {name: tensor for name, tensor in tensors.items() if name.startswith(UNET)}
    copies = {averaged(name.removeprefix(UNET)): tensor * 0.9 for name, tensor in unet.items()}
    both = write_ckpt(home / "both.ckpt", {**tensors, **copies, "model_ema.num_updates": torch.tensor(9)})
    scaled = {**tensors, **{name: tensor * 0.9 for name, tensor in unet.items()}}
    assert torch.equal(latents(both), latents(home / "plain.safetensors"))
    assert torch.equal(latents(both, ema=True), latents(write_ckpt(home / "scaled.ckpt", scaled)))
    assert open_model(both, ema=True).about.endswith("averaged weights")
    with pytest.raises(UserError, match=r"no averaged \(EMA\) weights"):
        Pipeline.load(home / "plain.safetensors", ema=True)
    with pytest.raises(UserError, match=r"no averaged \(EMA\) weights"):
        Pipeline.load(home / "folder", ema=True)
    del copies["model_ema.diffusion_modelout2bias"]
    with pytest.raises(UserError, match=r"lacks conv_out\.bias"):
        Pipeline.load(write_ckpt(home / "both.ckpt", {**tensors, **copies}), ema=True)


def test_tensors_beside_the_weights_are_ignored_with_their_reason(
    sd1: tuple[Path, dict[str, Tensor]],
) -> None:
    home, tensors = sd1
    beside = {
        "betas": torch.ones(10),
        "sqrt_one_minus_alphas_cumprod": torch.ones(10),
        POSITIONS: torch.arange(48)[None],
        "first_stage_model.loss.logvar": torch.zeros(()),
        "embedding_manager.something": torch.zeros(3),
    }
    path = write_ckpt(home / "beside.ckpt", tensors | beside)
    assert read_single(open_checkpoint(path)).ignored == {
        "betas": "is the noise schedule, computed here",
        "sqrt_one_minus_alphas_cumprod": "is the noise schedule, computed here",
        POSITIONS: "only counts positions from 0",
        "first_stage_model.loss.logvar": "was only used to train the VAE",
        "embedding_manager.something": "belongs to none of the three networks",
    }
    assert torch.equal(latents(path), latents(home / "plain.safetensors"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop(f"{UNET}out.2.bias"), r"lacks conv_out\.bias"),
        (lambda t: t.pop(f"{UNET}input_blocks.0.0.weight"), "of an unknown architecture"),
        (lambda t: t.pop(f"{UNET}out.2.weight"), r"lacks out\.2\.weight"),
        (lambda t: t.update({f"{UNET}new.weight": torch.ones(2)}), r"unexpected new\.weight"),
        (lambda t: t.update({f"{UNET}out.2.bias": torch.ones(5)}), r"conv_out\.bias has shape \(5,\), not"),
        (lambda t: t.update({f"{UNET}out.2.bias": torch.ones(4, dtype=torch.int8)}), "quantised"),
        (lambda t: t.update({f"{UNET}out.2.bias": torch.full((4,), math.nan)}), "infinite values .*conv_out"),
        (
            lambda t: t.update({f"{VAE}quant_conv.bias": torch.full((8,), math.inf)}),
            "infinite values .*quant_conv",
        ),
        (lambda t: t.update({f"{UNET}out.0.bias": torch.ones(0)}), "impossible shapes"),
        (lambda t: t.update({f"{UNET}input_blocks.0.0.weight": torch.ones(32)}), "impossible shapes|of no"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(
    sd1: tuple[Path, dict[str, Tensor]], change: Callable[[dict[str, Tensor]], Any], words: str
) -> None:
    home, tensors = sd1
    change(tensors)
    save_file(tensors, home / "wrong.safetensors")
    with pytest.raises(UserError, match=words):
        Pipeline.load(home / "wrong.safetensors")


def test_one_bad_number_anywhere_is_found(sd1: tuple[Path, dict[str, Tensor]]) -> None:
    home, tensors = sd1
    name = f"{UNET}middle_block.0.in_layers.2.weight"
    tensors[name].view(-1)[12345] = math.nan
    save_file(tensors, home / "nan.safetensors")
    with pytest.raises(UserError, match=r"infinite values .*mid_block\.resnets\.0\.conv1"):
        Pipeline.load(home / "nan.safetensors")


def test_a_value_that_the_dtype_cannot_hold_is_found(sd1: tuple[Path, dict[str, Tensor]]) -> None:
    home, tensors = sd1
    tensors[f"{UNET}out.2.bias"] = torch.full((4,), 1e6)
    save_file(tensors, home / "large.safetensors")
    Pipeline.load(home / "large.safetensors", device="cpu", dtype="float32")
    with pytest.raises(UserError, match="exceeds the dtype's range"):
        Pipeline.load(home / "large.safetensors", device="cpu", dtype="float16")


@pytest.mark.parametrize(
    ("tell", "expected"),
    [
        ("nothing", "epsilon"),
        ("spread", "v_prediction"),
        ("yaml", "v_prediction"),
        ("yaml against spread", "epsilon"),
        ("metadata", "v_prediction"),
        ("step", "epsilon"),
        ("tensor", "v_prediction"),
    ],
)
def test_what_an_sd2_file_predicts_is_told_by_what_peers_look_at(
    tmp_path: Path, tell: str, expected: str
) -> None:
    tensors = state_dict(
        write_safetensors(tmp_path / "model.safetensors", write_folder(tmp_path / "folder", "SD2"))
    )
    # SD 2's own: about 0.04 in the base networks, above 0.09 in those trained on to predict v.
    bias = f"{UNET}output_blocks.5.1.transformer_blocks.0.norm1.bias"
    spread = tell in ("spread", "yaml against spread", "step")
    tensors[bias] = torch.linspace(-0.3, 0.3, 32) if spread else torch.linspace(-0.06, 0.06, 32)
    if tell == "tensor":
        tensors["v_pred"] = torch.zeros(1)
    path = tmp_path / "model.ckpt"
    save_file(tensors, path, {"modelspec.prediction_type": "v"} if tell == "metadata" else None)
    if tell == "step":
        write_ckpt(path, tensors, global_step=875_000)
    if tell.startswith("yaml"):
        said = "v" if tell == "yaml" else "eps"
        path.with_suffix(".yaml").write_text(f'model:\n  params:\n    parameterization: "{said}"\n')
    model = open_model(path)
    assert model.config.noise.prediction_type == expected
    assert model.notes.defaults.width == (768 if expected == "v_prediction" else 512)


def test_an_inpainting_file_is_loaded_with_its_nine_channels(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "folder", channels=9)
    (tmp_path / "tokenizer").symlink_to(folder / "tokenizer")
    pipe = Pipeline.load(write_safetensors(tmp_path / "inpainting.safetensors", folder), device="cpu")
    assert pipe.model.config.inpaints
    assert pipe.unet.conv_in.weight.shape[1] == 9
    assert "inpainting" in pipe.about


def test_names_without_text_model_are_read_too(sd1: tuple[Path, dict[str, Tensor]]) -> None:
    home, tensors = sd1
    short = {name.replace("transformer.text_model.", "transformer."): t for name, t in tensors.items()}
    assert short.keys() != tensors.keys()
    assert torch.equal(latents(write_ckpt(home / "short.ckpt", short)), latents(home / "folder"))


def test_weights_of_the_same_dtype_stay_mapped_and_others_do_not(sd1: tuple[Path, dict[str, Tensor]]) -> None:
    home, _ = sd1
    for dtype, mapped in (("float16", True), ("bfloat16", False)):
        pipe = Pipeline.load(home / "plain.safetensors", device="cpu", dtype=dtype)
        spans = _mappings(home / "plain.safetensors")
        assert spans
        for part in (pipe.text_encoder, pipe.vae, pipe.unet):
            for parameter in part.parameters():
                at = parameter.data_ptr()
                assert any(first <= at < end for first, end in spans) == mapped


def _mappings(path: Path) -> list[tuple[int, int]]:
    """Where the file lies in this process's memory, as the kernel tells it."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("only Linux tells what is mapped")
    lines = [line for line in maps.read_text().splitlines() if line.endswith(f" {path}")]
    spans = [line.split(maxsplit=1)[0].split("-") for line in lines]
    return [(int(first, 16), int(end, 16)) for first, end in spans]
