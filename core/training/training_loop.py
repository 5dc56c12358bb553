"""One training loop for every stage: resumable, averaged, logged.

A stage provides its parameters and a loss for step `k`. All randomness of step `k` comes from (seed, k), so a
run that was stopped and resumed gets the same batches and the same noise. Where several processes train one
model, each computes its share of the batch, and the main one alone writes.
"""

from __future__ import annotations

import contextlib
import io
import math
import signal
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from tqdm import tqdm

from core.device import has_bfloat16
from core.errors import Cancelled, UserError
from core.files import plain_errors, write_whole
from core.training.log import Log
from core.training.muon import Muon
from core.training.processes import Processes
from core.training.progress import TrainingProgress, Watch
from core.training.samples import side_by_side
from core.training.stage import Drawing, Stage, T

Precision = Literal["bfloat16", "float32"]


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """How long and how fast a stage trains."""

    steps: int
    batch: int
    learning_rate: float
    optimizer: Literal["adamw", "muon"] = "adamw"
    warmup: int = 200
    decay: float = 0.2  # the last part of the run, in which the learning rate falls to 0
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
        rules = {
            "learning_rate must be above 0": self.learning_rate > 0,
            "clip, the maximum gradient norm, must be above 0": self.clip > 0,
            "ema must be at least 0 and below 1": 0 <= self.ema < 1,
            "decay, a share of the run, must be between 0 and 1": 0 <= self.decay <= 1,
            "warmup, weight_decay and sample_every must not be negative": min(
                self.warmup, self.weight_decay, self.sample_every
            )
            >= 0,
        }
        broken = [rule for rule, holds in rules.items() if not holds]
        if broken:
            raise UserError(f"{broken[0]}.")


def home(module: nn.Module) -> torch.device:
    """The device of a module's weights; the CPU if it has none."""
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
    watch: Watch | None = None,
    processes: Processes | None = None,
) -> dict[str, Tensor]:
    """Train to `settings.steps` and return the averaged weights; with the other `processes`, if any. `watch`
    is told of each step, of what was measured, and of samples.

    A checkpoint is written every `save_every` steps, on Ctrl-C and at the end, whole or not at all. In the
    folder there are also the log, the loss as an image, and samples every `sample_every` steps. Raises
    UserError when the loss is not a number, with the last good checkpoint kept; Cancelled, after a
    checkpoint, when `stop` is set.
    """
    processes = Processes() if processes is None else processes
    optimizer = _optimizer(stage.modules, settings)
    averaged = Averaged(stage.modules, settings.ema)
    path = folder / f"{stage.name}.checkpoint"
    restore = partial(_restore, path, stage, optimizer, averaged, settings)
    first = processes.each(restore) if resume else 0
    begin = partial(Log, folder / f"{stage.name}.jsonl", keep_below=first, writes=processes.main)
    log = processes.each(begin)
    save = _saver(path, stage, optimizer, averaged, settings)
    losses = processes.losses(stage)
    tell = _teller(stage, settings, watch)
    progress = tqdm(
        range(first, settings.steps), stage.name, initial=first, total=settings.steps, mininterval=5,
        disable=not processes.main,
    )  # fmt: skip
    with _interrupts_deferred() as interrupted, contextlib.closing(log):
        for step in progress:
            loss = one_step(stage, losses, optimizer, settings, step)
            averaged.update(stage.modules, step)
            stopped = stop is not None and stop.is_set()
            loss, leave = processes.agree(loss, bool(interrupted) or stopped)
            log.add(loss)
            done = step + 1
            tell(done, loss=loss)
            if done % log.every == 0:
                processes.alone(partial(log.loss, done))
            if done % settings.save_every == 0 or done == settings.steps or leave:
                processes.alone(partial(save, done))
            if leave and stopped and not interrupted:
                raise Cancelled(f"the training was stopped after step {done} of {stage.name}")
            if leave:
                if processes.main:
                    progress.write(f"{stage.name}: stopped after step {done}; --resume continues from there.")
                raise KeyboardInterrupt
            if done % settings.measure_every == 0 or done == settings.steps:
                processes.alone(partial(_measure, stage, averaged, log, progress, tell, done))
            if settings.sample_every and (done % settings.sample_every == 0 or done == settings.steps):
                processes.alone(partial(_draw, stage, averaged, log, tell, folder / "samples", done))
    return processes.same(averaged.state)


def _teller(stage: Stage, settings: LoopSettings, watch: Watch | None) -> Callable[..., None]:
    """A function that reports to `watch`, if there is one."""

    def tell(done: int, **what: Any) -> None:
        if watch is not None:
            watch(TrainingProgress(stage=stage.name, done=done, steps=settings.steps, **what))

    return tell


