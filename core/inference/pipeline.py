"""From a request to images, for scripts, the command line and the page.

tokenise -> text encoder -> start noise -> schedule -> sampler -> denoiser with guidance -> VAE -> image
and recipe; an init image is first encoded by the VAE

The networks are in core/inference/model.py, one run in core/inference/run.py.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor

from core.errors import UserError
from core.images.source_images import ImageSource, Inputs, read_picture
from core.inference.model import Model
from core.inference.plan import plan_run
from core.inference.run import Result, Run
from core.models.build import Coder
from core.models.clip import CLIPTextEncoder
from core.models.unet import UNet
from core.plugins import current
from core.prompts.tokenizer import TokenCount
from core.request.model_defaults import Defaults
from core.request.request import Request, branch_request
from core.request.settings import Branch
from core.sampling.schedule import NoiseSchedule

if TYPE_CHECKING:
    from core.inference.trajectory import Trajectory


class Pipeline:
    """Turns requests into images with a loaded `model`. `Pipeline.load` makes one."""

    def __init__(self, model: Model) -> None:
        self.model = model

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
        """Load a diffusers folder, a .safetensors or a .ckpt file, by path or by name ("tiny", or a name in
        data/models). `about` says what was found.

        device: "cpu", "cuda", "mps"; the best available one when None. dtype: "float32", "float16",
        "bfloat16"; when None float16 on an accelerator, and on a CPU bfloat16 if the hardware supports it,
        else float32: `about` says which and why. vae: a file or folder with a VAE to use instead of the
        model's own. ema: use the averaged (EMA) weights of the UNet if the file has them. memory: "full",
        "offload" or "sequential" (core/inference/offload.py); when None the first that fits in memory.
        Raises UserError, also for damaged files.
        """
        return cls(Model.load(source, device=device, dtype=dtype, vae=vae, ema=ema, memory=memory))

    def stream(
        self,
        request: Request | None = None,
        *,
        image: ImageSource | None = None,
        mask: ImageSource | None = None,
        cancel: threading.Event | None = None,
        keep_steps: bool = True,
        **fields: Any,
    ) -> Run:
        """A run of `request`, or of a Request of `fields`: iterate over it for its steps.

        image: the init image, a PIL image or a file; mask: white where it is repainted. When `cancel` is set,
        the next evaluation of the network raises Cancelled. Without `keep_steps` only the last step stays in
        memory. Raises UserError for a bad request and for images that cannot be used.
        """
        if request is not None and fields:
            raise TypeError("give a request or its fields, not both")
        asked = Request.from_mapping(fields) if request is None else request
        self.model.check_clip_skip(asked.clip_skip)
        inputs = Inputs.read(image, mask)
        given = None if inputs is None else inputs.given
        settings = asked.resolve(self.model.defaults, current.registry(), given)
        return Run(
            self.model,
            asked,
            plan_run(settings, self.model.noise_schedule, current.registry()),
            inputs,
            cancel=cancel,
            keep_steps=keep_steps,
        )

    def branch(
        self,
        trajectory: Trajectory,
        step: int,
        request: Request | None = None,
        *,
        picture: ImageSource | None = None,
        cancel: threading.Event | None = None,
        keep_steps: bool = True,
        **changes: Any,
    ) -> Run:
        """A run that continues from the state after `step` steps of another: 0 is its start, and the last
        step of a stopped run continues that run.

        `changes` are the fields to change; or `request` has all fields, and those left open are taken from
        the parent run. Images, size and batch cannot change. If schedule, steps and sigmas do not change, the
        rest of the grid is run, else the request's own levels below that of the state. picture: an image that
        the parent made, needed only if it was pasted into a larger one. Raises UserError.
        """
        if request is not None and changes:
            raise TypeError("give a request or changes, not both")
        branch = Branch(step, trajectory.settings)
        made = len(trajectory.steps)
        if step > made or (step == made and trajectory.sigma(made) == 0):
            raise UserError(f"branch after step {step}: the run has {made} steps; choose an earlier step")
        asked = branch_request(branch, trajectory.settings, request, changes)
        self.model.check_clip_skip(asked.clip_skip)
        settings = asked.resolve(self.model.defaults, current.registry(), branch.given)
        paste = trajectory.paste
        if picture is None and paste is not None and not paste.whole:
            raise UserError("the run was pasted into a larger image: give the image that it saved")
        return Run(
            self.model,
            asked,
            plan_run(settings, self.model.noise_schedule, current.registry(), trajectory.sigma(step)),
            origin=trajectory,
            picture=None if picture is None else read_picture(picture),
            cancel=cancel,
            keep_steps=keep_steps,
        )

    def generate(self, request: Request | None = None, **fields: Any) -> Result:
        """Run to the end and decode. Arguments and errors as in `stream`."""
        return self.stream(request, **fields).result()

    @property
    def name(self) -> str:
        """The model's name."""
        return self.model.name

    @property
    def about(self) -> str:
        """One line about the model's files, memory mode and dtype."""
        return self.model.about

    @property
    def defaults(self) -> Defaults:
        """The model's defaults for fields that a request leaves open."""
        return self.model.defaults

    @property
    def examples(self) -> Sequence[str]:
        """Prompts that show what the model can do."""
        return self.model.examples

    @property
    def subjects(self) -> Sequence[str]:
        """As `Model.subjects`."""
        return self.model.subjects

    def subject_sheet(self) -> bytes:
        """As `Model.subject_sheet`."""
        return self.model.subject_sheet()

    @property
    def noise_schedule(self) -> NoiseSchedule:
        """The noise levels that the model was trained on."""
        return self.model.noise_schedule

    @property
    def device(self) -> torch.device:
        """The device that the model runs on."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of its networks."""
        return self.model.dtype

    @property
    def sha256(self) -> str:
        """The hash of the model's weights, computed from the files at the first call."""
        return self.model.sha256

    @property
    def text_encoder(self) -> CLIPTextEncoder:
        """As `Model.text_encoder`."""
        return self.model.text_encoder

    @property
    def vae(self) -> Coder:
        """As `Model.vae`."""
        return self.model.vae

    @property
    def unet(self) -> UNet:
        """As `Model.unet`."""
        return self.model.unet

    def tokens(self, prompt: str) -> TokenCount:
        """As `Model.tokens`."""
        return self.model.tokens(prompt)

    def encode_prompts(self, *prompts: str, clip_skip: int = 1, emphasis: str = "a1111") -> list[Tensor]:
        """As `Model.encode_prompts`."""
        return self.model.encode_prompts(*prompts, clip_skip=clip_skip, emphasis=emphasis)

    def predict(self, x: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
        """As `Model.predict`."""
        return self.model.predict(x, timesteps, context)

    def decode(self, latents: Tensor) -> list[Image.Image]:
        """As `Model.decode`."""
        return self.model.decode(latents)

    def encode(self, pictures: Tensor) -> Tensor:
        """As `Model.encode`."""
        return self.model.encode(pictures)

    def preview(self, latents: Tensor) -> list[Image.Image]:
        """As `Model.preview`."""
        return self.model.preview(latents)

    def forget(self) -> None:
        """As `Model.forget`."""
        self.model.forget()
