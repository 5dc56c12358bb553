"""Models of every kind trained for a few steps: what each leaves, and that a resumed run is the same run."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from core.device import has_bfloat16
from core.errors import Cancelled, UserError
from core.figures.plots import loss_curve
from core.inference.pipeline import Pipeline
from core.models.build import unet_class
from core.models.config import NoiseConfig, PredictionType
from core.training.stages.diffusion import DiffusionLoss, DiffusionStage
from core.training.trainer import TrainingRun, train
from core.training.training_loop import LoopSettings
from core.training.training_recipe import read_recipe

RECIPES = Path(__file__).resolve().parents[2] / "data" / "recipes"
QUICK = (
    "pictures.unet=24", "train.unet.steps=6", "train.unet.batch=4", "train.unet.save_every=3",
    "train.unet.measure_every=6", "train.unet.sample_every=6", "defaults.steps=2",
)  # fmt: skip
SMALL = ("unet.block_out_channels=[8,16]", "unet.norm_num_groups=4")
KINDS = {
    "points": (*QUICK, "unet.block_out_channels=[16]", "defaults.width=64", "defaults.height=64"),
    "toy": (*QUICK, *SMALL),
    "ddpm": (*QUICK, *SMALL),
    "conditional": (*QUICK, *SMALL, "vocabulary.captions=50"),
    "latent": (
        *QUICK, "unet.block_out_channels=[16,16]", "vae.block_out_channels=[8,8,8]", "pictures.vae=16",
        "train.vae.steps=4", "train.vae.batch=2", "train.vae.measure_every=4", "vocabulary.captions=50",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a run of a recipe, trained once."""
    done: dict[str, Path] = {}

    def run(kind: str) -> Path:
        if kind not in done:
            done[kind] = tmp_path_factory.mktemp(kind)
            train(RECIPES / f"{kind}.toml", KINDS[kind], out=done[kind], device="cpu")
        return done[kind]

    return run


@pytest.mark.parametrize("kind", KINDS)
def test_every_recipe_makes_a_model_that_the_pipeline_loads(made: Callable[[str], Path], kind: str) -> None:
    folder = made(kind)
    pipe = Pipeline.load(folder / "model", device="cpu")
    prompt = pipe.examples[0] if pipe.examples else ""
    picture = pipe.generate(prompt=prompt, seed=1).images[0]
    assert picture.size == (pipe.defaults.width, pipe.defaults.height)
    assert pipe.name == kind
    assert not pipe.tokens(prompt).unknown
    for name in ("unet-loss.png", "samples/unet-000006.png"):
        with Image.open(folder / name) as image:
            assert image.width > 300
    assert read_recipe(folder / "model" / "recipe.toml") == read_recipe(RECIPES / f"{kind}.toml", KINDS[kind])


def test_words_are_learned_where_the_recipe_says_so(made: Callable[[str], Path]) -> None:
    """With the UNet, or not at all: the weights tell."""
    encoders = {}
    for kind in ("toy", "conditional"):
        recipe = read_recipe(RECIPES / f"{kind}.toml", KINDS[kind])
        fresh = TrainingRun(recipe, made(kind), True).text_encoder().state_dict()
        trained = Pipeline.load(made(kind) / "model", device="cpu", dtype="float32").text_encoder.state_dict()
        encoders[kind] = {key for key in fresh if not torch.equal(fresh[key].half(), trained[key].half())}
    assert not encoders["toy"]
    assert "text_model.final_layer_norm.weight" in encoders["conditional"]
    assert Pipeline.load(made("conditional") / "model", device="cpu").tokens("an eight").unknown == ()


