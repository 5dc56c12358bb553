"""`check_sampler`: checks that a sampler keeps the contract and is numerically correct, rule by rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from core.conformance.report import Report
from core.errors import UserError
from core.plugins.current import registry
from core.plugins.staging import FoundPlugin, Staged
from core.sampling.options import RegistrationError
from core.sampling.registry import SamplerInfo

if TYPE_CHECKING:
    from core.sampling.contract import Sampler
    from core.sampling.registry import SamplerInfo


def check_sampler(
    sampler: str | SamplerInfo | Callable[..., Any],
    *,
    options: Mapping[str, object] | None = None,
    **declared: Any,
) -> Report:
    """Check a sampler by every rule of the contract, with exact denoisers. Takes seconds.

    sampler: a function, or the name of a registered sampler. declared: the arguments of `register` for a
    function, such as order=2, evals=2, stochastic=True. options: as a user would set them; declared orders
    and evaluations are for the defaults. Raises UserError for an unknown name or option, and for a function
    that is not a sampler.
    """
    info = _info(sampler, declared)
    from core.conformance.rules import judge
    from core.conformance.subject import Subject

    checked = info.check_options(options or {})
    findings = tuple(judge(Subject(info, checked)))
    return Report(info.name, info.plugin, info.version, checked, findings)


def _info(sampler: str | SamplerInfo | Sampler, declared: Mapping[str, Any]) -> SamplerInfo:

    if isinstance(sampler, (str, SamplerInfo)):
        if declared:
            raise TypeError(f"{sampler} is registered: {', '.join(declared)} cannot be declared again")
        return registry().sampler(sampler) if isinstance(sampler, str) else sampler
    return _declared(sampler, declared)


def _declared(function: Sampler, declared: Mapping[str, Any]) -> SamplerInfo:
    """A function as `register` would register it."""
    source = FoundPlugin("", "", "", "", False, lambda: None)
    staged = Staged(source)
    try:
        told: dict[str, Any] = {"title": "Sampler", **declared}
        staged.sampler("sampler", function, **told)
    except RegistrationError as error:
        raise UserError(f"{error}.") from error
    return replace(staged.samplers["sampler"], name=getattr(function, "__name__", "sampler"))
