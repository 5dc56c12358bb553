"""What each approximation saves, and how far its pictures are from the exact ones.

    python -m tools.savings_error [sampler] [pictures]
    python -m tools.savings_error full [rounds]

The first form makes pictures of the embedded model, exact and by each approximation in turns, in float32 and
20 steps: prompts are the model's examples, seeds count up. It prints the saving of the time that the steps
take, and the root mean square error of the pictures' levels, 0 to 255, the mean and the largest of them. Runs
with fewer steps stand beside them: they save without any approximation.

The second form times evaluations of Stable Diffusion 1.5's UNet in full size with random weights, whose
pictures would say nothing: 64x64 latents, with guidance, in the dtype that this hardware gets, and prints
what 20 of them come to. All times are the processor's, on one thread.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.device import find_dtype
from core.inference.pipeline import Pipeline
from core.models.config import UNetConfig
from core.models.unet import UNet
from core.weights.parts import laid_out
from tools.step_speed import CPU, filled

STEPS = 20
REUSE, MERGING = (2, 3, 5), (0.25, 0.5, 0.75)
KINDS: dict[str, dict[str, Any]] = {
    "exact": {},
    "15 steps": {"steps": 15},
    "10 steps": {"steps": 10},
    "guidance from 0.2": {"cfg_from": 0.2},
    "guidance to 0.8": {"cfg_to": 0.8},
    "guidance to 0.5": {"cfg_to": 0.5},
    **{f"feature reuse {n}": {"feature_reuse": n} for n in REUSE},
    **{f"token merging {share}": {"token_merging": share} for share in MERGING},
    "reuse 2, merging 0.5": {"feature_reuse": 2, "token_merging": 0.5},
    "reuse 2, guidance to 0.5": {"feature_reuse": 2, "cfg_to": 0.5},
}


def picture(pipe: Pipeline, **fields: Any) -> tuple[NDArray[np.float64], float]:
    """A picture's levels, 0 to 255, and the seconds that its steps took."""
    run = pipe.stream(**fields, keep_steps=False)
    began = time.process_time()
    for _ in run:
        pass
    seconds = time.process_time() - began
    return np.asarray(run.result().images[0], dtype=np.float64), seconds


def compare(sampler: str, pictures: int) -> None:
    """Print the table of the embedded model."""
    pipe = Pipeline.load("tiny", device="cpu", dtype="float32")
    spent: dict[str, float] = dict.fromkeys(KINDS, 0.0)
    errors: dict[str, list[float]] = {name: [] for name in KINDS}
    for i in range(pictures):
        prompt = pipe.examples[i % len(pipe.examples)]
        fields = {"prompt": prompt, "sampler": sampler, "steps": STEPS, "seed": i + 1}
        exact: NDArray[np.float64] | None = None
        for name, changes in KINDS.items():
            levels, seconds = picture(pipe, **fields | changes)
            exact = levels if exact is None else exact
            spent[name] += seconds
            errors[name].append(float(np.sqrt(np.square(levels - exact).mean())))
    print(f"{sampler}, {STEPS} steps, {pictures} pictures")
    for name, found in errors.items():
        saved = 1 - spent[name] / spent["exact"]
        print(f"| {name} | {saved:.0%} | {statistics.mean(found):.1f} | {max(found):.1f} |")


def network() -> UNet:
    """Stable Diffusion's, with random weights laid out as a pipeline has them."""
    with torch.device("meta"):
        empty = UNet(UNetConfig())
    made: UNet = filled(empty, find_dtype(None, CPU))
    weights = {key: laid_out(weight, CPU, weight.dtype) for key, weight in made.state_dict().items()}
    made.load_state_dict(weights, assign=True)
    return made.requires_grad_(False)


def evaluations() -> dict[str, Callable[[], Any]]:
    """What is timed, by name; the exact one first."""
    unet, dtype = network(), find_dtype(None, CPU)
    generator = torch.Generator().manual_seed(0)
    x, text = torch.randn(2, 4, 64, 64, generator=generator), torch.randn(2, 77, 768, generator=generator)

    def given(count: int) -> tuple[Tensor, Tensor, Tensor]:
        return x[:count].to(dtype), torch.full((count,), 501.0), text[:count].to(dtype)

    deep = unet.evaluate(*given(2))[1]

    def merged(share: float) -> Callable[[], Any]:
        return lambda: unet.evaluate(*given(2), merging=share)

    return {
        "exact": lambda: unet(*given(2)),
        "without guidance": lambda: unet(*given(1)),
        "with deep features": lambda: unet.evaluate(*given(2), deep=deep),
        "with deep features, token merging 0.5": lambda: unet.evaluate(*given(2), deep=deep, merging=0.5),
        **{f"token merging {share}": merged(share) for share in MERGING},
        "time embedding": lambda: unet.time_embedding(torch.zeros(2, 320, dtype=dtype)),
    }


def time_evaluations(rounds: int) -> None:
    """Print each evaluation's seconds and part of the exact one's, by pairs; and what 20 of them save."""
    calls = evaluations()
    spent: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds + 1):  # the first one warms up
        for name, call in calls.items():
            began = time.process_time()
            call()
            spent[name].append(time.process_time() - began)
    spent = {name: each[1:] for name, each in spent.items()}
    parts = {}
    for name, each in spent.items():
        pairs = [a / b for a, b in zip(each, spent["exact"], strict=True)]
        parts[name] = statistics.median(pairs)
        scatter = f"({min(pairs):.3f} to {max(pairs):.3f})"
        print(f"| {name} | {statistics.median(each):.4f} s | {parts[name]:.3f} {scatter} |")
    for every in REUSE:
        whole = -(-STEPS // every)
        left = (whole + (STEPS - whole) * parts["with deep features"]) / STEPS
        print(f"feature reuse {every}: {1 - left:.0%} of {STEPS} evaluations")


def main(arguments: list[str]) -> None:
    """One of the two forms."""
    torch.set_num_threads(1)
    kind, *count = arguments or ["ddim"]
    with torch.no_grad():
        if kind == "full":
            time_evaluations(int(count[0]) if count else 3)
        else:
            compare(kind, int(count[0]) if count else 12)


if __name__ == "__main__":
    main(sys.argv[1:])
