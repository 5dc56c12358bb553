"""One training loop for every stage: resumable, averaged, logged.

A stage gives its parameters and a loss for step `k`. All randomness of step `k` comes from (seed, k), so a
run that was stopped and resumed meets the same batches and the same noise.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn
from tqdm import tqdm

from core.device import has_bfloat16
from core.errors import Cancelled, UserError
from core.files import plain_errors, write_whole
from core.training.curve import loss_curve
from core.training.muon import Muon
from core.training.samples import side_by_side

if TYPE_CHECKING:
    from PIL import Image

T = TypeVar("T")
Precision = Literal["bfloat16", "float32"]


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """How long and how fast a stage trains."""

    steps: int
    batch: int
    learning_rate: float
    optimizer: Literal["adamw", "muon"] = "adamw"
    warmup: int = 200
    decay: float = 0.2  # the last part of the run, over which the rate falls to nothing
    weight_decay: float = 0.01
    clip: float = 1.0
    ema: float = 0.9995
    save_every: int = 500
    measure_every: int = 2000
    sample_every: int = 0  # 0: no samples are drawn
    precision: Precision = "bfloat16"

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "save_every", "measure_every"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1.")


class Stage(Protocol):
    """What the loop trains. `modules` are saved; `loss` and `measure` see them in place."""

    name: str
    modules: nn.Module

    def loss(self, step: int) -> Tensor:
        """The loss of step `step`, a scalar that gradients flow from."""

    def measure(self) -> Mapping[str, float]:
        """Figures worth a line in the log; called with the averaged weights in place."""


@runtime_checkable
class Drawing(Protocol):
    """A stage that can show what it has learned."""

    def sample(self) -> list[Image.Image]:
        """Pictures with the weights that are in place, from the same noise each time; none if it cannot."""


def home(module: nn.Module) -> torch.device:
    """Where a module's weights are; the CPU where it has none."""
    weight = next(module.parameters(), None)
    return torch.device("cpu") if weight is None else weight.device


def mixed_precision(module: nn.Module, precision: Precision = "bfloat16") -> torch.autocast:
    """bfloat16 for the products inside, on the device of `module`; the weights stay float32. With precision
    "float32", and on a processor that would have to imitate bfloat16, nothing changes.
    """
    device = home(module)
    return torch.autocast(
        device.type, torch.bfloat16, enabled=precision == "bfloat16" and has_bfloat16(device)
    )


def learning_rate(step: int, settings: LoopSettings) -> float:
    """Linear warm-up, level, then linear decay over the last `decay` of the run."""
    rising = min(1.0, (step + 1) / max(settings.warmup, 1))
    falling = min(1.0, (settings.steps - step) / max(settings.decay * settings.steps, 1))
    return settings.learning_rate * rising * falling


class Averaged:
    """An exponential moving average of the weights, which follows faster while the run is young."""

    def __init__(self, modules: nn.Module, decay: float) -> None:
        self.decay = decay
        self.state = {key: value.detach().clone() for key, value in modules.state_dict().items()}

    @torch.no_grad()
    def update(self, modules: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        for key, value in modules.state_dict().items():
            self.state[key].lerp_(value, 1 - decay)


def train_stage(
    stage: Stage,
    settings: LoopSettings,
    folder: Path,
    *,
    resume: bool,
    stop: threading.Event | None = None,
) -> dict[str, Tensor]:
    """Train to `settings.steps` and return the averaged weights.

    A checkpoint is written every `save_every` steps, on Ctrl-C and at the end, whole or not at all. In the
    folder there are also the log, the loss as a picture, and samples every `sample_every` steps. Raises
    UserError when the loss is not a number, with the last good checkpoint kept; Cancelled, after a
    checkpoint, when `stop` is set.
    """
    optimizer = _optimizer(stage.modules, settings)
    averaged = Averaged(stage.modules, settings.ema)
    path = folder / f"{stage.name}.checkpoint"
    first = _restore(path, stage, optimizer, averaged) if resume else 0
    log = Log(folder / f"{stage.name}.jsonl", keep_below=first)
    save = _saver(path, stage, optimizer, averaged)
    progress = tqdm(
        range(first, settings.steps), stage.name, initial=first, total=settings.steps, mininterval=5
    )
    with _interrupts_deferred() as interrupted:
        for step in progress:
            loss = _one_step(stage, optimizer, settings, step)
            averaged.update(stage.modules, step)
            log.loss(step, loss)
            done = step + 1
            stopped = stop is not None and stop.is_set()
            if done % settings.save_every == 0 or done == settings.steps or interrupted or stopped:
                save(done)
            if interrupted:
                raise KeyboardInterrupt
            if stopped:
                raise Cancelled(f"the training was stopped after step {done} of {stage.name}")
            if done % settings.measure_every == 0 or done == settings.steps:
                figures = _with_averaged(stage, averaged, stage.measure)
                log.write({"step": done, "seconds": log.seconds(), **figures})
                log.draw(stage.name)
                progress.write(f"{stage.name} {done}: {figures}")
            if settings.sample_every and (done % settings.sample_every == 0 or done == settings.steps):
                _draw(stage, averaged, folder / "samples", done)
    return averaged.state


def _optimizer(modules: nn.Module, settings: LoopSettings) -> torch.optim.Optimizer:
    kind = Muon if settings.optimizer == "muon" else torch.optim.AdamW
    return kind(
        modules.parameters(),
        settings.learning_rate,
        betas=(0.9, 0.99),
        weight_decay=settings.weight_decay,
    )


@contextlib.contextmanager
def _interrupts_deferred() -> Iterator[list[int]]:
    """Collects Ctrl-C instead of raising in the middle of a step; the list is true once it was pressed."""
    pressed: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield pressed
        return
    before = signal.signal(signal.SIGINT, lambda number, frame: pressed.append(number))
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)


