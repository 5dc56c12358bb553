"""Runs a sampler from any plugin, and checks its calls of `denoise` and the steps it yields."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from types import FrameType
from typing import cast

import torch
from torch import Tensor

from core.errors import UserError
from core.memory import is_out_of_memory
from core.sampling.contract import Denoise, Noise, Step
from core.sampling.registry import SamplerInfo

# Limits that stop a sampler which would never end; sane samplers stay far below.
MOST_EVALS_A_STEP = 1000
MOST_ADAPTIVE_STEPS = 10_000

Steps = Generator[Step, None, None]


class _ContractError(Exception):
    """The sampler broke the contract; the message completes a sentence that starts with its name."""


class _Stop(BaseException):
    """Stops a sampler that swallowed an error of `denoise` and calls again; passes `except Exception`."""


def run_sampler(
    info: SamplerInfo,
    denoise: Denoise,
    x: Tensor,
    sigmas: Sequence[float],
    noise: Noise,
    options: Mapping[str, object],
) -> Iterator[Step]:
    """The steps of `info` from `x` (B, C, h, w) at `sigmas[0]`, each checked before it is yielded.

    Raises UserError for options that the sampler does not have, and, with plugin and version, as soon as it
    breaks the contract. Errors of `denoise` pass through. Closing the iterator closes the sampler.
    """
    watch = _Watch(denoise, x)
    # A decorator sets the mode again at each resume; a `with` inside a generator leaks it to the consumer.
    function = torch.no_grad()(info.function)
    steps = function(watch, x, [float(sigma) for sigma in sigmas], noise, **info.check_options(options))
    return _blamed(info, watch, _checked(info, watch, steps, sigmas))


def _blamed(info: SamplerInfo, watch: _Watch, steps: Steps) -> Steps:
    """The same steps; an error in the sampler becomes one sentence with its name."""
    done = 0
    try:
        with contextlib.closing(steps):
            for step in steps:
                yield step
                done += 1
    except (Exception, SystemExit, _Stop) as error:
        cause = watch.raised or error  # the sampler may have swallowed or renamed what denoise raised
        if isinstance(cause, _ContractError):
            raise UserError(f"Sampler {info} {cause}.") from cause
        if cause is watch.raised or isinstance(cause, UserError) or is_out_of_memory(cause):
            raise cause from cause.__cause__
        reason = f"failed at step {done + 1} with {type(cause).__name__}: {cause}"
        raise UserError(f"Sampler {info} {reason.rstrip('.')}.") from cause


def _checked(info: SamplerInfo, watch: _Watch, steps: Iterator[Step], sigmas: Sequence[float]) -> Steps:
    due = len(sigmas) - 1
    most = MOST_ADAPTIVE_STEPS if info.adaptive else due
    count, last = 0, None
    with _closing(steps):
        for step in steps:
            watch.insist()
            if count == most:
                raise _ContractError(f"does not stop: it continued after {most} steps")
            watch.look_at(step, count)
            if not info.adaptive and not math.isclose(
                step.sigma, sigmas[count + 1], rel_tol=1e-5, abs_tol=1e-9
            ):
                raise _ContractError(
                    f"ended step {count + 1} at sigma {step.sigma:g}, not {sigmas[count + 1]:g}"
                )
            count, last, watch.evals = count + 1, step, 0
            yield step
    watch.insist()
    if count < due and not info.adaptive:
        raise _ContractError(f"stopped after {count} of {due} steps")
    if info.adaptive and due > 0 and (last is None or last.sigma != sigmas[-1]):
        raise _ContractError("stopped before it reached sigma 0")
    if last is not None and not bool(last.x.isfinite().all()):
        raise _ContractError("ended with NaN or infinite values; if other samplers do too, try dtype float32")


class _Watch:
    """Wraps `denoise` for a sampler: checks shapes and values, and tells the sampler's errors from its own.

    `unconditional` is the denoiser's own of the last call, or what a denoiser without one returned.
    Values are checked on the CPU only. On another device that would stall every step, so there only the end
    of the run is checked.
    """

    def __init__(self, denoise: Denoise, x: Tensor) -> None:
        self.denoise, self.start = denoise, x
        self.evals = 0  # since the last step
        self.raised: BaseException | None = None
        self.unconditional: Tensor  # from the first call on

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        if self.raised is not None:
            raise _Stop
        try:
            self._check_call(x, sigma)
            clean = self.denoise(x, sigma)
            if not self._finite(clean):
                reason = f"NaN or infinite values at sigma {sigma:g}"
                raise UserError(f"The model gave {reason}; try dtype float32.")
        except BaseException as error:
            self.raised = error
            raise
        self.unconditional = getattr(self.denoise, "unconditional", clean)
        return clean

    def _check_call(self, x: Tensor, sigma: float) -> None:
        self.evals += 1
        if self.evals > MOST_EVALS_A_STEP:
            raise _ContractError(f"does not stop: it called denoise {MOST_EVALS_A_STEP} times without a step")
        self._check_shape("called denoise with", x)
        if not _is_level(sigma) or sigma == 0:
            raise _ContractError(f"called denoise at sigma {sigma!r} instead of a float above 0")
        if not self._finite(x):
            raise _ContractError("called denoise with NaN or infinite values")

    def insist(self) -> None:
        """Raise again an error of `denoise` that the sampler swallowed."""
        if self.raised is not None:
            raise self.raised

    def look_at(self, step: object, index: int) -> None:
        """Raise _ContractError unless this is a valid step number `index`."""
        if not isinstance(step, Step):
            raise _ContractError(f"yielded a {type(step).__name__} instead of a Step")
        if step.index != index:
            raise _ContractError(f"yielded step index {step.index} instead of {index}")
        if not _is_level(step.sigma):
            raise _ContractError(f"yielded a step at sigma {step.sigma!r}")
        self._check_shape("yielded x:", step.x)
        self._check_shape("yielded denoised:", step.denoised)
        if not (self._finite(step.x) and self._finite(step.denoised)):
            raise _ContractError(f"yielded NaN or infinite values in step {index + 1}")

    def _check_shape(self, what: str, x: object) -> None:
        if not isinstance(x, Tensor):
            raise _ContractError(f"{what} a {type(x).__name__} instead of a tensor")
        if x.shape != self.start.shape or x.dtype != self.start.dtype or x.device != self.start.device:
            raise _ContractError(f"{what} {_describe(x)} instead of {_describe(self.start)}")

    def _finite(self, x: Tensor) -> bool:
        return x.device.type != "cpu" or bool(x.isfinite().all())


def in_sampler(frame: FrameType | None) -> bool:
    """Whether a thread at `frame` is in a sampler's own code: called from here, and not inside `denoise`."""
    while frame is not None:
        if frame.f_code is _checked.__code__:
            return True
        if frame.f_code is _Watch.__call__.__code__:
            return False
        frame = frame.f_back
    return False


def _is_level(sigma: object) -> bool:
    return isinstance(sigma, (int, float)) and math.isfinite(sigma) and sigma >= 0


@contextlib.contextmanager
def _closing(steps: Iterator[Step]) -> Generator[None]:
    """Close the sampler in any case; one that keeps yielding when closed is abandoned."""
    try:
        yield
    finally:
        with contextlib.suppress(Exception):
            cast("Generator[Step, None, None]", steps).close()


def _describe(x: Tensor) -> str:
    return f"{tuple(x.shape)} {str(x.dtype).removeprefix('torch.')} on {x.device}"
