"""Other people's plugins, good and broken, as pip would have installed them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from core.plugins import discovery

Install = Callable[..., None]

GOOD = '''
from latentcanvas import Step, hookimpl

def {name}(denoise, x, sigmas, noise):
    """Does nothing of use.

    At length.
    """
    yield Step(0, 0.0, x, x)

@hookimpl
def register_samplers(register):
    register("{name}", {name}, title="{name} for you", order=2, evals=3, paper="arXiv:0", schedule="karras")
'''


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """`install("dist", version="1.0", entry="source of its module")`: a distribution and its entry points."""
    monkeypatch.delenv(discovery.CHOICE, raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)

    def install(distribution: str, version: str = "1.0", **sources: str) -> None:
        info = tmp_path / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        lines = ["[latentcanvas]"]
        for entry, source in sources.items():
            module = f"lcplug_{distribution.replace('-', '_')}_{entry}"
            (tmp_path / f"{module}.py").write_text(source)
            lines.append(f"{entry} = {module}")
        (info / "entry_points.txt").write_text("\n".join(lines) + "\n")

    yield install
    for name in set(sys.modules) - before:
        if name.startswith(("lcplug_", "latentcanvas_plugin_")):
            del sys.modules[name]


def sampler(
    name: str, body: str = "yield Step(0, 0.0, x, x)", *, signature: str = "denoise, x, sigmas, noise"
) -> str:
    """The source of a plugin with one sampler."""
    return (
        "from typing import Annotated, Literal\nfrom latentcanvas import Range, Step, hookimpl\n"
        f"def run({signature}):\n    {body}\n"
        f"@hookimpl\ndef register_samplers(register):\n    register({name!r}, run, title='T')\n"
    )


def install_ten(install: Install) -> None:
    """Eight plugins that are broken in eight ways, and two good ones: the samplers alpha and zeta."""
    install("good-one", alpha_good=GOOD.format(name="alpha"))
    install("good-two", zeta_good=GOOD.format(name="zeta"))
    install("missing", m_missing="import lc_no_such_module\n")
    install("leaving", m_leaving="raise SystemExit(4)\n")
    install("misspelt", m_misspelt=GOOD.format(name="m1").replace("register_samplers", "register_sampler"))
    install("wrong", m_wrong=sampler("m2", signature="model, x"))
    install("plain", m_plain=sampler("m3", "return [x]"))
    install("taking", m_taking=sampler("ddim"))
    install("raising", m_raising=GOOD.format(name="m4") + "    raise KeyError('late')\n")
    install("second", alpha_good=sampler("m5", "return [x]"))


# (entry point, distribution) of the eight -> what their reason contains.
TEN_REASONS = {
    ("m_missing", "missing"): "ModuleNotFoundError: No module named 'lc_no_such_module'",
    ("m_leaving", "leaving"): "SystemExit: 4",
    ("m_misspelt", "misspelt"): "unknown hook 'register_sampler'",
    ("m_wrong", "wrong"): "run(model, x) must take (denoise, x, sigmas, noise)",
    ("m_plain", "plain"): "run(denoise, x, sigmas, noise) is not a generator function",
    ("m_taking", "taking"): "the sampler name 'ddim' is taken by latentcanvas",
    ("m_raising", "raising"): "KeyError: 'late'",
    ("alpha_good", "second"): "run(denoise, x, sigmas, noise) is not a generator function",
}
