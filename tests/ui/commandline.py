"""What the tests of the commands share: a pipeline that draws at once, and how a command is run."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest

import core.plugins.current
from core.recipes.recipe import ModelRef
from tests.ui.drawn import DrawnPipeline
from ui import cli


class LoadedPipeline(DrawnPipeline):
    """A DrawnPipeline that is loaded as the command line does it, and remembers how."""

    load_seconds = 0.5
    about = "a fake"
    ref = ModelRef(name="fake", sha256="0" * 64)
    device = SimpleNamespace(type="cpu")
    loaded: ClassVar[list[tuple[str, str | None, str | None]]] = []
    parts: ClassVar[list[tuple[Path | None, bool]]] = []
    error: ClassVar[BaseException | None] = None

    @property
    def model(self) -> LoadedPipeline:
        """What `Pipeline.model` is asked for is here, too."""
        return self

    @classmethod
    def load(
        cls,
        source: str,
        *,
        device: str | None = None,
        dtype: str | None = None,
        vae: Path | None = None,
        ema: bool = False,
        memory: str | None = None,
    ) -> LoadedPipeline:
        if cls.error is not None:
            raise cls.error
        cls.loaded.append((source, device, dtype))
        cls.parts.append((vae, ema))
        return cls(core.plugins.current.registry())


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """(exit code, standard output, standard error) of a command."""
    code = cli.main(arguments)
    return code, *capsys.readouterr()


def failure(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that a command with bad input ends in; what model it had may be said before."""
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    *said, line = err.splitlines()
    assert all(before.startswith("model ") for before in said)
    assert line.startswith("latentcanvas: error: ")
    return line.removeprefix("latentcanvas: error: ")