def _one_step(stage: Stage, optimizer: torch.optim.Optimizer, settings: LoopSettings, step: int) -> Tensor:
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(step, settings)
    loss = stage.loss(step)
    loss.backward()  # type: ignore[no-untyped-call]
    norm = nn.utils.clip_grad_norm_(stage.modules.parameters(), settings.clip)
    if not math.isfinite(float(norm)):
        raise UserError(
            f"The loss of {stage.name} is not a number at step {step}: resume with a smaller learning_rate."
        )
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.detach()


def _with_averaged(stage: Stage, averaged: Averaged, look: Callable[[], T]) -> T:
    """What `look` finds with the averaged weights in place; then the raw ones are put back."""
    raw = {key: value.detach().clone() for key, value in stage.modules.state_dict().items()}
    stage.modules.load_state_dict(averaged.state)
    stage.modules.eval()
    try:
        with torch.no_grad():
            return look()
    finally:
        stage.modules.train()
        stage.modules.load_state_dict(raw)


def _draw(stage: Stage, averaged: Averaged, folder: Path, step: int) -> None:
    """Samples with the raw weights and with the averaged ones, side by side in one file."""
    if not isinstance(stage, Drawing):
        return
    stage.modules.eval()
    raw = stage.sample()
    stage.modules.train()
    if raw:
        folder.mkdir(exist_ok=True)
        drawn = side_by_side(raw, _with_averaged(stage, averaged, stage.sample))
        write_whole(folder / f"{stage.name}-{step:06d}.png", drawn)


def _saver(
    path: Path, stage: Stage, optimizer: torch.optim.Optimizer, averaged: Averaged
) -> Callable[[int], None]:
    def save(step: int) -> None:
        buffer = io.BytesIO()
        weights = stage.modules.state_dict()
        torch.save(
            {
                "step": step,
                "weights": weights,
                "averaged": averaged.state,
                "optimizer": optimizer.state_dict(),
            },
            buffer,
        )
        write_whole(path, buffer.getvalue())

    return save


def _restore(path: Path, stage: Stage, optimizer: torch.optim.Optimizer, averaged: Averaged) -> int:
    if not path.exists():
        return 0
    saved = torch.load(path, map_location=home(stage.modules), weights_only=True)
    stage.modules.load_state_dict(saved["weights"])
    optimizer.load_state_dict(saved["optimizer"])
    averaged.state = saved["averaged"]
    step: int = saved["step"]
    return step


class Log:
    """One JSON object a line: the mean loss of every 50 steps, and what `measure` found.

    The same goes to TensorBoard, in the folder `tensorboard` beside it, where that is installed.
    """

    every = 50

    def __init__(self, path: Path, *, keep_below: int) -> None:
        lines = _lines(path) if keep_below else []
        kept = [line for line in lines if line["step"] <= keep_below]
        self.before = max((line["seconds"] for line in kept), default=0.0)
        self.start = time.monotonic()
        self.sum, self.count = torch.zeros(()), 0
        self.path = path
        self.board = _board(path.parent / "tensorboard" / path.stem)
        write_whole(path, "".join(json.dumps(line) + "\n" for line in kept).encode())

    def seconds(self) -> float:
        """Time spent on this stage, resumed parts included."""
        return round(self.before + time.monotonic() - self.start, 1)

    def loss(self, step: int, loss: Tensor) -> None:
        self.sum, self.count = self.sum + loss, self.count + 1
        if (step + 1) % self.every == 0:
            self.write(
                {"step": step + 1, "seconds": self.seconds(), "loss": round(float(self.sum) / self.count, 6)}
            )
            self.sum, self.count = torch.zeros(()), 0

    def write(self, line: Mapping[str, float]) -> None:
        with plain_errors(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        for name in line.keys() - {"step", "seconds"} if self.board else ():
            self.board.add_scalar(name, line[name], int(line["step"]))

    def draw(self, title: str) -> None:
        """The losses until now as a picture beside the log."""
        picture = loss_curve(title, _lines(self.path))
        if picture is not None:
            write_whole(self.path.with_name(f"{title}-loss.png"), picture)


def _board(folder: Path) -> Any:
    """TensorBoard's writer; None where it is not installed."""
    if importlib.util.find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder))


def _lines(path: Path) -> list[dict[str, float]]:
    def read() -> Iterator[dict[str, float]]:
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                yield json.loads(line)
            except json.JSONDecodeError:  # the last line of a killed run
                return

    return list(read()) if path.exists() else []