@pytest.mark.parametrize("kind", ["points", "conditional"])
def test_a_stopped_run_goes_on_to_the_same_model(
    made: Callable[[str], Path], kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, losses = threading.Event(), []
    real = DiffusionStage.loss

    def loss(stage: DiffusionStage, step: int) -> Tensor:
        if step == 3:
            stop.set()
        found = real(stage, step)
        losses.append(float(found.detach()))
        return found

    monkeypatch.setattr(DiffusionStage, "loss", loss)
    path = RECIPES / f"{kind}.toml"
    with pytest.raises(Cancelled, match="after step 4 of unet"):
        train(path, KINDS[kind], out=tmp_path / "run", device="cpu", stop=stop)
    train(path, KINDS[kind], resume=True, out=tmp_path / "run", device="cpu")
    parts = losses.copy()
    losses.clear()
    train(path, KINDS[kind], out=tmp_path / "whole", device="cpu")
    assert parts == losses
    weights = "unet/diffusion_pytorch_model.safetensors"
    assert (tmp_path / "run/model" / weights).read_bytes() == (made(kind) / "model" / weights).read_bytes()


class Oracle(nn.Module):
    """Predicts x0, from the clean latents that it was told."""

    def __init__(self, x0: Tensor) -> None:
        super().__init__()
        self.weight, self.x0 = nn.Parameter(torch.zeros(1)), x0

    def forward(self, x: Tensor, t: Tensor, context: Tensor) -> Tensor:
        return self.x0.expand_as(x)


def test_the_clean_picture_can_be_what_is_predicted(tmp_path: Path) -> None:
    folder = train(
        RECIPES / "toy.toml", [*KINDS["toy"], "noise.prediction_type='sample'"], out=tmp_path, device="cpu"
    )
    assert Pipeline.load(folder, device="cpu").generate(seed=1).images
    recipe = read_recipe(RECIPES / "toy.toml", [*KINDS["toy"], "noise.prediction_type='sample'"])
    run = TrainingRun(recipe, tmp_path, True)
    latents = run.latents_of(run.coder(), run.data)[:1]
    oracle = Oracle(torch.from_numpy(latents).float())
    stage = DiffusionStage(
        oracle, run.text_encoder(), run.tokenizer, recipe.noise,  # pyrefly: ignore[bad-argument-type]
        latents, run.data, (latents, run.data), DiffusionLoss(), batch=4, wordless=True,
    )  # fmt: skip
    assert float(stage.loss(0)) == 0


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_min_snr_weighs_the_clean_estimate_alike(prediction: PredictionType) -> None:
    """Errors of the prediction, as errors of x0: epsilon's is snr times less, v's is snr + 1 times less."""
    snr = torch.tensor([1e-3, 0.5, 4.0, 5.0, 80.0, 1e4])
    weight = DiffusionLoss(gamma=5.0).weight(snr, prediction)
    of_clean = weight * {"epsilon": snr, "v_prediction": snr + 1, "sample": torch.ones(6)}[prediction]
    assert torch.allclose(of_clean, (snr + (prediction == "v_prediction")).clamp(max=5.0))
    assert torch.equal(DiffusionLoss(min_snr=False).weight(snr, prediction), torch.ones(6))


def test_a_tilt_takes_the_weight_of_v_towards_that_of_epsilon() -> None:
    snr = torch.tensor([1e-3, 0.5, 4.0, 5.0, 80.0, 1e4])
    v, half, whole = (
        DiffusionLoss(gamma=5.0, tilt=tilt).weight(snr, "v_prediction") for tilt in (0.0, 0.5, 1.0)
    )
    of_epsilon = (5.0 / (snr + 1)).clamp(max=1)  # where v's error is 1 + 1 / snr times epsilon's
    assert torch.allclose(whole * (snr + 1) / snr, of_epsilon)
    assert torch.allclose(half, (v * whole).sqrt())
    with pytest.raises(UserError, match="tilt must be between 0 and 1"):
        DiffusionLoss(tilt=1.5)


def test_log_normal_levels_have_their_mean_and_deviation() -> None:
    log_sigmas = np.linspace(-8.0, 8.0, 4000)
    quantiles = (np.arange(10_000) + 0.5) / 10_000
    loss = DiffusionLoss(levels="log_normal", mean=-0.4, deviation=1.3)
    drawn = log_sigmas[loss.timesteps(quantiles, log_sigmas).numpy()]
    assert drawn.mean() == pytest.approx(-0.4, abs=0.01)
    assert drawn.std() == pytest.approx(1.3, abs=0.01)
    assert int(loss.timesteps(np.array([0.0]), log_sigmas[2000:])) == 0  # below the table: its first level
    uniform = DiffusionLoss().timesteps(quantiles, log_sigmas)
    assert torch.equal(torch.bincount(uniform[::5] // 2), torch.ones(2000, dtype=torch.long))


def test_cosine_may_be_called_so_and_zero_terminal_snr_is_trained(tmp_path: Path) -> None:
    assert read_recipe(RECIPES / "ddpm.toml").noise.beta_schedule == "squaredcos_cap_v2"
    changes = [*KINDS["ddpm"], "noise.rescale_betas_zero_snr=true"]
    pipe = Pipeline.load(train(RECIPES / "ddpm.toml", changes, out=tmp_path, device="cpu"), device="cpu")
    assert pipe.model.noise_schedule.sigma_max > 4000
    assert np.asarray(pipe.generate(seed=1).images[0]).std() > 0
    with pytest.raises(UserError, match="rescale_betas_zero_snr"):
        read_recipe(
            RECIPES / "toy.toml", ["noise.rescale_betas_zero_snr=true", "noise.prediction_type=epsilon"]
        )
    assert NoiseConfig(beta_schedule="sigmoid", beta_start=1e-4, beta_end=0.02).schedule().sigma_max > 1


def test_the_loss_is_drawn() -> None:
    assert loss_curve("unet", []) is None
    lines = [{"step": 50.0 * i, "loss": 1.0 / i} for i in range(1, 9)] + [{"step": 400.0, "test_loss": 0.2}]
    picture = loss_curve("unet", lines)
    assert picture is not None
    assert picture.startswith(b"\x89PNG")


def test_precision_is_the_recipes(tmp_path: Path) -> None:
    """The same step in float32 and in bfloat16 has about the same loss; not the same bits where the processor
    knows bfloat16.
    """
    losses = []
    for precision in ("float32", "bfloat16"):
        recipe = read_recipe(RECIPES / "toy.toml", [*KINDS["toy"], f"train.unet.precision={precision}"])
        assert recipe.train.unet.precision == precision
        run = TrainingRun(recipe, tmp_path, True)
        coder = run.coder()
        latents = run.latents_of(coder, run.data)
        torch.manual_seed(0)
        net = unet_class(recipe.coder)(recipe.unet)
        stage = DiffusionStage(
            net, run.text_encoder(), run.tokenizer, recipe.noise, latents, run.data, (latents, run.data),
            recipe.train.unet_loss, batch=4, wordless=True, precision=recipe.train.unet.precision,
        )  # fmt: skip
        losses.append(float(stage.loss(0).detach()))
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    assert (losses[0] != losses[1]) == has_bfloat16(torch.device("cpu"))


def test_settings_of_the_loop_are_read() -> None:
    assert LoopSettings(steps=1, batch=1, learning_rate=1.0).sample_every == 0
    with pytest.raises(UserError, match="bfloat16"):
        read_recipe(RECIPES / "toy.toml", ["train.unet.precision=half"])


def test_a_model_in_float8_is_half_as_large_and_nearly_the_same(tmp_path: Path) -> None:
    sizes, states = {}, {}
    for weights in ("float16", "float8"):
        changes = [*KINDS["toy"], f'weights="{weights}"']
        folder = train(RECIPES / "toy.toml", changes, out=tmp_path / weights, device="cpu")
        sizes[weights] = (folder / "unet" / "diffusion_pytorch_model.safetensors").stat().st_size
        pipe = Pipeline.load(folder, device="cpu", dtype="float32")
        assert next(pipe.unet.parameters()).dtype == torch.float32
        states[weights] = pipe.unet.state_dict()
    assert sizes["float8"] < 0.65 * sizes["float16"]
    for key, exact in states["float16"].items():
        # Three bits after the leading one; below 2**-6 the steps are all of 2**-9.
        torch.testing.assert_close(states["float8"][key], exact, rtol=2**-4, atol=2**-10)
    assert any(not torch.equal(states["float8"][key], exact) for key, exact in states["float16"].items())
