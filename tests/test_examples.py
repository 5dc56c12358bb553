"""The packages in examples/: built, installed as a stranger would, listed, checked, used."""

from __future__ import annotations

import json
import os
import shutil
import site
import subprocess
import sys
import venv
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from core.recipes.png import read_recipe
from tests.small import write_model

CHECKOUT = Path(__file__).resolve().parents[1]
EXAMPLES = CHECKOUT / "examples"
DISTRIBUTIONS = {
    "latentcanvas-template": ("0.1.0", ["rk2"]),
    "latentcanvas-momentum": ("1.0.0", ["heavy_ball", "ghvb"]),
}

Stranger = Callable[..., str]


def pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", *arguments, "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def isolation() -> list[str]:
    """Build with the setuptools that is here when it is new enough; else pip fetches one."""
    try:
        return ["--no-build-isolation"] if int(version("setuptools").split(".")[0]) >= 77 else []
    except PackageNotFoundError:
        return []


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Stranger:
    """Runs the command line in a fresh environment that sees the project and has both wheels installed."""
    folder = tmp_path_factory.mktemp("stranger")
    home = folder / "venv"
    venv.create(home, with_pip=False)
    python = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    packages = next(home.glob("**/site-packages"))
    # What pip has put into this environment, torch above all, cannot be installed a second time in a test.
    lines = [f"import site; site.addsitedir({path!r})" for path in site.getsitepackages()]
    (packages / "project.pth").write_text("\n".join([*lines, str(CHECKOUT)]) + "\n", encoding="utf-8")

    wheels = folder / "wheels"
    for name in DISTRIBUTIONS:
        copy = shutil.copytree(EXAMPLES / name, folder / name)  # building leaves files beside the source
        pip("wheel", str(copy), "--no-deps", *isolation(), "--wheel-dir", str(wheels))
    made = sorted(map(str, wheels.glob("*.whl")))
    assert len(made) == len(DISTRIBUTIONS)
    pip("--python", str(python), "install", "--no-deps", "--no-index", *made)

    def run(*arguments: str, code: int = 0) -> str:
        command = [str(python), "-m", "ui.cli", *arguments]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        return done.stdout

    return run


def test_they_are_listed_with_what_they_say_of_themselves(stranger: Stranger) -> None:
    listed = json.loads(stranger("samplers", "--json"))
    assert listed["failed"] == []
    for distribution, (number, names) in DISTRIBUTIONS.items():
        found = [sampler for sampler in listed["samplers"] if sampler["plugin"] == distribution]
        assert [sampler["name"] for sampler in found] == names
        assert {sampler["version"] for sampler in found} == {number}
        assert all(sampler["summary"] and sampler["options"] for sampler in found)


def test_they_are_not_there_without_plugins(stranger: Stranger) -> None:
    listed = json.loads(stranger("samplers", "--json", "--no-plugins"))
    assert {sampler["plugin"] for sampler in listed["samplers"]} == {"latentcanvas"}


def test_they_keep_the_contract(stranger: Stranger) -> None:
    names = [name for _, names in DISTRIBUTIONS.values() for name in names]
    report = json.loads(stranger("samplers", "check", *names, "--json"))
    assert report["passed"]
    assert [found["sampler"] for found in report["samplers"]] == names


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "small")


@pytest.mark.parametrize(("name", "option"), [("rk2", "share=0.7"), ("ghvb", "beta=0.6")])
def test_they_make_pictures(stranger: Stranger, model: Path, tmp_path: Path, name: str, option: str) -> None:
    out = stranger(
        *("generate", "a red circle", "--model", str(model), "--sampler", name, "--option", option),
        *("--steps", "3", "--seed", "1", "--device", "cpu", "--out", str(tmp_path / "out"), "--json"),
    )
    made = json.loads(out)
    assert made["sampler"]["plugin"] in DISTRIBUTIONS
    assert made["request"]["options"] == {option.split("=")[0]: float(option.split("=")[1])}
    recipe = read_recipe(made["images"][0])
    assert (recipe.settings.sampler, recipe.plugin.name) == (name, made["sampler"]["plugin"])


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_their_own_tests_pass(name: str) -> None:
    folder = EXAMPLES / name
    paths = os.pathsep.join([str(folder), str(CHECKOUT)])
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(folder),
        "tests",
    ]
    environment = os.environ | {"PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout


def test_every_example_is_tried() -> None:
    assert {path.parent.name for path in EXAMPLES.glob("*/pyproject.toml")} == set(DISTRIBUTIONS)
