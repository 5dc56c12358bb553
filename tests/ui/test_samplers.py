"""The command `samplers`: its list, `check` and `race`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

import core.inference.pipeline
import core.plugins.current
from tests.small import write_model
from tests.ui.commandline import failure, run

CHECKOUT = Path(__file__).resolve().parents[2]
BROKEN_PLUGIN = "raise RuntimeError('no luck today')\n"
PLUGIN = """
from itertools import pairwise
from latentcanvas import Step, hookimpl

def steps(denoise, x, sigmas, noise):
    for i, (sigma, target) in enumerate(pairwise(sigmas)):
        clean = denoise(x, sigma)
        x = x + (target - sigma) * (x - clean) / sigma
        yield Step(i, target, x BODY, clean)

@hookimpl
def register_samplers(register):
    register("NAME", steps, title="A plugin's" DECLARED)
"""


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    """The commands choose plugins for a process that ends with them."""
    yield
    core.plugins.current.configure()


@pytest.fixture
def plugin(tmp_path: Path) -> Callable[..., None]:
    def write(name: str, body: str = "", declared: str = "") -> None:
        text = PLUGIN.replace("BODY", body).replace("NAME", name).replace("DECLARED", declared)
        (tmp_path / f"{name}.py").write_text(text)

    return write


@pytest.mark.usefixtures("pipeline")
def test_samplers_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "samplers", "--json")
    listed = json.loads(out)
    ddim = next(sampler for sampler in listed["samplers"] if sampler["name"] == "ddim")
    assert code == 0
    assert ddim["plugin"] == "latentcanvas"
    assert ddim["options"][0]["name"] == "eta"
    assert (ddim["order"], ddim["evals"], ddim["kind"]) == (1, 1, "deterministic")
    assert {"leading", "linspace", "trailing", "karras"} <= {s["name"] for s in listed["schedules"]}
    assert all(plugin["error"] is None for plugin in listed["plugins"] if plugin["builtin"])


@pytest.mark.usefixtures("pipeline")
@pytest.mark.parametrize("before", [True, False])
def test_samplers_lists_and_says_which_plugin_failed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], before: bool
) -> None:
    (tmp_path / "unlucky.py").write_text(BROKEN_PLUGIN)
    chosen = ["--plugins-dir", str(tmp_path)]
    code, out, _ = run(capsys, *(chosen if before else []), "samplers", *([] if before else chosen))
    assert code == 0
    assert "eta = 0 (0 to 1)" in out
    assert "karras" in out
    assert "failed: unlucky" in out
    assert "no luck today" in out


@pytest.mark.usefixtures("pipeline")
def test_no_plugins_leaves_the_built_in_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "unlucky.py").write_text(BROKEN_PLUGIN)
    _, out, _ = run(capsys, "samplers", "--no-plugins", "--plugins-dir", str(tmp_path))
    assert "ddim" in out
    assert "unlucky" not in out


def test_the_list_tells_everything(
    plugin: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plugin("mine", declared=", order=3, evals=2, paper='arXiv:1234.5678', adaptive=True")
    (tmp_path / "unlucky.py").write_text(BROKEN_PLUGIN)
    _, out, _ = run(capsys, "samplers", "--plugins-dir", str(tmp_path))
    [row] = [line.split() for line in out.splitlines() if line.split()[:1] == ["mine"]]
    assert row[1:6] == ["A", "plugin's", "adaptive", "3", "2"]
    assert "arXiv:1234.5678" in row

    _, out, _ = run(capsys, "samplers", "--json", "--plugins-dir", str(tmp_path))
    listed = json.loads(out)
    [failed] = listed["failed"]
    assert (failed["name"], failed["error"]) == ("unlucky", "RuntimeError: no luck today")
    [mine] = [sampler for sampler in listed["samplers"] if sampler["name"] == "mine"]
    assert mine["kind"] == "adaptive"
    assert mine["paper"] == "arXiv:1234.5678"
    assert mine["plugin"] == "mine.py"


# --- check ---


def test_check_prints_a_line_a_rule(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "samplers", "check", "ddim", "--option", "eta=0.5")
    lines = out.splitlines()
    assert code == 0
    assert lines[0].endswith("eta=0.5")
    assert [line.split()[0] for line in lines[1:14]] == [str(number) for number in range(1, 14)]
    assert lines[14] == "13 of 13 rules hold"


def test_check_catches_a_plugin_that_lies(
    plugin: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plugin("liar", declared=", order=2")
    plugin("honest")
    chosen = ("--plugins-dir", str(tmp_path))
    code, out, _ = run(capsys, "samplers", "check", "honest", "liar", "--json", *chosen)
    found = json.loads(out)
    assert (code, found["passed"]) == (1, False)
    assert [(r["sampler"], r["passed"]) for r in found["samplers"]] == [("honest", True), ("liar", False)]
    wrong = [f["name"] for f in found["samplers"][1]["findings"] if f["passed"] is False]
    assert wrong == ["order"]
    assert found["samplers"][1]["plugin"] == "liar.py"


def test_check_all_is_every_one_that_is_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checked: list[str] = []

    def quick(info: Any, options: Any) -> Any:
        checked.append(info.name)
        return SimpleNamespace(passed=True, to_dict=dict)

    monkeypatch.setattr("ui.commands.samplers.check_sampler", quick)
    code, _, _ = run(capsys, "samplers", "check", "--all", "--json")
    assert code == 0
    assert checked == list(core.plugins.current.registry().samplers)
    assert len(checked) > 1


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((), "name the samplers to check, or write --all"),
        (("ddim", "--all"), "name the samplers to check, or write --all"),
        (("dim",), "There is no sampler 'dim'; did you mean 'ddim'?"),
        (("ddim", "--option", "eta=7"), "eta must be a number from 0 to 1"),
        (("ddpm", "--option", "eta=1"), "Sampler ddpm has no option"),
    ],
)
def test_check_refuses(arguments: tuple[str, ...], reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert reason in failure(capsys, "samplers", "check", *arguments)


def test_json_before_a_command_is_not_dropped_silently(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--json before check" in failure(capsys, "samplers", "--json", "check", "ddim")


# --- race ---


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_model(tmp_path_factory.mktemp("model") / "small"))


def race(capsys: pytest.CaptureFixture[str], model: str, *arguments: str) -> tuple[str, str]:
    fixed = ("--model", model, "--device", "cpu", "--reference-steps", "20")
    code, out, err = run(capsys, "samplers", "race", *fixed, *arguments)
    assert code == 0, err
    return out, err


def test_a_race_as_data_and_as_pictures(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet = tmp_path / "made" / "sheet.png"
    names = ("--samplers", "ddim,ddpm", "--schedules", "trailing,karras")
    out, _ = race(capsys, model, "--evals", "4", *names, "--sheet", str(sheet), "--json", "--seed", "3")
    found = json.loads(out)
    assert (found["evals"], found["seed"], len(found["sha256"])) == (4, 3, 64)
    runs = found["entries"]
    assert [(r["sampler"], r["schedule"]) for r in runs] == [
        ("ddim", "trailing"), ("ddim", "karras"), ("ddpm", "trailing"), ("ddpm", "karras"),
    ]  # fmt: skip
    assert {(r["steps"], r["evals"]) for r in runs} == {(4, 4)}
    assert all(r["rms"] > 0 and r["psnr"] > 0 and r["reference"] for r in runs[:2])
    # DDPM's noise is fresh at each step: there is nothing that it converges to.
    assert all(r["rms"] is None or r["reference"].startswith("ddpm") for r in runs[2:])
    with Image.open(sheet) as image:
        assert image.width > 2 * 64
        assert len(image.convert("RGB").getcolors(100_000) or []) > 100


def test_the_reference_is_at_no_distance_from_itself(
    model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("core.compare.race.REFERENCE_SAMPLERS", ("ddim",))
    out, _ = race(capsys, model, "--evals", "20", "--samplers", "ddim", "--schedules", "trailing", "--json")
    [entry] = json.loads(out)["entries"]
    assert (entry["rms"], entry["psnr"], entry["reference"]) == (0.0, None, "ddim trailing 20")


def test_more_evaluations_come_nearer(
    model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("core.compare.race.REFERENCE_SAMPLERS", ("ddim",))
    errors = []
    for evals in ("2", "5", "10"):
        chosen = ("--evals", evals, "--samplers", "ddim", "--schedules", "trailing", "--json")
        [entry] = json.loads(race(capsys, model, *chosen)[0])["entries"]
        errors.append(entry["rms"])
    assert errors == sorted(errors, reverse=True)


def test_a_race_as_a_table_and_as_markdown(
    model: str, plugin: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plugin("nan", body="* float('nan')")
    chosen = ("--evals", "2", "--plugins-dir", str(tmp_path), "--samplers", "nan,ddim")
    out, err = race(capsys, model, *chosen)
    assert "Sampler nan (nan.py" in err  # one that fails leaves the others in the race
    assert "failed" in next(line for line in out.splitlines() if " nan " in line)
    assert "2" in next(line for line in out.splitlines() if " ddim " in line)

    out, _ = race(capsys, model, *chosen, "--markdown")
    head, rule, *rows = out.splitlines()
    assert head == "| sampler | schedule | steps | evals | rms | PSNR | seconds | against |"
    assert {line.count("|") for line in (rule, *rows)} == {9}
    assert len(rows) == 2


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--samplers", "ddim,dim"), "There is no sampler 'dim'"),
        (("--schedules", "karas"), "There is no schedule 'karas'; did you mean 'karras'?"),
        (("--evals", "0"), "--evals 0: must be at least 1"),
        (("--batch", "0"), "batch"),
        (("--reference-steps", "5000"), "steps"),
        (("--sheet", "sheet.jpg"), "--sheet sheet.jpg: must end in .png"),
    ],
)
def test_a_race_refuses_before_a_model_is_loaded(
    arguments: tuple[str, ...],
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(
        core.inference.pipeline.Pipeline, "load", lambda *_, **__: pytest.fail("a model was loaded")
    )
    assert reason in failure(capsys, "samplers", "race", *arguments)


def test_steps_for_a_budget_are_counted() -> None:
    """By the declared evaluations a step, and fewer where a sampler calls more often than it says."""
    from core.compare.race import fit, steps_for
    from core.sampling.schedule import NoiseSchedule

    known, model = core.plugins.current.registry(), NoiseSchedule.from_betas()
    ddim, karras = known.sampler("ddim"), known.schedule("karras")
    assert steps_for(20, ddim, karras, model) == 20
    assert steps_for(1, replace(ddim, evals=2), karras, model) == 1
    assert steps_for(20, replace(ddim, evals=2), karras, model) == 10
    assert steps_for(5000, ddim, karras, model) == 1000

    def thrice(denoise: Any, x: Any, sigmas: Any, noise: Any, eta: float) -> Any:
        denoise(x, sigmas[0])
        denoise(x, sigmas[0])
        yield from ddim.function(denoise, x, sigmas, noise)

    assert steps_for(20, replace(ddim, function=thrice), karras, model) == 18
    assert fit(20, ddim, karras, model) == (20, 20)
    assert fit(20, ddim, karras, model, strength=0.6) == (34, 20)
    assert fit(1, ddim, karras, model, strength=0.3) == (6, 1)
    assert fit(20, replace(ddim, adaptive=True), karras, model) == (20, 20)


def test_the_list_is_there_at_once() -> None:
    """In processor time, as the clock also counts what else the machine does."""
    resource = pytest.importorskip("resource")  # not on Windows

    def spent(*arguments: str) -> float:
        def used() -> float:
            usage = resource.getrusage(resource.RUSAGE_CHILDREN)
            return float(usage.ru_utime + usage.ru_stime)

        before = used()
        subprocess.run([sys.executable, *arguments], cwd=CHECKOUT, capture_output=True, check=True)
        return used() - before

    assert min(spent("-m", "ui.cli", "samplers", "--json") for _ in range(5)) < 0.5


def test_the_short_cut_to_the_list_is_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "samplers", "--json") == run(capsys, "samplers", "--json", "--no-plugins")
    short = run(capsys, "samplers")
    assert short == run(capsys, "samplers", "--no-plugins")
    assert "ddim" in short[1]
