"""`check_sampler`: whether a sampler keeps the contract and is numerically right, rule by rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from core.errors import UserError

if TYPE_CHECKING:
    from core.sampling.contract import Sampler
    from core.sampling.registry import SamplerInfo


@dataclass(frozen=True)
class Finding:
    """What one rule found. `passed` is None where it could not be judged, because another rule is broken."""

    number: int
    name: str
    passed: bool | None
    figure: float | None  # what was measured; the sentence says what it is
    sentence: str

    def __str__(self) -> str:
        verdict = {True: "pass", False: "FAIL", None: "  - "}[self.passed]
        figure = "" if self.figure is None else f"{self.figure:.3g}"
        return f"{self.number:2} {self.name:13} {verdict} {figure:>9}  {self.sentence}"


@dataclass(frozen=True)
class Report:
    """What all rules found. `passed` is what a plugin's own test asserts; printed, it is a line a rule."""

    sampler: str
    plugin: str
    version: str
    options: dict[str, Any]
    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        return not self.failed

    @property
    def failed(self) -> list[int]:
        """The numbers of the rules that are broken."""
        return [finding.number for finding in self.findings if finding.passed is False]

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "passed": self.passed}

    def __str__(self) -> str:
        options = "".join(f" {name}={value}" for name, value in self.options.items())
        who = " ".join(filter(None, (self.plugin, self.version)))
        head = f"{self.sampler}{f' ({who})' if who else ''}{options}"
        count = sum(finding.passed is True for finding in self.findings)
        end = f"{count} of {len(self.findings)} rules hold"
        return "\n".join([head, *map(str, self.findings), end])


def check_sampler(
    sampler: str | SamplerInfo | Callable[..., Any],
    *,
    options: Mapping[str, object] | None = None,
    **declared: Any,
) -> Report:
    """Judge a sampler by every rule of the contract, on denoisers that are known exactly. Takes seconds.

    sampler: a function, or what is registered, by its name. declared: what `register` would be told of a
    function, such as order=2, evals=2, stochastic=True. options: as a user would set them; declared orders
    and evaluations hold for the defaults. Raises UserError for a name or an option that is not known, and for
    a function that is no sampler.
    """
    info = _info(sampler, declared)
    from core.testing.rules import judge
    from core.testing.subject import Subject

    checked = info.check_options(options or {})
    findings = tuple(judge(Subject(info, checked)))
    return Report(info.name, info.plugin, info.version, checked, findings)


def _info(sampler: str | SamplerInfo | Sampler, declared: Mapping[str, Any]) -> SamplerInfo:
    from core.plugins.current import registry
    from core.sampling.registry import SamplerInfo

    if isinstance(sampler, (str, SamplerInfo)):
        if declared:
            raise TypeError(f"{sampler} is registered: {', '.join(declared)} cannot be declared anew")
        return registry().sampler(sampler) if isinstance(sampler, str) else sampler
    return _declared(sampler, declared)


def _declared(function: Sampler, declared: Mapping[str, Any]) -> SamplerInfo:
    """A function as `register` would take it."""
    from core.plugins.staging import FoundPlugin, Staged
    from core.sampling.options import RegistrationError

    source = FoundPlugin("", "", "", "", False, lambda: None)
    staged = Staged(source)
    try:
        told: dict[str, Any] = {"title": "Sampler", **declared}
        staged.sampler("sampler", function, **told)
    except RegistrationError as error:
        raise UserError(f"{error}.") from error
    return replace(staged.samplers["sampler"], name=getattr(function, "__name__", "sampler"))
