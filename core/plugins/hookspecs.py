"""The hooks that a plugin may implement: the whole extension surface."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from core.sampling.contract import RegisterSampler
    from core.sampling.schedule import RegisterSchedule

GROUP = "latentcanvas"  # the entry-point group, and pluggy's project name

hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


@hookspec
def register_samplers(register: RegisterSampler) -> None:
    """Register samplers: call `register(name, function, title=...)` once for each."""


@hookspec
def register_schedules(register: RegisterSchedule) -> None:
    """Register schedules: call `register(name, function, title=...)` once for each."""
