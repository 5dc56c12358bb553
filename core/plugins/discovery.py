"""Finds plugins and loads them one at a time, so that a broken one never stops the program.

A plugin is a module with hooks (core/plugins/hookspecs.py), named by an entry point in the group
`latentcanvas` or a .py file in a folder. What it registers is staged first, and committed only when all of it
succeeds; errors are in its status. The built-in samplers and schedules are loaded in the same way.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import re
import sys
import traceback
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from importlib import metadata
from pathlib import Path

import pluggy

from core.errors import UserError
from core.plugins import hookspecs
from core.plugins.staging import FoundPlugin, Staged
from core.sampling.options import RegistrationError
from core.sampling.registry import Info, PluginStatus, Registry

OURS = "latentcanvas"  # the distribution whose plugins are the built-in ones
CHOICE = "LATENTCANVAS_LOAD_PLUGINS"  # installed plugins to load, separated by commas; unset: all of them


class Loader:
    """Loads sources one after the other into a registry."""

    def __init__(self) -> None:
        self.registry = Registry()
        self.loaded: list[object] = []

    def add(self, source: FoundPlugin) -> None:
        """Load a plugin; commit all that it registers, or nothing and report the reason."""
        try:
            with contextlib.redirect_stdout(sys.stderr):  # a plugin that prints must not spoil --json
                staged = self._collect(source)
            status = self._commit(staged)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # SystemExit too: a plugin that ends the program is a broken plugin
            status = replace(source.status(), error=_reason(error), traceback=traceback.format_exc())
        self.registry.plugins.append(status)

    def finish(self) -> Registry:
        """Drop and report preferred schedules that are not registered."""
        for name, info in self.registry.samplers.items():
            if info.schedule is not None and info.schedule not in self.registry.schedules:
                self.registry.samplers[name] = replace(info, schedule=None)
                self._complain(
                    name, f"sampler {name} prefers the schedule {info.schedule!r}, which is not registered"
                )
        return self.registry

    def _complain(self, sampler: str, error: str) -> None:
        for i, status in enumerate(self.registry.plugins):
            if sampler in status.samplers:
                self.registry.plugins[i] = replace(
                    status, error="; ".join(filter(None, (status.error, error)))
                )

    def _collect(self, source: FoundPlugin) -> Staged:
        """Import a plugin and call only its hooks, with its own plugin manager."""
        plugin = source.load()
        if any(plugin is other for other in self.loaded):
            raise RegistrationError(f"{source.module} is already loaded under another entry point name")
        self.loaded.append(plugin)
        manager = pluggy.PluginManager(hookspecs.GROUP)
        manager.add_hookspecs(hookspecs)
        manager.register(plugin, name=source.name)
        manager.check_pending()
        if not manager.get_hookcallers(plugin):
            raise RegistrationError("it has no hooks: decorate `register_samplers(register)` with @hookimpl")
        staged = Staged(source)
        manager.hook.register_samplers(register=staged.sampler)
        manager.hook.register_schedules(register=staged.schedule)
        return staged

    def _commit(self, staged: Staged) -> PluginStatus:
        """Register everything under its name, or under `distribution/name` where the name is taken."""
        samplers, taken = _placed("sampler", staged.source, staged.samplers, self.registry.samplers)
        schedules, taken_too = _placed("schedule", staged.source, staged.schedules, self.registry.schedules)
        self.registry.samplers.update(samplers)
        self.registry.schedules.update(schedules)
        error = "; ".join(taken + taken_too) or None
        return replace(
            staged.source.status(), samplers=tuple(samplers), schedules=tuple(schedules), error=error
        )


def load_plugins(*, directory: Path | None = None, enabled: bool = True) -> Registry:
    """Load the built-in plugins, and when `enabled` the installed ones and the .py files of `directory`.

    The environment variable LATENTCANVAS_LOAD_PLUGINS, if it is set, names the installed plugins (or their
    distributions) to load. Raises UserError when `directory` is not a folder. A broken plugin does not raise:
    see its status.
    """
    loader = Loader()
    wanted = _wanted()
    found = set()
    for source in _installed():
        names = {source.name, _normal(source.distribution)}
        if source.builtin or (enabled and (wanted is None or names & wanted)):
            found |= names
            loader.add(source)
    for name in sorted((wanted or set()) - found) if enabled else ():
        error = f"{CHOICE} names it, but it is not installed"
        loader.registry.plugins.append(PluginStatus(name, "", name, "", False, error=error))
    if enabled and directory is not None:
        for source in _files(directory):
            loader.add(source)
    return loader.finish()


def _installed() -> list[FoundPlugin]:
    """Every entry point of our group: the built-in ones first, the rest in the order of their names."""
    sources: list[FoundPlugin] = []
    seen = set()
    for distribution in sorted(_with_our_group(), key=_left_by_a_build):
        name, version = distribution.metadata["Name"] or "?", distribution.metadata["Version"] or "?"
        if _normal(name) not in seen:  # the first on the path hides later ones
            seen.add(_normal(name))
            sources.extend(_entry_points(distribution, name, version))
    return sorted(sources, key=lambda source: (not source.builtin, source.name, source.distribution))


def _with_our_group() -> Iterator[metadata.Distribution]:
    """Distributions with our entry points; metadata.entry_points() would stop at the first broken package."""
    for distribution in metadata.distributions():
        text = distribution.read_text("entry_points.txt") or ""
        if f"[{hookspecs.GROUP}]" in text.replace(" ", ""):
            yield distribution


def _left_by_a_build(distribution: metadata.Distribution) -> bool:
    """Whether this is a .egg-info folder next to the source.

    It can be out of date, and comes first on the path of anyone who starts in that folder.
    """
    return distribution.read_text("SOURCES.txt") is not None


def _entry_points(distribution: metadata.Distribution, name: str, version: str) -> Iterator[FoundPlugin]:
    builtin = _normal(name) == OURS
    try:
        for point in distribution.entry_points:
            if point.group == hookspecs.GROUP:
                yield FoundPlugin(point.name, point.value, name, version, builtin, point.load)
    except Exception as error:
        yield FoundPlugin(name, "entry_points.txt", name, version, builtin, partial(_raise, error))


def _files(directory: Path) -> Iterator[FoundPlugin]:
    """The single-file plugins of a folder. A file has no version, so the start of its hash is used."""
    if not directory.is_dir():
        raise UserError(f"The plugins folder {directory} does not exist; create it, or give another.")
    for path in sorted(directory.glob("*.py")):
        if path.is_file() and not path.name.startswith(("_", ".")):
            try:
                version = hashlib.sha256(path.read_bytes()).hexdigest()[:10]
            except OSError:  # loading it will report the error
                version = ""
            yield FoundPlugin(path.stem, str(path), path.name, version, False, partial(_load_file, path))


def _load_file(path: Path) -> object:
    name = f"latentcanvas_plugin_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot import {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and type hints look modules up by name
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


def _placed(
    kind: str, source: FoundPlugin, new: dict[str, Info], known: dict[str, Info]
) -> tuple[dict[str, Info], list[str]]:
    """`new` under its final names, and a message for each name that was taken."""
    placed, taken = {}, []
    for name, info in new.items():
        final = name
        if name in known:
            final = f"{source.distribution}/{name}"
            if final in known:
                raise RegistrationError(f"the names {name!r} and {final!r} are both taken")
            owner = known[name].plugin
            taken.append(f"the {kind} name {name!r} is taken by {owner}; this one is available as {final!r}")
        placed[final] = replace(info, name=final)
    return placed, taken


def _raise(error: Exception) -> object:
    raise error


def _wanted() -> set[str] | None:
    text = os.environ.get(CHOICE)
    return None if text is None else {word.strip() for word in text.split(",") if word.strip()}


def _normal(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def _reason(error: BaseException) -> str:
    """The error in one line."""
    text = " ".join(str(error).split())
    if isinstance(error, RegistrationError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
