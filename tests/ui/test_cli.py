"""The commands but `generate` and `test`, and how any of them ends."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from core.errors import Cancelled, UserError
from tests.ui.commandline import LoadedPipeline, failure, run
from ui import cli
from ui.cli import main

CHECKOUT = Path(__file__).resolve().parents[2]
# What a command must not load before it needs it.
HEAVY = ("torch", "gradio", "numpy", "transformers", "diffusers", "pandas")


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UserError("The model is\ndamaged."), 2, "latentcanvas: error: The model is damaged."),
        (
            RuntimeError("out of\nluck"),
            1,
            "latentcanvas: error: RuntimeError: out of luck (run again with --debug to see where)",
        ),
        (KeyboardInterrupt(), 130, ""),
        (Cancelled(), 130, ""),
    ],
)
def test_how_a_command_ends(
    pipeline: type[LoadedPipeline],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    line: str,
) -> None:
    monkeypatch.setattr(pipeline, "error", error)
    ended, out, err = run(capsys, "generate", "x")
    assert (ended, out, err.strip()) == (code, "", line)


@pytest.mark.parametrize("error", [UserError("no"), RuntimeError("no")])
def test_debug_shows_where(
    pipeline: type[LoadedPipeline],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
) -> None:
    monkeypatch.setattr(pipeline, "error", error)
    for arguments in (["--debug", "generate", "x"], ["generate", "x", "--debug"]):
        _, _, err = run(capsys, *arguments)
        assert "Traceback" in err
        assert err.splitlines()[-1].startswith("latentcanvas: error:")


def test_a_misspelt_command_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert "Did you mean 'generate'?" in failure(capsys, "genrate")


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_the_list_of_commands_says_what_each_says_of_itself(name: str) -> None:
    first = cli.load_command(name).help.partition("\n\n")[0]
    assert " ".join(first.split()) == cli.COMMANDS[name][1]


def test_page_options_before_a_command_are_not_dropped_silently(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--share before samplers is an option of the page" in failure(capsys, "--share", "samplers")


def test_models_lists_folders_with_their_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("core.weights.find.EMBEDDED", tmp_path / "tiny")
    monkeypatch.setattr("core.weights.find.MODELS", tmp_path / "models")
    for name, size in (("tiny", 2_500_000), ("models/mine", 10)):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "weights").write_bytes(bytes(size))
    _, out, _ = run(capsys, "models")
    assert "2.5 MB" in out
    assert "mine" in out

    _, out, _ = run(capsys, "models", "--json")
    assert [(m["name"], m["bytes"], m["embedded"]) for m in json.loads(out)["models"]] == [
        ("tiny", 2_500_000, True),
        ("mine", 10, False),
    ]


def test_train_passes_everything_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[tuple[Any, ...]] = []
    trainer = SimpleNamespace(train=lambda *arguments: calls.append(arguments))
    monkeypatch.setitem(sys.modules, "core.training.trainer", trainer)
    recipe = tmp_path / "small.toml"
    assert "no such recipe" in failure(capsys, "train", str(recipe))
    recipe.touch()
    run(
        capsys,
        "train",
        str(recipe),
        "--set",
        "a.b=1",
        "--set",
        "c=2",
        "--resume",
        "--out",
        "there",
        "--device",
        "cpu",
    )
    run(capsys, "train", str(recipe))
    assert calls == [(recipe, ["a.b=1", "c=2"], True, Path("there"), "cpu"), (recipe, [], False, None, None)]


def test_the_page_gets_its_options(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    served: list[Any] = []
    page = SimpleNamespace(PageOptions=SimpleNamespace, serve=served.append)
    monkeypatch.setitem(sys.modules, "ui.app", page)
    run(capsys)
    run(
        capsys,
        *("--share", "--auth", "me:secret", "--listen", "--port", "8000", "--model", "m", "--device", "cpu"),
        *("--root-path", "/lc"),
        *("--vae", "v", "--ema"),
        *("--dtype", "float32", "--memory", "offload"),
        *("--outputs", "o", "--plugins-dir", "p", "--no-plugins"),
        *("--shared-history", "--no-mcp", "--config", "c.toml"),
    )
    assert vars(served[0]) == {
        "model": None,
        "vae": None,
        "ema": False,
        "device": None,
        "dtype": None,
        "memory": None,
        "share": None,
        "auth": None,
        "listen": None,
        "port": None,
        "root_path": None,
        "outputs": None,
        "shared_history": None,
        "mcp": None,
        "config": None,
        "plugins_dir": None,
        "no_plugins": False,
    }
    assert vars(served[1]) == {
        "model": "m",
        "vae": Path("v"),
        "ema": True,
        "device": "cpu",
        "dtype": "float32",
        "memory": "offload",
        "share": True,
        "auth": "me:secret",
        "listen": True,
        "port": 8000,
        "root_path": "/lc",
        "outputs": Path("o"),
        "shared_history": True,
        "mcp": False,
        "config": Path("c.toml"),
        "plugins_dir": Path("p"),
        "no_plugins": True,
    }
    assert "--port" in failure(capsys, "--port", "0")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    from importlib.metadata import version

    assert run(capsys, "--version")[:2] == (0, f"latentcanvas {version('latentcanvas')}\n")


@pytest.mark.parametrize(
    "arguments", [["--help"], ["generate", "--help"], ["samplers", "--json"], ["models"]]
)
def test_what_needs_no_model_loads_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys; from ui.cli import main; main(sys.argv[1:]); "
        f"sys.exit(' '.join(name for name in {HEAVY!r} if name in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (1, "\n")  # an empty list of names
    assert done.stdout


def test_the_command_that_is_installed_answers() -> None:
    command = Path(sys.executable).with_name("latentcanvas")
    done = subprocess.run([str(command), "genrate"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("latentcanvas: error: No such command 'genrate'.")


@pytest.mark.parametrize(
    ("encoding", "errors"), [("cp1252", "strict"), ("ascii", "strict"), ("ascii", "surrogateescape")]
)
def test_a_letter_that_the_output_cannot_hold_is_escaped(
    encoding: str, errors: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "красный дом, 一只猫, 🏠\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 3, Size: 512x512"
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    for more in ((), ("--json",)):
        output = io.BytesIO()
        stream = io.TextIOWrapper(output, encoding=encoding, errors=errors, write_through=True)
        monkeypatch.setattr(sys, "stdout", stream)
        assert main(["recipe", str(tmp_path / "a.txt"), *more]) == 0
        said = output.getvalue().decode(encoding)
        if more:
            assert json.loads(said)["request"]["prompt"] == "красный дом, 一只猫, 🏠"
        else:
            assert r"\u043a\u0440" in said


def test_bytes_of_a_file_name_pass_in_the_c_locale(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="surrogateescape")
    monkeypatch.setattr(sys, "stdout", stream)
    assert main(["samplers"]) == 0
    assert stream.errors == "surrogateescape"
