"""A loaded model: its networks, with encode, predict, decode and preview."""

from __future__ import annotations

import hashlib
import platform
import time
from functools import cached_property
from importlib import metadata
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from core.device import dtype_words, find_device, find_dtype
from core.errors import UserError
from core.images.tensors import to_images
from core.inference.offload import Networks, find_memory
from core.inference.preview import Previewer
from core.inference.preview_fit import preview_map
from core.lru import TensorCache
from core.models.build import Coder, make_coder, unet_class
from core.models.clip import CLIPTextEncoder, weigh
from core.models.config import PointsConfig
from core.models.point_model import NO_COLOURS
from core.models.unet import UNet
from core.plugins import current
from core.prompts.tokenizer import END, OPENCLIP_PAD, Chunk, TokenCount, Tokenizer
from core.recipes.recipe import ModelRef, Recipe
from core.request.settings import Settings
from core.weights.find import find_model
from core.weights.layouts.model_folder import read_subjects
from core.weights.model_files import ModelFiles, open_model
from core.weights.parts import StoredNetwork


class Model:
    """A loaded model. Runs do not change it, so several may use it at once.

    The prompt embeddings of the last prompts and the latents of the last images are cached, a few MB. Call
    `forget` after changing the weights of a loaded model.
    """

    def __init__(
        self,
        files: ModelFiles,
        tokenizer: Tokenizer,
        networks: Networks,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.files, self.config, self.notes, self.tokenizer = files, files.config, files.notes, tokenizer
        self.networks = networks
        self.name, self.about = self.notes.name, files.about
        self.defaults, self.examples = self.notes.defaults, self.notes.examples
        self.device, self.dtype = device, dtype
        # Models of pixels or points have no VAE weights: half precision would gain nothing and lose levels.
        weights = networks.vae.module.parameters()
        self._coder_dtype = next((weight.dtype for weight in weights), torch.float32)
        self.kept_texts, self.kept_latents = TensorCache(16), TensorCache(8)
        self.load_seconds = 0.0
        self.noise_schedule = self.config.noise.schedule()

    @property
    def text_encoder(self) -> CLIPTextEncoder:
        """The network itself. In a run use `encode_prompts`, which keeps the weights loaded meanwhile."""
        return self.networks.look(self.networks.text_encoder)

    @property
    def vae(self) -> Coder:
        """The network itself. In a run use `encode` and `decode`."""
        return self.networks.look(self.networks.vae)

    @property
    def unet(self) -> UNet:
        """The network itself. In a run use `predict`."""
        return self.networks.look(self.networks.unet)

    @property
    def sha256(self) -> str:
        """The hash of the model's weights, computed from the files at the first call."""
        return self.files.sha256

    @property
    def subjects(self) -> tuple[str, ...]:
        """Phrases for prompts that show what the model can paint; empty for a model that lists none."""
        return self.notes.subjects

    def subject_sheet(self) -> bytes:
        """A PNG with a square image of each subject, one below the other. Raises UserError."""
        return read_subjects(self.files.path)

    @property
    def ref(self) -> ModelRef:
        """The model's entry in a recipe."""
        files = self.files
        return ModelRef(name=self.name, sha256=files.sha256, vae_sha256=files.vae_sha256, ema=files.ema)

    @classmethod
    def load(
        cls,
        source: str | Path = "tiny",
        *,
        device: str | None = None,
        dtype: str | None = None,
        vae: str | Path | None = None,
        ema: bool = False,
        memory: str | None = None,
    ) -> Model:
        """The model of `Pipeline.load`, from the same arguments. Raises UserError."""
        began = time.perf_counter()
        where = find_device(device)
        kind = find_dtype(dtype, where)
        mode = find_memory(memory)
        files = open_model(find_model(source), ema=ema, vae=None if vae is None else Path(vae))
        config, words = files.config, files.notes.words
        tokenizer = Tokenizer.load(
            files.tokenizer,
            config.text.max_position_embeddings,
            None if words is None else frozenset(words),
            pad=OPENCLIP_PAD if config.text.hidden_act == "gelu" else END,
            nearest=files.notes.nearest,
        )
        if max(tokenizer.vocab.values()) >= config.text.vocab_size:
            raise UserError(
                f"The tokenizer in {files.tokenizer} has more tokens than the text encoder of "
                f"{files.notes.name}: put its own vocab.json and merges.txt next to the model."
            )
        networks = Networks(
            StoredNetwork(CLIPTextEncoder, config.text, files.text, where, kind),
            StoredNetwork(make_coder, config.vae, files.vae, where, kind),
            StoredNetwork(unet_class(config.vae), config.unet, files.unet, where, kind),
            where,
            mode,
        )
        model = cls(files, tokenizer, networks, where, kind)
        added = config.text.vocab_size - len(tokenizer.vocab)
        unknown = f"; {added} tokens of its vocabulary have no word in its tokenizer" if added > 0 else ""
        model.about = f"{files.about}{unknown}; memory {networks.words}; runs in {dtype_words(dtype, where)}"
        model.load_seconds = time.perf_counter() - began
        return model

    def tokens(self, prompt: str) -> TokenCount:
        """The token count of a prompt, and its words that the model was not trained on.

        Raises UserError for invalid weights.
        """
        return self.tokenizer.count(prompt)

    def check_clip_skip(self, clip_skip: int) -> None:
        """Refuse a layer that the text encoder does not have. Raises UserError."""
        layers = self.config.text.num_hidden_layers
        if clip_skip > layers:
            raise UserError(f"clip skip {clip_skip}: the text encoder of {self.name} has {layers} layers.")

    @torch.no_grad()
    def encode_prompts(self, *prompts: str, clip_skip: int = 1, emphasis: str = "a1111") -> list[Tensor]:
        """Prompt embeddings (1, T, D) of each prompt, padded to the longest; chunks are concatenated.

        clip_skip: the layer that the encoder stops at, counted from the last one. emphasis: how
        weights act, see `weigh`. Raises UserError.
        """
        self.check_clip_skip(clip_skip)
        chunks = [self.tokenizer.chunks(prompt) for prompt in prompts]
        longest = max(map(len, chunks))
        empty = self.tokenizer.chunks("")
        return [self._encode(own + empty * (longest - len(own)), clip_skip, emphasis) for own in chunks]

    def _encode(self, chunks: list[Chunk], clip_skip: int, emphasis: str) -> Tensor:
        key = (clip_skip, emphasis, *((tuple(chunk.ids), tuple(chunk.weights)) for chunk in chunks))
        return self.kept_texts(key, lambda: self._encode_uncached(chunks, clip_skip, emphasis))

    def _encode_uncached(self, chunks: list[Chunk], clip_skip: int, emphasis: str) -> Tensor:
        weighted = any(weight != 1 for chunk in chunks for weight in chunk.weights)
        empty = None
        if emphasis == "comfy" and weighted:
            empty = self._encode(self.tokenizer.chunks(""), clip_skip, "no_norm")
        ids = torch.tensor([chunk.ids for chunk in chunks], device=self.device)
        weights = torch.tensor([chunk.weights for chunk in chunks], device=self.device)
        states: Tensor = self.networks.run(self.networks.text_encoder, lambda text: text(ids, clip_skip - 1))
        if weighted:
            states = weigh(states, weights, emphasis, empty)  # (chunks, T, D)
        return states.reshape(1, -1, states.shape[-1])

    def latent_shape(self, width: int, height: int) -> tuple[int, int, int]:
        """(C, h, w) of the latent of an image of this size."""
        vae = self.config.vae
        return vae.latent_channels, height // vae.reduction, width // vae.reduction

    @torch.no_grad()
    def predict(self, x: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
        """The UNet's prediction (B, C, h, w) for scaled states (B, C, h, w) in its dtype, timesteps (B,) and
        prompt embeddings (B, T, D). Raises UserError when memory runs out.
        """
        predicted: Tensor = self.networks.run(self.networks.unet, lambda unet: unet(x, timesteps, context))
        return predicted

    @torch.no_grad()
    def evaluate(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor,
        *,
        deep: Tensor | None = None,
        merging: float = 0.0,
        guidance: float = 0.0,
    ) -> tuple[Tensor, Tensor]:
        """The prediction (B, C, h, w), its deep features, and approximations: see `UNet.evaluate`."""
        return self.networks.run(
            self.networks.unet,
            lambda unet: unet.evaluate(x, timesteps, context, deep=deep, merging=merging, guidance=guidance),
        )

    @torch.no_grad()
    def decode(self, latents: Tensor) -> list[Image.Image]:
        """Images of scaled latents (B, C, h, w), by the VAE, one at a time, so that a batch changes no image.
        Raises UserError when the decoder overflows or memory runs out.
        """
        return [to_images(self._decode_one(latents[i : i + 1]))[0] for i in range(len(latents))]

    @torch.no_grad()
    def encode(self, pictures: Tensor) -> Tensor:
        """Scaled latents (B, C, h, w), float32 on the device, of images (B, 3, H, W) in [-1, 1]: the VAE's
        mean, one image at a time. Raises UserError when the encoder overflows or memory runs out.
        """
        return torch.cat([self._encode_one(pictures[i : i + 1]) for i in range(len(pictures))])

    def _encode_one(self, picture: Tensor) -> Tensor:
        content = picture.cpu().contiguous().view(torch.uint8).numpy().tobytes()
        key = (picture.dtype, picture.shape, hashlib.sha256(content).digest())
        return self.kept_latents(key, lambda: self._encode_one_uncached(picture))

    def _encode_one_uncached(self, picture: Tensor) -> Tensor:
        x = picture.to(self.device, self._coder_dtype)
        latent = self.networks.run(self.networks.vae, lambda vae: vae.encode(x)).float().contiguous()
        if not bool(latent.isfinite().all()):
            raise UserError("The VAE gave NaN or infinite values; try dtype float32.")
        return latent

    def forget(self) -> None:
        """Clear the caches of prompt embeddings and latents."""
        self.kept_texts.forget()
        self.kept_latents.forget()

    def _decode_one(self, latent: Tensor) -> Tensor:
        """(1, C, h, w) -> (1, 3, H, W). Raises UserError when the decoder overflows, as SD's does in
        float16.
        """
        picture = self._decode_unchecked(latent)
        if not bool(picture.isfinite().all()):
            raise UserError("The VAE gave NaN or infinite values; try dtype float32.")
        return picture

    @torch.no_grad()
    def _decode_unchecked(self, latents: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, 3, H, W), without a check for NaN."""
        x = latents.to(self.device, self._coder_dtype)
        return self.networks.run(self.networks.vae, lambda vae: vae.decode(x))

    def preview(self, latents: Tensor) -> list[Image.Image]:
        """Quick images of latents (B, C, h, w), without the VAE."""
        return self.previewer(latents)

    @cached_property
    def previewer(self) -> Previewer:
        """The linear map of previews: the model's own, or one fitted to its VAE and cached."""
        drawn = NO_COLOURS if isinstance(self.config.vae, PointsConfig) else None
        rows = drawn or self.notes.preview or preview_map(self.files, self.encode, self._decode_unchecked)
        return Previewer(rows, self.config.vae.reduction)

    def recipe(self, settings: Settings) -> Recipe:
        """The recipe to save in the image of these settings (of one image)."""
        versions = {name: metadata.version(name) for name in ("latentcanvas", "torch")}
        return Recipe.of(
            settings,
            current.registry(),
            model=self.ref,
            device=str(self.device),
            dtype=str(self.dtype).removeprefix("torch."),
            versions=versions | {"python": platform.python_version()},
        )