def _optimizer(modules: nn.Module, settings: LoopSettings) -> torch.optim.Optimizer:
    kind = Muon if settings.optimizer == "muon" else torch.optim.AdamW
    return kind(
        modules.parameters(),
        settings.learning_rate,
        betas=(0.9, 0.99),
        weight_decay=settings.weight_decay,
    )


@contextlib.contextmanager
def _interrupts_deferred() -> Generator[list[int]]:
    """Collect Ctrl-C instead of raising in the middle of a step; the list is empty until then."""
    pressed: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield pressed
        return
    before = signal.signal(signal.SIGINT, lambda number, frame: pressed.append(number))
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)


def one_step(
    stage: Stage,
    losses: Callable[[int], Tensor],
    optimizer: torch.optim.Optimizer,
    settings: LoopSettings,
    step: int,
) -> Tensor:
    """Learn from the batch of step `step` and return its loss, a scalar. Raises UserError if it is not a
    number.
    """
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(step, settings)
    loss = losses(step)
    loss.backward()
    norm = nn.utils.clip_grad_norm_(stage.modules.parameters(), settings.clip)
    if not math.isfinite(float(norm)):
        raise UserError(
            f"The loss of {stage.name} is not a number at step {step}: resume with a smaller learning_rate."
        )
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.detach()


def _with_averaged(stage: Stage, averaged: Averaged, look: Callable[[], T]) -> T:
    """The result of `look` with the averaged weights in place; the raw weights are restored after it."""
    raw = {key: value.detach().clone() for key, value in stage.modules.state_dict().items()}
    stage.modules.load_state_dict(averaged.state)
    stage.modules.eval()
    try:
        with torch.no_grad():
            return look()
    finally:
        stage.modules.train()
        stage.modules.load_state_dict(raw)


def _measure(
    stage: Stage, averaged: Averaged, log: Log, progress: tqdm[int], tell: Callable[..., None], step: int
) -> None:
    figures = _with_averaged(stage, averaged, stage.measure)
    log.write({"step": step, "seconds": log.seconds(), **figures})
    log.draw(stage.name)
    tell(step, figures=figures)
    progress.write(f"{stage.name} {step}: {figures}")


def _draw(
    stage: Stage, averaged: Averaged, log: Log, tell: Callable[..., None], folder: Path, step: int
) -> None:
    """Samples with the raw weights and with the averaged ones, side by side in one file."""
    if not isinstance(stage, Drawing):
        return
    stage.modules.eval()
    raw = stage.sample()
    stage.modules.train()
    if not raw:
        return
    path = folder / f"{stage.name}-{step:06d}.png"
    with plain_errors(folder):
        folder.mkdir(exist_ok=True)
    drawn = side_by_side(raw, _with_averaged(stage, averaged, stage.sample))
    write_whole(path, drawn)
    log.show(step, drawn)
    tell(step, samples=path)


def _saver(
    path: Path, stage: Stage, optimizer: torch.optim.Optimizer, averaged: Averaged, settings: LoopSettings
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
                "kind": settings.optimizer,
            },
            buffer,
        )
        write_whole(path, buffer.getvalue())

    return save


def _restore(
    path: Path, stage: Stage, optimizer: torch.optim.Optimizer, averaged: Averaged, settings: LoopSettings
) -> int:
    """Put back what `_saver` saved and return the steps that were done; 0 without a checkpoint. Raises
    UserError for a file that is damaged, and for another optimizer's state.
    """
    if not path.exists():
        return 0
    try:
        saved = torch.load(path, map_location=home(stage.modules), weights_only=True)
        kind = saved.get("kind", settings.optimizer)
        stage.modules.load_state_dict(saved["weights"])
    except Exception as error:  # a cut-off file fails in many ways: in the archive, the pickle or the weights
        raise UserError(
            f"{path} is damaged or of another model ({type(error).__name__}): "
            "delete it to train this stage again."
        ) from error
    if kind != settings.optimizer:
        raise UserError(
            f"{path} was trained with the optimizer {kind}: resume with it, or start a new run with --out."
        )
    asked = [group["weight_decay"] for group in optimizer.param_groups]
    optimizer.load_state_dict(saved["optimizer"])
    for group, weight_decay in zip(optimizer.param_groups, asked, strict=True):
        group["weight_decay"] = weight_decay  # the current recipe's value, as for the learning rate
    averaged.state = saved["averaged"]
    step: int = saved["step"]
    return step
