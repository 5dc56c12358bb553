"""What determines an image: the `Request` that a user makes, resolved to the `Settings` that run.

A `Request` may leave fields open for the model or the sampler to choose; `Request.resolve` fills them in and
returns `Settings`, where nothing is open. Both check their values when they are made. Every error is a
`UserError` with the field, the value and what is allowed.

This module never imports torch: listing commands and the page's form use it before torch is loaded.
"""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from core.checks import OptionValue, check_keys
from core.errors import UserError
from core.request import aliases
from core.request.fields import RequestFields
from core.request.image_settings import InputInfo, check_given, picture_values
from core.request.model_defaults import Defaults
from core.request.settings import Branch, Settings, check_record

if TYPE_CHECKING:
    from core.sampling.registry import Registry, SamplerInfo


_CHOICES = ("sampler", "schedule", "steps", "cfg_scale", "seed")


@dataclass(frozen=True, kw_only=True)
class Request(RequestFields):
    """What a user asks for. None leaves a field to the model's default (the seed: random).

    Ranges: steps 1 to 1000, cfg_scale 0 to 100, width and height 1 to 2048 and as the model's `Defaults` say
    (Stable Diffusion: multiples of 8 from 64), batch 1 to 64, seed 0 to 2**63 - 1 - batch. `sigmas` are noise
    levels in place of a schedule; they set the number of steps. `clip_skip`, 1 to 100, is the layer of the
    text encoder to stop at, counted from the last. Prompts may have weights
    (core/prompts/emphasis.py); `emphasis`, a1111, no_norm or comfy, is how they act (core/models/clip.py).
    Samplers and schedules may have the names of other programs (core/request/aliases.py). `options` are the
    sampler's own, checked in `resolve`. Raises UserError.

    Guidance: `cfg_rescale`, 0 (off) to 1, reduces the contrast that guidance adds; guidance is on from
    `cfg_from` to `cfg_to`, fractions of the steps.

    Approximations that save time (docs/savings.md): with `feature_reuse`, 1 (off) to 20, only one in that
    many evaluations runs the whole network; `token_merging`, 0 (off) to 0.75, is the share of positions that
    the finest self-attention merges.

    The rest is for a run with an init image, which comes with the request: see docs/pictures-in.md.
    `strength`: denoising strength in (0, 1]. `outpaint`: pixels left, right, up and down. `mask_blur`:
    pixels. `only_masked`: pixels around the mask, None for the whole image. The hashes are those of the
    images' pixels; they are set by `resolve`.

    `stop_after`, 1 to 10,000, ends the run after that many steps; its image is the clean estimate of the last
    one. With `branch` the first steps are those of another run (core/request/settings.py), and fields left
    open are taken from it.
    """

    prompt: str = ""
    negative: str = ""
    sampler: str | None = None
    schedule: str | None = None
    steps: int | None = None
    cfg_scale: float | None = None
    width: int | None = None
    height: int | None = None
    batch: int = 1
    seed: int | None = None
    options: Mapping[str, OptionValue] = field(default_factory=dict, hash=False)
    branch: Branch | None = None

    def __post_init__(self) -> None:
        check_record(self, complete=False)

    @classmethod
    def from_mapping(cls, mapping: object) -> Request:
        """A request from a mapping, such as a form, a JSON body or `to_dict`. Raises UserError."""
        return cls(**check_keys("request", mapping, cls))

    @classmethod
    def from_settings(cls, settings: Settings) -> Request:
        """The request that resolves to these settings with any model."""
        return cls(**settings.to_dict())

    def resolve(self, defaults: Defaults, registry: Registry, given: InputInfo | None = None) -> Settings:
        """The settings to run: names looked up, defaults filled in, options checked, a seed drawn.

        The default schedule is the sampler's preferred one if it has one, else the model's. `given` describes
        the images that come with the request. Raises UserError for a name that is not registered, for options
        that the sampler does not have, and for missing images.
        """
        if self.branch is not None:
            filled = _filled(dataclasses.replace(self, branch=None), self.branch.settings, self.branch)
            settings = filled.resolve(defaults, registry, given)
            return dataclasses.replace(settings, branch=self.branch.with_pictures(given))
        check_given(self, given)
        defaults.check_size(self.width, self.height)
        named = aliases.resolve(self.sampler, self.schedule, registry)
        sampler = registry.sampler(named.sampler or defaults.sampler)
        schedule = registry.schedule(named.schedule or sampler.schedule or defaults.schedule)
        _check_alone(sampler, self.batch)
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        for name in ("steps", "cfg_scale", "width", "height"):
            if values[name] is None:
                values[name] = getattr(defaults, name)
        values |= {
            "sampler": sampler.name,
            "schedule": schedule.name,
            "seed": random_seed() if self.seed is None else self.seed,
            "options": sampler.check_options({**named.options, **self.options}),
            "mask_sha256": None,
        }
        if given is not None:
            values |= picture_values(self, defaults, given)
        return Settings(**values)


def random_seed() -> int:
    """A random seed from the system: 32 bits, so it is short and exact in a browser."""
    return secrets.randbelow(2**32)


def _check_alone(sampler: SamplerInfo, batch: int) -> None:
    """An adaptive sampler would choose its steps by all images of a batch; none could be reproduced alone."""
    if sampler.adaptive and batch > 1:
        raise UserError(
            f"sampler {sampler.name} adapts its steps to the image, so it cannot run a batch: "
            "set batch to 1 and run each seed"
        )


def branch_request(
    branch: Branch, known: Settings, request: Request | None, changes: Mapping[str, Any]
) -> Request:
    """The request of a run that continues at `branch`: that of `known`, the parent's settings, with
    `changes`; or `request` with its open fields from `known`. Raises UserError for changes that a branch
    cannot make.
    """
    if request is not None:
        return dataclasses.replace(_filled(request, known, branch), branch=branch)
    branch.check_unchanged(changes)
    values = known.to_dict() | {"branch": None, "stop_after": None}
    if changes.get("sampler", known.sampler) != known.sampler:
        del values["options"]
    if any(name in changes for name in ("schedule", "steps", "sigmas")):
        values.pop("sigmas", None)
    if "sigmas" in changes:
        del values["steps"]
    asked = Request.from_mapping({**values, **changes})
    return dataclasses.replace(asked, **branch.shared, branch=branch)


def _filled(request: Request, known: Settings, branch: Branch) -> Request:
    """The request with its open fields from `known`, and the fields that a branch shares with its parent."""
    gaps = branch.shared
    for name in _CHOICES:
        if getattr(request, name) is None:
            gaps[name] = getattr(known, name)
    if request.sampler is None:
        gaps["options"] = {**known.options, **request.options}
    if request.schedule is None and request.steps is None and request.sigmas is None:
        gaps["sigmas"] = known.sigmas
    return dataclasses.replace(request, **gaps)
