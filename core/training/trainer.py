"""Trains a text-to-image model from a recipe: vocabulary, text encoder, VAE, latents, UNet, model folder.

Every stage leaves its result in the run's folder, and a finished stage is not repeated, so a run that was
stopped anywhere goes on with `resume`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from core.device import find_device
from core.errors import UserError
from core.files import check_writable, write_whole
from core.models.clip import CLIPTextEncoder
from core.models.unet import UNet
from core.models.vae import AutoencoderKL
from core.prompt import Tokenizer
from core.training import autoencoder, reading
from core.training.autoencoder import VAEStage
from core.training.captions import caption, words
from core.training.diffusion import DiffusionStage, encode_pool
from core.training.export import save_model
from core.training.loop import LoopSettings, Stage, train_stage
from core.training.pool import Pool
from core.training.reading import TextStage
from core.training.recipe import TrainingRecipe, read_recipe
from core.training.vocabulary import learn_vocabulary

TEST_PICTURES = 512
BLOCK = 2048
RECIPE = "recipe.json"
CHANGEABLE = ("train", "defaults")


def train(
    path: Path,
    overrides: Sequence[str] = (),
    resume: bool = False,
    out: Path | None = None,
    device: str | None = None,
) -> Path:
    """Train the recipe at `path` and return the folder of the finished model, `out/model`.

    device: "cpu", "cuda", "mps"; the best one that is there when None. Without `resume` a folder that already
    holds a run is refused, so that nothing is lost. Raises UserError.
    """
    where = find_device(device)
    recipe = read_recipe(path, overrides)
    folder = Path("runs") / recipe.name if out is None else out
    if (folder / RECIPE).exists() and not resume:
        raise UserError(
            f"{folder} already holds a run: add --resume to go on, or name another folder with --out."
        )
    check_writable(folder)
    _remember(recipe, folder / RECIPE)
    run = TrainingRun(recipe, folder, resume, where)
    text = run.text_encoder()
    vae = run.vae()
    unet = run.unet(text, vae)
    return save_model(folder / "model", recipe, run.tokenizer, text.cpu(), vae.cpu(), unet.cpu())


def _remember(recipe: TrainingRecipe, path: Path) -> None:
    """Write down what is trained, every value of it. Raises UserError when a resumed run is another model."""
    values = json.loads(json.dumps(dataclasses.asdict(recipe)))
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        changed = [key for key in values if values[key] != before.get(key) and key not in CHANGEABLE]
        if changed:
            raise UserError(
                f"{path.parent} holds a run with another {changed[0]}: name another folder with --out."
            )
    write_whole(path, (json.dumps(values, indent=2) + "\n").encode())


class TrainingRun:
    """The stages of one run, in their order."""

    def __init__(
        self, recipe: TrainingRecipe, folder: Path, resume: bool, device: torch.device | str = "cpu"
    ) -> None:
        self.recipe, self.folder, self.resume, self.device = recipe, folder, resume, device
        self.pool = Pool(recipe.seed, "seen", recipe.pictures.unet, recipe.pictures.size)
        self.test = Pool(recipe.seed + 1, "held_out", TEST_PICTURES, recipe.pictures.size)
        self.tokenizer, self.vocabulary_size = self._vocabulary()

    def _vocabulary(self) -> tuple[Tokenizer, int]:
        wanted = self.recipe.vocabulary
        captions = (
            caption(self.pool.spec(i), self.pool.rng(i, "vocabulary")) for i in range(wanted.captions)
        )
        vocab, merges = learn_vocabulary(captions, wanted.size)
        return Tokenizer(vocab, merges, wanted.length, words()), len(vocab)

    def text_encoder(self) -> CLIPTextEncoder:
        """The trained text encoder."""
        torch.manual_seed(self.recipe.seed)
        size = self.vocabulary_size
        config = replace(self.recipe.text, vocab_size=size, bos_token_id=size - 2, eos_token_id=size - 1)
        encoder = CLIPTextEncoder(config)
        reading.initialise(encoder)
        settings = self.recipe.train.text
        stage = TextStage(encoder, self.tokenizer, batch=settings.batch, seed=self.recipe.seed)
        stage.modules.to(self.device)
        self._train(stage, settings)
        return encoder.eval().requires_grad_(False)

    def unet(self, encoder: CLIPTextEncoder, vae: AutoencoderKL) -> UNet:
        """The UNet, trained on the VAE's latents."""
        latents, test = self._latents(vae, self.pool), self._latents(vae, self.test)
        torch.manual_seed(self.recipe.seed)
        unet, settings = UNet(self.recipe.unet), self.recipe.train.unet
        nn.init.zeros_(unet.conv_out.weight)
        unet.to(self.device)
        stage = DiffusionStage(
            unet, encoder, self.tokenizer, self.recipe.noise, latents, self.pool,
            (test, self.test), self.recipe.train.unet_loss, batch=settings.batch,
        )  # fmt: skip
        self._train(stage, settings)
        return unet.eval()

    def vae(self) -> AutoencoderKL:
        """The trained VAE, scaled so that latents have unit variance."""
        torch.manual_seed(self.recipe.seed)
        vae = AutoencoderKL(self.recipe.vae)
        autoencoder.initialise(vae)
        vae.to(self.device)
        settings, pictures = self.recipe.train.vae, self._pictures()
        stage = VAEStage(
            vae,
            pictures,
            self.recipe.train.vae_loss,
            batch=settings.batch,
            steps=settings.steps,
            seed=self.recipe.seed,
        )
        self._train(stage, settings)
        vae.eval().requires_grad_(False)
        vae.config = replace(vae.config, scaling_factor=1.0)
        spread = float(encode_pool(vae, pictures[:BLOCK]).float().std())
        vae.config = replace(vae.config, scaling_factor=round(1 / spread, 5))
        return vae

    def _pictures(self) -> NDArray[np.uint8]:
        count = self.recipe.pictures.vae
        with tqdm(total=count, desc="pictures", mininterval=5) as progress:
            return replace(self.pool, count=count).on_disk(self.folder, progress.update)

    def _latents(self, vae: AutoencoderKL, pool: Pool) -> NDArray[np.float16]:
        """The latents of a pool, (count, C, h, w), encoded once."""
        path = self.folder / f"latents-{pool.split}-{_fingerprint(vae)}.npy"
        if not path.exists():
            blocks = []
            with tqdm(total=pool.count, desc=path.stem, mininterval=5) as progress:
                for first in range(0, pool.count, BLOCK):
                    pictures = np.stack(list(pool.pictures(range(first, min(first + BLOCK, pool.count)))))
                    blocks.append(encode_pool(vae, pictures).numpy())
                    progress.update(len(pictures))
            unfinished = path.with_suffix(".part.npy")
            np.save(unfinished, np.concatenate(blocks))
            unfinished.rename(path)
        stored: NDArray[np.float16] = np.load(path)
        return stored

    def _train(self, stage: Stage, settings: LoopSettings) -> None:
        """Train a stage and put its averaged weights in place."""
        averaged: dict[str, Tensor] = train_stage(stage, settings, self.folder, resume=self.resume)
        stage.modules.load_state_dict(averaged)


def _fingerprint(module: nn.Module) -> str:
    """A few letters that change with the weights."""
    total = hashlib.sha256()
    for value in module.state_dict().values():
        total.update(value.cpu().numpy().tobytes())
    return total.hexdigest()[:8]
