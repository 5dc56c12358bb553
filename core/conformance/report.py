"""The result of `check_sampler`: a finding for each rule of the contract."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Finding:
    """The result of one rule. `passed` is None where it was not checked, because another rule is broken."""

    number: int
    name: str
    passed: bool | None
    figure: float | None  # the measured value; the sentence describes it
    sentence: str

    def __str__(self) -> str:
        verdict = {True: "pass", False: "FAIL", None: "  - "}[self.passed]
        figure = "" if self.figure is None else f"{self.figure:.3g}"
        return f"{self.number:2} {self.name:13} {verdict} {figure:>9}  {self.sentence}"


@dataclass(frozen=True)
class Report:
    """The results of all rules. A plugin's test asserts `passed`; printed, it is one line per rule."""

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
