"""From a request to pictures: the one path that scripts, the command line and the page all take.

tokenise -> text encoder -> start noise -> schedule -> sampler -> denoiser with guidance -> VAE -> picture
and recipe; a run that starts from a picture comes to its latents through the VAE first

The model is here, one run of it in core/inference/run.py.
"""

from __future__ import annotations

import hashlib
import platform
import threading
import time
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor

from core.device import dtype_words, find_device, find_dtype
from core.errors import UserError
from core.images.source_images import Inputs, Source, read_picture
from core.images.tensors import to_images
from core.inference.offload import Networks, find_memory
from core.inference.preview import Previewer
from core.inference.preview_fit import preview_map
from core.inference.run import Result, Run
from core.lru import Remembered
from core.models.build import Coder, make_coder, unet_class
from core.models.clip import CLIPTextEncoder, weigh
from core.models.config import PointsConfig
from core.models.point_model import NO_COLOURS
from core.models.unet import UNet
from core.plugins import current
from core.prompts.tokenizer import END, OPENCLIP_PAD, Chunk, TokenCount, Tokenizer
from core.recipes.recipe import ModelRef, Recipe
from core.request.request import Request, branch_request
from core.request.settings import Branch, Settings
from core.weights.find import find_model
from core.weights.model_files import ModelFiles, open_model
from core.weights.parts import StoredNetwork

if TYPE_CHECKING:
    from core.inference.trajectory import Trajectory


