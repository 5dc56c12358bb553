"""Broken plugins and samplers that go wrong, all the way: the page and the command line stay up."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.inference.pipeline import Pipeline
from core.plugins import current
from tests.small import write_model
from tests.strangers import TEN_REASONS, Install, install_ten
from tests.ui.commandline import failure, run
from tests.ui.fakes import in_blocks, jobs_of
from ui.page.layout import build_page, first_defaults, plugins_html
from ui.page.live_view import Following
from ui.page.viewer import Viewer
from ui.page.workbench import Workbench
from ui.service.styles import Styles

# What each sampler does at its second step -> the sentence's end.
BAD_SAMPLERS = {
    "nan": ("x = x * float('nan')", "yielded NaN or infinite values in step 2"),
    "shapely": ("x = x[..., :1]", "yielded x: (1, 4, 8, 1) float32 on cpu instead of (1, 4, 8, 8)"),
    "few": ("return", "stopped after 1 of 4 steps"),
    "endless": ("sigmas.append(target)", "does not stop: it continued after 4 steps"),
    "stuck": ("while True: denoise(x, sigma)", "does not stop: it called denoise 60 times"),
}
PLUGIN = """
from latentcanvas import Step, hookimpl

def steps(denoise, x, sigmas, noise):
    sigmas = list(sigmas)
    for i, sigma in enumerate(sigmas[:-1]):
        target = sigmas[i + 1]
        clean = denoise(x, sigma)
        x = x + (target - sigma) * (x - clean) / sigma
        if i == 1:
            BODY
        yield Step(i, target, x, clean)
ENDING

@hookimpl
def register_samplers(register):
    register("NAME", steps, title="NAME")
"""
ENDLESS = "    while sigmas[4:] and len(sigmas) > 5: yield Step(4, 0.0, x, clean)"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "small")


@pytest.fixture(autouse=True)
def _registry_anew(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("core.sampling.loop.MOST_EVALS_A_STEP", 60)  # 1000 take a while
    current.configure()
    yield
    current.configure()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One file with each bad sampler."""
    made = tmp_path / "plugins"
    made.mkdir()
    for name, (body, _) in BAD_SAMPLERS.items():
        ending = ENDLESS if name == "endless" else ""
        text = PLUGIN.replace("BODY", body).replace("ENDING", ending).replace("NAME", name)
        (made / f"{name}.py").write_text(text)
    return made


def test_eight_broken_plugins_are_named_by_the_command_line(
    install: Install, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    install_ten(install)
    code, out, _ = run(capsys, "samplers", "--json")
    listed = json.loads(out)
    assert code == 0
    failed = {(plugin["name"], plugin["distribution"]): plugin["error"] for plugin in listed["failed"]}
    assert set(failed) == set(TEN_REASONS)
    assert all(TEN_REASONS[who] in reason for who, reason in failed.items())
    assert {"alpha", "zeta"} <= {sampler["name"] for sampler in listed["samplers"]}

    _, out, _ = run(capsys, "samplers")
    assert out.count("failed: ") == 8
    for good in ("alpha", "zeta"):
        arguments = ("--model", str(model), "--sampler", good, "--steps", "1", "--device", "cpu")
        code, out, err = run(capsys, "generate", "x", *arguments, "--out", str(tmp_path / "out"))
        assert code == 0, err
        assert Path(out.strip()).exists()


def test_eight_broken_plugins_are_named_by_the_page(install: Install, model: Path, tmp_path: Path) -> None:
    install_ten(install)
    registry = current.registry()
    jobs = jobs_of(Pipeline.load(model, device="cpu"), tmp_path)
    in_blocks(lambda: build_page(jobs, registry))
    header = plugins_html(registry)
    assert "8 plugins failed" in header
    assert all(f"{name}: " in header for name, _ in TEN_REASONS)


@pytest.mark.parametrize("name", BAD_SAMPLERS)
def test_a_bad_sampler_ends_a_command_in_one_sentence(
    name: str, folder: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    message = failure(
        capsys,
        *("generate", "x", "--model", str(model), "--device", "cpu", "--sampler", name, "--steps", "4"),
        *("--plugins-dir", str(folder), "--out", str(out)),
    )
    assert re.match(rf"Sampler {name} \({name}\.py [0-9a-f]{{10}}\) ", message)  # its file and version
    assert BAD_SAMPLERS[name][1] in message
    assert list(out.iterdir()) == []


def test_the_page_outlives_bad_samplers(folder: Path, model: Path, tmp_path: Path) -> None:
    current.configure(directory=folder)
    registry, outputs = current.registry(), tmp_path / "outputs"
    jobs = jobs_of(Pipeline.load(model, device="cpu"), outputs)
    styles = Styles(tmp_path / "styles.json")

    def build() -> Workbench:
        viewer = Viewer(jobs.engine, jobs.runs, jobs)
        return Workbench(jobs, registry, viewer, first_defaults(registry), lambda owner: styles)

    bench = in_blocks(build)
    for name, (_, reason) in BAD_SAMPLERS.items():
        notice = generate(bench, sampler=name)
        assert f"Sampler {name} ({name}.py " in notice
        assert reason in notice.replace("&#x27;", "'")
    assert not outputs.exists() or list(outputs.iterdir()) == []
    assert generate(bench, sampler="ddim") == ""
    assert len(list(outputs.glob("*.png"))) == 1


def generate(bench: Workbench, *, sampler: str) -> str:
    """Run four steps on the workbench; the notice that the page shows in the end."""
    named = {"prompt": "x", "sampler": sampler, "steps": 4, "width": 64, "height": 64}
    shown = {name: getattr(control, "value", None) for name, control in bench.asking.fields.items()}
    following, owner = Following(), "somebody"
    assert bench.on_generate("txt2img", following, owner, None, {}, *(shown | named).values())[0] == ""

    async def notices() -> list[str]:
        told = [one[1] async for one in bench.on_watch(following, owner)]
        return [notice for notice in told if isinstance(notice, str)]

    return "".join(asyncio.run(notices()))
