"""The registry of this process."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import ClassVar

from core.plugins.discovery import load_plugins
from core.sampling.registry import Registry, SamplerInfo, ScheduleInfo


class _Current:
    """The registry of this process, made when it is first used: the only module-level state."""

    lock = threading.Lock()
    directory: ClassVar[Path | None] = None
    enabled: ClassVar[bool] = True
    registry: ClassVar[Registry | None] = None


def configure(*, directory: Path | None = None, enabled: bool = True) -> None:
    """Set what `registry()` loads: before its first use, or to load everything again."""
    with _Current.lock:
        _Current.directory, _Current.enabled, _Current.registry = directory, enabled, None


def registry() -> Registry:
    """The registry of this process; the first call loads the plugins."""
    with _Current.lock:
        if _Current.registry is None:
            _Current.registry = load_plugins(directory=_Current.directory, enabled=_Current.enabled)
        return _Current.registry


def samplers() -> dict[str, SamplerInfo]:
    """The registered samplers by name."""
    return dict(registry().samplers)


def schedules() -> dict[str, ScheduleInfo]:
    """The registered schedules by name."""
    return dict(registry().schedules)
