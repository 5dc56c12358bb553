"""Every built-in sampler keeps every rule, as it comes and where an option makes it draw noise."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from core.conformance import check_sampler
from core.plugins.discovery import load_plugins
from core.sampling.registry import SamplerInfo


def cases() -> Iterator[tuple[SamplerInfo, dict[str, float]]]:
    for info in load_plugins(enabled=False).samplers.values():
        yield info, {}
        if isinstance(info.stochastic, str):
            yield info, {info.stochastic: 1.0}


@pytest.mark.parametrize(("info", "options"), list(cases()), ids=lambda part: getattr(part, "name", part))
def test_a_built_in_sampler_is_right(info: SamplerInfo, options: dict[str, float]) -> None:
    report = check_sampler(info, options=options)
    assert report.passed, str(report)