class Pipeline:
    """A loaded model. `Pipeline.load` makes one; runs do not change it, so several may go on at once.

    The text states and latents of the last prompts and pictures are remembered, a few MB. Who changes the
    weights of a loaded model calls `forget`.
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
        # What stands in a VAE's place without weights gains nothing from few digits, and would lose levels.
        weights = networks.vae.module.parameters()
        self._coder_dtype = next((weight.dtype for weight in weights), torch.float32)
        self._texts, self._latents = Remembered(16), Remembered(8)
        self.load_seconds = 0.0
        self.noise_schedule = self.config.noise.schedule()

    @property
    def text_encoder(self) -> CLIPTextEncoder:
        """The network itself. In a run go through `encode_prompts`: it keeps the weights while it runs."""
        return self.networks.look(self.networks.text_encoder)

    @property
    def vae(self) -> Coder:
        """The network itself. In a run go through `encode` and `decode`."""
        return self.networks.look(self.networks.vae)

    @property
    def unet(self) -> UNet:
        """The network itself. In a run go through `predict`."""
        return self.networks.look(self.networks.unet)

    @property
    def sha256(self) -> str:
        """The hash of the model's weights. The files are read for it when it is first wanted."""
        return self.files.sha256

    @property
    def model_ref(self) -> ModelRef:
        """What a recipe says of the model."""
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
    ) -> Pipeline:
        """A model: a folder as diffusers writes it, or a .safetensors or .ckpt file; by its path or its name
        ("tiny", or one in data/models). `about` says what was found.

        device: "cpu", "cuda", "mps"; the best one that is there when None. dtype: "float32", "float16",
        "bfloat16"; when None float16 on an accelerator, and on a CPU bfloat16 where it computes that by
        itself, else float32: `about` says which and why. vae: a file or folder with a VAE to take instead of
        the model's own. ema: take the averaged copy of the UNet that some files hold. memory: "full",
        "offload" or "sequential" (core/inference/offload.py); when None the first of them that there is room
        for. Raises UserError, also for files that are damaged.
        """
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
        )
        if max(tokenizer.vocab.values()) >= config.text.vocab_size:
            raise UserError(
                f"The tokenizer in {files.tokenizer} is of another model: it knows more tokens than "
                f"{files.notes.name}'s text encoder."
            )
        networks = Networks(
            StoredNetwork(CLIPTextEncoder, config.text, files.text, where, kind),
            StoredNetwork(make_coder, config.vae, files.vae, where, kind),
            StoredNetwork(unet_class(config.vae), config.unet, files.unet, where, kind),
            where,
            mode,
        )
        pipeline = cls(files, tokenizer, networks, where, kind)
        pipeline.about = f"{files.about}; memory {networks.words}; runs in {dtype_words(dtype, where)}"
        pipeline.load_seconds = time.perf_counter() - began
        return pipeline

    def tokens(self, prompt: str) -> TokenCount:
        """How many tokens a prompt takes, and which of its words the model has not learned.

        Raises UserError for weights that cannot be used.
        """
        return self.tokenizer.count(prompt)

    def stream(
        self,
        request: Request | None = None,
        *,
        image: Source | None = None,
        mask: Source | None = None,
        cancel: threading.Event | None = None,
        keep_steps: bool = True,
        **fields: Any,
    ) -> Run:
        """A run of `request`, or of the Request that `fields` make: iterate over it for its steps.

        image: a picture to start from, a PIL image or a file; mask: white where it is to be painted anew.
        When `cancel` is set, the next evaluation of the network raises Cancelled. Without `keep_steps` only
        the last step stays in memory. Raises UserError for a bad request and for pictures that cannot be
        used.
        """
        if request is not None and fields:
            raise TypeError("give a request or its fields, not both")
        asked = Request.from_mapping(fields) if request is None else request
        self._check_clip_skip(asked.clip_skip)
        inputs = Inputs.read(image, mask)
        given = None if inputs is None else inputs.given
        settings = asked.resolve(self.defaults, current.registry(), given)
        return Run(self, asked, settings, inputs, cancel=cancel, keep_steps=keep_steps)

    def branch(
        self,
        trajectory: Trajectory,
        step: int,
        request: Request | None = None,
        *,
        picture: Source | None = None,
        cancel: threading.Event | None = None,
        keep_steps: bool = True,
        **changes: Any,
    ) -> Run:
        """A run that goes on from the state after `step` steps of another: 0 for its start, the last one for
        what was due in a run that was stopped.

        `changes` are what is to be otherwise; or `request` says everything, and what it leaves open is as it
        was. Pictures, size and batch stay. With the schedule, steps and sigmas as they were the rest of the
        grid is run, else the request's own levels below that of the state. picture: one that the run has
        made, needed only where it is pasted back into a larger one. Raises UserError.
        """
        if request is not None and changes:
            raise TypeError("give a request or what changes, not both")
        branch = Branch(step, trajectory.settings)
        made = len(trajectory.steps)
        if step > made or (step == made and trajectory.sigma(made) == 0):
            raise UserError(f"branch after step {step}: {made} were made; choose one before")
        asked = branch_request(branch, trajectory.settings, request, changes)
        self._check_clip_skip(asked.clip_skip)
        settings = asked.resolve(self.defaults, current.registry(), branch.given)
        paste = trajectory.paste
        if picture is None and paste is not None and not paste.whole:
            raise UserError("the run was pasted back into a larger picture: give the picture that it made")
        return Run(
            self,
            asked,
            settings,
            origin=trajectory,
            picture=None if picture is None else read_picture(picture),
            cancel=cancel,
            keep_steps=keep_steps,
        )

    def generate(self, request: Request | None = None, **fields: Any) -> Result:
        """Run to the end and decode. Arguments and errors are those of `stream`."""
        return self.stream(request, **fields).result()

    def _check_clip_skip(self, clip_skip: int) -> None:
        layers = self.config.text.num_hidden_layers
        if clip_skip > layers:
            raise UserError(f"clip skip {clip_skip}: the text encoder of {self.name} has {layers} layers.")

    @torch.no_grad()
    def encode_prompts(self, *prompts: str, clip_skip: int = 1) -> list[Tensor]:
        """Text states (1, T, D) of each prompt, all of the length of the longest: chunks side by side.

        clip_skip: the layer that the encoder stops at, counted from the last one. Raises UserError.
        """
        self._check_clip_skip(clip_skip)
        chunks = [self.tokenizer.chunks(prompt) for prompt in prompts]
        longest = max(map(len, chunks))
        empty = self.tokenizer.chunks("")
        return [self._encode(own + empty * (longest - len(own)), clip_skip) for own in chunks]

    def _encode(self, chunks: list[Chunk], clip_skip: int) -> Tensor:
        key = (clip_skip, *((tuple(chunk.ids), tuple(chunk.weights)) for chunk in chunks))
        return self._texts(key, lambda: self._encode_anew(chunks, clip_skip))

    def _encode_anew(self, chunks: list[Chunk], clip_skip: int) -> Tensor:
        ids = torch.tensor([chunk.ids for chunk in chunks], device=self.device)
        weights = torch.tensor([chunk.weights for chunk in chunks], device=self.device)
        states = self.networks.run(self.networks.text_encoder, lambda text: text(ids, clip_skip - 1))
        states = weigh(states, weights)  # (chunks, T, D)
        return states.reshape(1, -1, states.shape[-1])

    @torch.no_grad()
    def predict(self, x: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
        """What the UNet says of scaled states (B, C, h, w) in its dtype at timesteps (B,), with text states
        (B, T, D): its prediction, of x's shape. Raises UserError where memory is short.
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
    ) -> tuple[Tensor, Tensor]:
        """The same with the deep features behind it, and approximately where that is asked: see
        `UNet.evaluate`.
        """
        return self.networks.run(
            self.networks.unet,
            lambda unet: unet.evaluate(x, timesteps, context, deep=deep, merging=merging),
        )

    @torch.no_grad()
    def decode(self, latents: Tensor) -> list[Image.Image]:
        """Pictures of scaled latents (B, C, h, w), by the VAE, one at a time: a batch changes no picture.
        Raises UserError when the decoder overflows, and where memory is short.
        """
        x = latents.to(self.device, self._coder_dtype)
        return [to_images(self._decode_one(x[i : i + 1]))[0] for i in range(len(x))]

    @torch.no_grad()
    def encode(self, pictures: Tensor) -> Tensor:
        """Scaled latents (B, C, h, w), float32 on the device, of pictures (B, 3, H, W) in [-1, 1]: the VAE's
        mean, one picture at a time. Raises UserError when the encoder overflows, and where memory is short.
        """
        return torch.cat([self._encode_one(pictures[i : i + 1]) for i in range(len(pictures))])

    def _encode_one(self, picture: Tensor) -> Tensor:
        content = picture.cpu().contiguous().view(torch.uint8).numpy().tobytes()
        key = (picture.dtype, picture.shape, hashlib.sha256(content).digest())
        return self._latents(key, lambda: self._encode_one_anew(picture))

    def _encode_one_anew(self, picture: Tensor) -> Tensor:
        x = picture.to(self.device, self._coder_dtype)
        latent = self.networks.run(self.networks.vae, lambda vae: vae.encode(x)).float().contiguous()
        if not bool(latent.isfinite().all()):
            raise UserError("The VAE gave values that are not numbers; try dtype float32.")
        return latent

    def forget(self) -> None:
        """Let go of the prompts and pictures that are remembered."""
        self._texts.forget()
        self._latents.forget()

    def _decode_one(self, latent: Tensor) -> Tensor:
        """(1, C, h, w) -> (1, 3, H, W). Raises UserError when the decoder overflows, as SD's does in
        float16.
        """
        picture = self.networks.run(self.networks.vae, lambda vae: vae.decode(latent))
        if not bool(picture.isfinite().all()):
            raise UserError("The VAE gave values that are not numbers; try dtype float32.")
        return picture

    def preview(self, latents: Tensor) -> list[Image.Image]:
        """Quick pictures of latents (B, C, h, w), without the VAE."""
        return self.previewer(latents)

    @cached_property
    def previewer(self) -> Previewer:
        """The linear map behind previews: the model's own, or one that is fitted to its VAE and kept."""
        drawn = NO_COLOURS if isinstance(self.config.vae, PointsConfig) else None
        rows = drawn or self.notes.preview or preview_map(self)
        return Previewer(rows, self.config.vae.reduction)

    def recipe(self, settings: Settings) -> Recipe:
        """What goes into the picture of these settings (of one image)."""
        versions = {name: metadata.version(name) for name in ("latentcanvas", "torch")}
        return Recipe.of(
            settings,
            current.registry(),
            model=self.model_ref,
            device=str(self.device),
            dtype=str(self.dtype).removeprefix("torch."),
            versions=versions | {"python": platform.python_version()},
        )
