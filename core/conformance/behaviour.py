"""The rules about side effects and stopping."""

from __future__ import annotations

import random
from collections.abc import Generator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from core.conformance.subject import Counted, Subject, Wrong, grid, same, start
from core.errors import Cancelled


def memory(subject: Subject) -> tuple[float, str]:
    """11: copy every tensor when it is first seen, and compare at the end."""
    kept: list[tuple[str, Tensor, Tensor]] = []
    exact, x, sigmas = subject.denoiser(), start(), grid(6)

    def keep(what: str, tensor: Tensor) -> None:
        kept.append((what, tensor, tensor.clone()))

    def denoise(x: Tensor, sigma: float) -> Tensor:
        clean = exact(x, sigma)
        keep("the result of denoise", clean)
        return clean

    keep("the start", x)
    made = subject.steps(denoise, x, sigmas, subject.noise())
    for step in islice(made, subject.most(sigmas)):
        keep(f"x of step {step.index}", step.x)
        keep(f"denoised of step {step.index}", step.denoised)
    changed = [what for what, tensor, copy in kept if not same(tensor, copy)]
    if changed:
        raise Wrong(
            f"of {len(kept)} tensors, {len(changed)} were changed later; the first is {changed[0]}",
            len(changed),
        )
    return 0, f"of {len(kept)} yielded or given tensors are changed later"


def stopping(subject: Subject) -> tuple[float, str]:
    """12: close after the first step; then cancel in each of the first calls of denoise."""
    _close(subject)
    for allowed in range(4):
        _cancel(subject, allowed)
    return 4, "cancels and a close, and the sampler stops after each"


def _close(subject: Subject) -> None:
    counted = Counted(subject.denoiser())
    steps: Any = subject.steps(counted, start(), grid(6), subject.noise())
    next(steps)
    before = counted.calls
    try:
        steps.close()
    except RuntimeError as error:
        raise Wrong(f"continues after it is closed ({error})") from error
    if counted.calls != before:
        raise Wrong("calls denoise after it is closed", counted.calls - before)


def _cancel(subject: Subject, allowed: int) -> None:
    """Cancel in the call of denoise number `allowed` + 1."""
    exact, calls = subject.denoiser(), 0

    def denoise(x: Tensor, sigma: float) -> Tensor:
        nonlocal calls
        calls += 1
        if calls > 100:
            raise KeyboardInterrupt  # a sampler that retries forever
        if calls > allowed:
            raise Cancelled
        return exact(x, sigma)

    try:
        for step in subject.steps(denoise, start(), grid(6), subject.noise()):
            if calls > allowed:
                raise Wrong(f"yields step {step.index} after a cancel inside denoise", allowed)
    except Cancelled:
        if calls > allowed + 1:
            raise Wrong("calls denoise again after a cancel", calls - allowed - 1) from None
        return
    except KeyboardInterrupt:
        raise Wrong("keeps calling denoise after a cancel", allowed) from None
    except Wrong:
        raise
    except Exception as error:
        raise Wrong(f"turns a cancel into {type(error).__name__}", allowed) from error
    raise Wrong("swallows a cancel inside denoise", allowed)


def surroundings(subject: Subject) -> tuple[float, str]:
    """13: compare after each step of the bare function, without the engine's safeguards."""
    exact, sigmas = subject.denoiser(), grid(6)
    # States that no sampler would set by chance.
    torch.manual_seed(UNLIKELY)
    np.random.seed(UNLIKELY)
    random.seed(UNLIKELY)
    for grad in (False, True):
        torch.set_grad_enabled(grad)
        before = _surroundings()
        bare = subject.info.function(Counted(exact), start(), sigmas, subject.noise(), **subject.options)
        for step in islice(bare, subject.most(sigmas)):
            _compare(before, _surroundings(), f"after step {step.index}")
        _compare(before, _surroundings(), "at the end")
    return len(before), "global states, unchanged after every step"


UNLIKELY = 2_718_281_828


def _compare(before: dict[str, Any], now: dict[str, Any], when: str) -> None:
    changed = [name for name in before if before[name] != now[name]]
    if changed:
        raise Wrong(f"{changed[0]} is changed {when}", len(changed))


def _surroundings() -> dict[str, Any]:
    """All global state that a sampler might change, comparable by ==."""
    return {
        "the gradient mode": torch.is_grad_enabled(),
        "the inference mode": torch.is_inference_mode_enabled(),
        "the default dtype": torch.get_default_dtype(),
        "the default device": str(torch.get_default_device()),
        "autocast": (torch.is_autocast_enabled("cpu"), torch.is_autocast_enabled("cuda")),
        "the choice of deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "the number of threads": torch.get_num_threads(),
        "torch's random state": torch.get_rng_state().numpy().tobytes(),
        "numpy's random state": _numpys_state(),
        "random's state": random.getstate(),
    }


def _numpys_state() -> list[Any]:
    return [part.tobytes() if isinstance(part, np.ndarray) else part for part in np.random.get_state()]


@contextmanager
def restored() -> Generator[None]:
    """Restore all global state afterwards, whatever the sampler did."""
    grad, dtype, device = torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_default_device()
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    drawn, numpys, pythons = torch.get_rng_state(), np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        torch.set_grad_enabled(grad)
        torch.set_default_dtype(dtype)
        if torch.get_default_device() != device:
            torch.set_default_device(device)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        if torch.are_deterministic_algorithms_enabled() != deterministic:
            torch.use_deterministic_algorithms(deterministic)  # it imports PyTorch's compiler
        torch.set_rng_state(drawn)
        np.random.set_state(numpys)
        random.setstate(pythons)
