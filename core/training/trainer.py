"""Trains a model from a recipe: vocabulary, text encoder, VAE, latents, UNet, model folder.

Every stage leaves its result in the run's folder, and a finished stage is not repeated, so a run that was
stopped anywhere continues with `resume`. Which stages there are, the recipe says: a model of pixels or points
has no VAE to train, and one without words no text encoder.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from core.errors import UserError
from core.files import check_writable, plain_errors, write_whole
from core.models.build import Coder, make_coder, unet_class
from core.models.clip import CLIPTextEncoder
from core.models.unet import UNet
from core.models.vae import AutoencoderKL
from core.plugins import current
from core.prompts.tokenizer import Tokenizer
from core.scenes.pool import Pool
from core.scenes.vocabulary import learn_vocabulary, save_tokenizer
from core.training.model_export import save_model
from core.training.processes import Processes, together
from core.training.progress import Watch
from core.training.resume import RECIPE, only_one
from core.training.samples import SampleRequest
from core.training.sets import Data, PictureSet, PointSet, Storybook, open_set
from core.training.sets.storybook import DrawnLatents, DrawnPictures
from core.training.stage import Stage
from core.training.stages import autoencoder, text_encoder
from core.training.stages.autoencoder import VAEStage
from core.training.stages.diffusion import DiffusionStage, Latents, encode_pool
from core.training.stages.text_encoder import TextStage
from core.training.training_loop import LoopSettings, train_stage
from core.training.training_recipe import TrainingRecipe, read_recipe

BLOCK = 2048
SAMPLES = 16
CHANGEABLE = ("name", "train", "defaults", "weights")


def train(
    path: Path,
    overrides: Sequence[str] = (),
    resume: bool = False,
    out: Path | None = None,
    device: str | None = None,
    stop: threading.Event | None = None,
    watch: Watch | None = None,
) -> Path:
    """Train the recipe at `path` and return the folder of the finished model, `out/model`.

    path: a recipe in TOML, or the recipe.json of a run, whose folder is then `out` unless another is named.
    device: "cpu", "cuda", "mps"; the best one that is there when None. Without `resume` a folder that already
    holds a run is refused, so that nothing is lost. `watch` is told how it goes. Raises UserError, also when
    the folder is in training elsewhere; Cancelled when `stop` is set, after a checkpoint from which `resume`
    continues. Processes that `accelerate launch` started train it together.
    """
    with together(device) as processes, contextlib.ExitStack() as held:
        recipe = read_recipe(path, overrides)
        _check_names(recipe)
        folder = _folder(path, recipe) if out is None else out
        processes.alone(partial(_refuse_another, folder, resume))
        data = processes.each(partial(open_set, recipe, "train"))
        processes.alone(partial(_claim, recipe, folder, held))
        make = partial(
            TrainingRun, recipe, folder, resume, data=data, stop=stop, watch=watch, processes=processes
        )
        run = processes.each(make)
        text = run.text_encoder()
        coder = run.coder()
        unet = run.unet(text, coder)
        model = folder / "model"
        parts = (run.tokenizer, text.cpu(), coder.cpu(), unet.cpu())
        processes.alone(partial(save_model, model, recipe, *parts, data))
        return model


def _check_names(recipe: TrainingRecipe) -> None:
    """Raises UserError for a sampler or schedule that is not there, before samples are to be drawn by it."""
    registry = current.registry()
    registry.sampler(recipe.defaults.sampler)
    registry.schedule(recipe.defaults.schedule)


def _refuse_another(folder: Path, resume: bool) -> None:
    if (folder / RECIPE).exists() and not resume:
        raise UserError(
            f"{folder} already holds a run: add --resume to go on, or name another folder with --out."
        )


def _folder(path: Path, recipe: TrainingRecipe) -> Path:
    return path.parent if path.name == RECIPE else Path("runs") / recipe.name


def _claim(recipe: TrainingRecipe, folder: Path, held: contextlib.ExitStack) -> None:
    """held: lets go of the folder when it is closed."""
    check_writable(folder)
    held.enter_context(only_one(folder))
    _remember(recipe, folder / RECIPE)


def _remember(recipe: TrainingRecipe, path: Path) -> None:
    """Write down what is trained, every value of it. Raises UserError when a resumed run is another model."""
    values = dataclasses.asdict(recipe)
    if path.exists():
        # Read as a recipe: what an earlier version did not know has its default.
        before = dataclasses.asdict(read_recipe(path))
        changed = [key for key in values if values[key] != before[key] and key not in CHANGEABLE]
        if changed:
            raise UserError(
                f"{path.parent} holds a run with another {changed[0]}: name another folder with --out."
            )
    write_whole(path, (json.dumps(values, indent=2) + "\n").encode())


class TrainingRun:
    """The stages of one run, in their order."""

    def __init__(
        self,
        recipe: TrainingRecipe,
        folder: Path,
        resume: bool,
        *,
        data: Data | None = None,
        stop: threading.Event | None = None,
        watch: Watch | None = None,
        processes: Processes | None = None,
    ) -> None:
        self.recipe, self.folder, self.resume = recipe, folder, resume
        self.stop, self.watch = stop, watch
        self.processes = Processes() if processes is None else processes
        self.device = self.processes.device
        self.data = open_set(recipe, "train") if data is None else data
        self.test = open_set(recipe, "test")
        self.tokenizer, self.vocabulary_size = self._vocabulary()

    def _vocabulary(self) -> tuple[Tokenizer, int]:
        """The tokenizer, learned from captions when the run begins and kept in its folder."""
        wanted, data, folder = self.recipe.vocabulary, self.data, self.folder / "tokenizer"
        words = frozenset[str]() if self.recipe.words == "none" else data.words()

        def stored() -> Tokenizer:
            if not (folder / "merges.txt").exists():
                captions = (data.caption(i % data.count, "vocabulary") for i in range(wanted.captions))
                vocab, merges = learn_vocabulary(captions, wanted.size)
                save_tokenizer(Tokenizer(vocab, merges, wanted.length, words), folder)
            return Tokenizer.load(folder, wanted.length, words)

        tokenizer = self.processes.first(stored)
        return tokenizer, len(tokenizer.vocab)

    def text_encoder(self) -> CLIPTextEncoder:
        """The text encoder: trained, unless the UNet's stage does that, or it has nothing to learn."""
        torch.manual_seed(self.recipe.seed)
        size = self.vocabulary_size
        config = replace(self.recipe.text, vocab_size=size, bos_token_id=size - 2, eos_token_id=size - 1)
        encoder = CLIPTextEncoder(config)
        text_encoder.initialise(encoder)
        settings = self.recipe.train.text
        if self.recipe.words == "joint":
            return encoder.to(self.device)
        if self.recipe.words == "read" and settings is not None:
            stage = TextStage(
                encoder,
                self.tokenizer,
                batch=settings.batch,
                seed=self.recipe.seed,
                precision=settings.precision,
                share=self.processes.share,
            )
            stage.modules.to(self.device)
            self._train(stage, settings)
        return encoder.to(self.device).eval().requires_grad_(False)

    def unet(self, encoder: CLIPTextEncoder, coder: Coder) -> UNet:
        """The UNet, trained on the VAE's latents."""
        recipe, settings = self.recipe, self.recipe.train.unet
        latents, test = self.latents_of(coder, self.data), self.latents_of(coder, self.test)
        torch.manual_seed(recipe.seed)
        unet = unet_class(recipe.coder)(recipe.unet)
        nn.init.zeros_(unet.conv_out.weight)
        unet.to(self.device).to(memory_format=torch.channels_last)  # pyrefly: ignore[no-matching-overload]
        stage = DiffusionStage(
            unet, encoder, self.tokenizer, recipe.noise, latents, self.data,
            (test, self.test), recipe.train.unet_loss, batch=settings.batch,
            joint=recipe.words == "joint", wordless=recipe.words == "none",
            precision=settings.precision, coder=coder, asked=self._asked(),
            share=self.processes.share,
        )  # fmt: skip
        self._train(stage, settings)
        encoder.eval().requires_grad_(False)
        return unet.eval()

    def _asked(self) -> SampleRequest:
        """What samples are drawn of: captions of the data, or nothing where there are no words."""
        if self.recipe.data.kind == "points":
            return SampleRequest(self.recipe.defaults, ("",), self.recipe.seed)
        # A folder of pictures need not have any captions.
        examples = ("",) if self.recipe.words == "none" else self.data.examples() or ("",)
        texts = tuple(examples[i % len(examples)] for i in range(SAMPLES))
        return SampleRequest(self.recipe.defaults, texts, self.recipe.seed)

    def coder(self) -> Coder:
        """The trained VAE, scaled so that latents have unit variance; or what stands in its place."""
        settings = self.recipe.train.vae
        if self.recipe.latents.kind != "vae" or settings is None:
            return make_coder(self.recipe.coder)
        torch.manual_seed(self.recipe.seed)
        vae = AutoencoderKL(self.recipe.vae)
        autoencoder.initialise(vae)
        vae.to(self.device)
        pictures = self._pictures()
        stage = VAEStage(
            vae,
            pictures,
            self.recipe.train.vae_loss,
            batch=settings.batch,
            steps=settings.steps,
            seed=self.recipe.seed,
            held_out=_first(self.test, 64) if isinstance(self.test, PictureSet | Storybook) else None,
            precision=settings.precision,
            share=self.processes.share,
        )
        self._train(stage, settings)
        vae.eval().requires_grad_(False)
        vae.config = replace(vae.config, scaling_factor=1.0)
        spread = float(encode_pool(vae, pictures[:BLOCK]).float().std())
        vae.config = replace(vae.config, scaling_factor=round(self.recipe.latents.deviation / spread, 5))
        return vae

    def _pictures(self) -> NDArray[np.uint8] | DrawnPictures:
        """What the VAE is trained on, (N, size, size, 3)."""
        count = self.recipe.pictures.vae
        if isinstance(self.data, Storybook):
            return DrawnPictures(replace(self.data, count=count))
        if isinstance(self.data, PictureSet):
            return _first(self.data, count)
        assert isinstance(self.data, Pool)
        pool = replace(self.data, count=count)
        with tqdm(total=count, desc="pictures", mininterval=5, disable=not self.processes.main) as progress:
            return self.processes.first(lambda: pool.on_disk(self.folder, progress.update))

    def latents_of(self, coder: Coder, data: Data) -> Latents | DrawnLatents:
        """The latents of a set, (count, C, h, w), encoded once."""
        if isinstance(data, PointSet):
            return data.latents()
        if isinstance(data, Storybook):
            assert isinstance(coder, AutoencoderKL)
            return DrawnLatents(data, coder, self.recipe.train.vae_loss.averaged)
        path = self.folder / f"latents-{data.name}-{_fingerprint(coder)}.npy"

        def stored() -> Latents:
            if not path.exists():
                _encode(coder, data, path)
            found: Latents = np.load(path)
            return found

        return self.processes.first(stored)

    def _train(self, stage: Stage, settings: LoopSettings) -> None:
        """Train a stage and put its averaged weights in place."""
        averaged: dict[str, Tensor] = train_stage(
            stage,
            settings,
            self.folder,
            resume=self.resume,
            stop=self.stop,
            watch=self.watch,
            processes=self.processes,
        )
        stage.modules.load_state_dict(averaged)


def _encode(coder: Coder, data: Pool | PictureSet, path: Path) -> None:
    """Write the latents of a whole set to `path`."""
    blocks = []
    with tqdm(total=data.count, desc=path.stem, mininterval=5) as progress:
        for first in range(0, data.count, BLOCK):
            pictures = np.stack(list(data.pictures(range(first, min(first + BLOCK, data.count)))))
            blocks.append(encode_pool(coder, pictures).numpy())
            progress.update(len(pictures))
    unfinished = path.with_suffix(".part.npy")
    with plain_errors(path):
        np.save(unfinished, np.concatenate(blocks))
        unfinished.rename(path)


def _first(data: PictureSet | Storybook, count: int) -> NDArray[np.uint8]:
    """The first pictures of a set, (up to `count`, size, size, 3)."""
    return np.stack(list(data.pictures(range(min(count, data.count)))))


def _fingerprint(module: nn.Module) -> str:
    """A few letters that change with the weights."""
    total = hashlib.sha256()
    for value in module.state_dict().values():
        total.update(value.cpu().numpy().tobytes())
    return total.hexdigest()[:8]
