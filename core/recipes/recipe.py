"""A recipe: everything that determines one image, and what it was made with."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from core.checks import check_keys, check_sha256, check_text
from core.errors import UserError
from core.request.settings import Settings

if TYPE_CHECKING:
    from core.sampling.registry import Registry


FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class ModelRef:
    """Which model: its name, and the SHA-256 of its weights in 64 lower-case hexadecimal digits.

    vae_sha256: the same of a VAE that replaced the model's own, or empty. ema: whether the UNet is
    the averaged (EMA) copy that some checkpoints also hold.
    """

    name: str
    sha256: str
    vae_sha256: str = ""
    ema: bool = False

    def __post_init__(self) -> None:
        check_text("model name", self.name, empty=False)
        check_sha256("model sha256", self.sha256)
        if self.vae_sha256 != "":
            check_sha256("model vae_sha256", self.vae_sha256)
        if not isinstance(self.ema, bool):
            raise UserError(f"model ema {self.ema!r}: must be true or false")

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, without those at their defaults."""
        fields = dataclasses.asdict(self)
        return {name: value for name, value in fields.items() if value not in ("", False)}


@dataclass(frozen=True, kw_only=True)
class PluginRef:
    """Which plugin: the name of its distribution (or file), and its version, empty if it has none."""

    name: str
    version: str

    def __post_init__(self) -> None:
        check_text("plugin name", self.name)
        check_text("plugin version", self.version)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that determines one image, and what it was made with.

    `settings` has batch 1. `plugin` and `schedule_plugin` name the plugins of sampler and schedule, the
    titles are their display names. `versions` is by package; other programs see only that of "latentcanvas".
    """

    settings: Settings
    model: ModelRef
    plugin: PluginRef
    schedule_plugin: PluginRef
    device: str
    dtype: str
    versions: Mapping[str, str] = field(default_factory=dict, hash=False)
    sampler_title: str = ""
    schedule_title: str = ""

    def __post_init__(self) -> None:
        if self.settings.batch != 1:
            raise UserError(f"recipe: batch {self.settings.batch} must be 1: a recipe describes one image")
        for name in ("device", "dtype"):
            check_text(name, getattr(self, name), empty=False)
        for name in ("sampler_title", "schedule_title"):
            check_text(name.replace("_", " "), getattr(self, name))
        if not isinstance(self.versions, Mapping):
            raise UserError("versions: must be an object of names and values")
        for name, version in self.versions.items():
            check_text(f"version of {check_text('package', name, empty=False)}", version)
        object.__setattr__(self, "versions", dict(self.versions))

    @classmethod
    def of(
        cls,
        settings: Settings,
        registry: Registry,
        *,
        model: ModelRef,
        device: str,
        dtype: str,
        versions: Mapping[str, str],
    ) -> Recipe:
        """The recipe for one image's settings, with plugins and titles from the registry."""
        sampler, schedule = registry.sampler(settings.sampler), registry.schedule(settings.schedule)
        return cls(
            settings=settings,
            model=model,
            plugin=PluginRef(name=sampler.plugin, version=sampler.version),
            schedule_plugin=PluginRef(name=schedule.plugin, version=schedule.version),
            device=device,
            dtype=dtype,
            versions=versions,
            sampler_title=sampler.title,
            schedule_title=schedule.title,
        )

    def to_dict(self) -> dict[str, Any]:
        """The content of the `latentcanvas` chunk."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        nested = {name: dataclasses.asdict(fields[name]) for name in ("plugin", "schedule_plugin")}
        nested["model"] = self.model.to_dict()
        return {"format": FORMAT, **fields, **nested, "settings": self.settings.to_dict()}

    @classmethod
    def from_dict(cls, data: object) -> Recipe:
        """The recipe that `to_dict` wrote. Raises UserError for anything else."""
        if not isinstance(data, Mapping):
            raise UserError("recipe: must be an object of names and values")
        _check_format(data.get("format"))
        values = check_keys("recipe", {key: value for key, value in data.items() if key != "format"}, cls)
        values["settings"] = Settings.from_dict(values["settings"])
        values["model"] = ModelRef(**check_keys("model", values["model"], ModelRef))
        for name in ("plugin", "schedule_plugin"):
            values[name] = PluginRef(**check_keys(name, values[name], PluginRef))
        return cls(**values)


def _check_format(version: object) -> None:
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise UserError("recipe: its format is not given")
    if version > FORMAT:
        raise UserError(f"recipe: its format {version} is newer than this program's; update LatentCanvas")
