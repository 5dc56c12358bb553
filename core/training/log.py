"""The log of a training run: losses and figures as JSON lines, as curves and in TensorBoard; samples."""

from __future__ import annotations

import contextlib
import io
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from core.figures.plots import loss_curve
from core.files import plain_errors, write_whole


class Log:
    """One JSON object per line: the mean loss of every 50 steps, and the figures of `measure`.

    TensorBoard, if installed, gets the same and the samples, in the folder `tensorboard` next to the log.
    With `writes` false nothing is written.
    """

    every = 50

    def __init__(self, path: Path, *, keep_below: int, writes: bool = True) -> None:
        lines = read_lines(path) if keep_below else []
        kept = [line for line in lines if line["step"] <= keep_below]
        self.before = max((line["seconds"] for line in kept), default=0.0)
        self.start = time.monotonic()
        self.sum, self.count = torch.zeros(()), 0
        self.path, self.board = path, None
        if writes:
            write_whole(path, "".join(json.dumps(line) + "\n" for line in kept).encode())
            self.board = _board(path.parent / "tensorboard" / path.stem, keep_below)

    def seconds(self) -> float:
        """Time spent on this stage, including the parts before a resume."""
        return round(self.before + time.monotonic() - self.start, 1)

    def add(self, loss: Tensor) -> None:
        """Add the loss of a step, a scalar, to the next mean, without waiting for its value."""
        self.sum, self.count = self.sum + loss, self.count + 1

    def loss(self, step: int) -> None:
        """Write the mean of the losses since the last call."""
        mean = round(float(self.sum) / self.count, 6)
        self.write({"step": step, "seconds": self.seconds(), "loss": mean})
        self.sum, self.count = torch.zeros(()), 0

    def write(self, line: Mapping[str, float]) -> None:
        with plain_errors(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if self.board is not None:
            with plain_errors(self.path.parent / "tensorboard"):
                for name in sorted(line.keys() - {"step", "seconds"}):
                    self.board.add_scalar(name, line[name], int(line["step"]))
                self.board.flush()  # TensorBoard would buffer them for two minutes

    def show(self, step: int, picture: bytes) -> None:
        """Show samples (a PNG) in TensorBoard."""
        if self.board is not None:
            with plain_errors(self.path.parent / "tensorboard"), Image.open(io.BytesIO(picture)) as image:
                self.board.add_image("samples", np.asarray(image), step, dataformats="HWC")
                self.board.flush()

    def draw(self, title: str) -> None:
        """Save the losses so far as an image next to the log."""
        picture = loss_curve(title, read_lines(self.path))
        if picture is not None:
            write_whole(self.path.with_name(f"{title}-loss.png"), picture)

    def close(self) -> None:
        if self.board is not None:
            with contextlib.suppress(OSError):  # `write` has raised before, if it matters
                self.board.close()


def _board(folder: Path, keep_below: int) -> Any:
    """TensorBoard's writer, which drops what a stopped run had written after the step that it resumes
    from; None if TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    with plain_errors(folder):
        return SummaryWriter(str(folder), purge_step=keep_below + 1)


def read_lines(path: Path) -> list[dict[str, float]]:
    """The lines of a log, up to one that a killed run left unfinished; empty if there is no log."""

    def read() -> Iterator[dict[str, float]]:
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                return

    return list(read()) if path.exists() else []
