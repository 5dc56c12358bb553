"""Serve the whole page, to train on it: `python -m tests.browser.serve_train PORT FOLDER`.

Runs and models go to that folder, and the recipe of points is a smaller one. The first model is the tests'
fake. While there is a file `hold` in the folder, a training waits after `HELD_AT` steps.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from torch import Tensor

from core.inference.pipeline import Pipeline
from core.plugins import current
from core.training.stages.diffusion import DiffusionStage
from core.weights import find
from tests.ui.fakes import FakePipeline
from tests.ui.recipes import small_points
from ui.app import PageOptions, serve
from ui.service import trainings

# Clouds of as many points as the real recipe draws, by a smaller network.
SIZE = {"size": "size = 256 ", "width": "width = 256", "height": "height = 256", "steps": "steps = 8\n"}
HELD_AT = 14


def hold(folder: Path) -> None:
    """Let trainings wait for the file to go, however slow or fast the machine is."""
    real = DiffusionStage.loss

    def loss(stage: DiffusionStage, step: int) -> Tensor:
        while step >= HELD_AT and (folder / "hold").exists():
            time.sleep(0.1)
        return real(stage, step)

    DiffusionStage.loss = loss  # pyrefly: ignore[bad-assignment, method-assign]


def main() -> None:
    """As the command does."""
    port, folder = int(sys.argv[1]), Path(sys.argv[2])
    os.chdir(folder)
    find.MODELS = folder / "models"
    hold(folder)
    changed = {**SIZE, "unet": "unet = 8192", "block_out_channels": "block_out_channels = [32]"}
    small = small_points(folder, **changed, batch="batch = 128")
    trainings.recipe_path = lambda recipe: small

    def load(name: str) -> Pipeline:
        return FakePipeline(current.registry()) if name == "tiny" else Pipeline.load(name, device="cpu")

    serve(PageOptions(port=port, outputs=folder / "outputs", device="cpu"), load)


if __name__ == "__main__":
    main()
