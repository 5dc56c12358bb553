"""From a network's prediction to the guided clean estimate, image by image."""

from __future__ import annotations

import math
import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from core.errors import Cancelled
from core.sampling.denoiser import Blend, Denoiser
from core.sampling.guidance import guide, interval, rescale
from core.sampling.schedule import NoiseSchedule

MODEL = NoiseSchedule.from_betas("scaled_linear")
SIGMA = MODEL.sigmas[400]


class TinyNet(nn.Module):
    """Random weights, wide enough that kernels change with the batch size; counts its calls and images."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.first, self.last = nn.Conv2d(4, 64, 3, padding=1), nn.Conv2d(64, 4, 3, padding=1)
            self.time, self.text, self.norm = nn.Linear(1, 64), nn.Linear(8, 64), nn.GroupNorm(8, 64)
        self.requires_grad_(False)
        self.seen: list[tuple[int, float]] = []

    def forward(self, x: Tensor, timestep: Tensor, context: Tensor) -> Tensor:
        assert timestep.shape == (x.shape[0],)
        assert context.shape[0] == x.shape[0]
        assert x.dtype == context.dtype
        self.seen.append((x.shape[0], float(timestep[0])))
        shift = self.time(timestep[:, None].to(x.dtype) / 1000) + self.text(context.mean(1))
        hidden = nn.functional.silu(self.norm(self.first(x)) + shift[:, :, None, None])
        output: Tensor = self.last(hidden) * 0.3
        return output


def tensors(count: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """X (B, 4, 16, 16), conditional and unconditional (B, 7, 8)"""
    generator = torch.Generator().manual_seed(seed)
    x = SIGMA * torch.randn(count, 4, 16, 16, generator=generator)
    contexts = torch.randn(2, count, 7, 8, generator=generator)
    return x, contexts[0], contexts[1]


def make(network: Any, conditional: Tensor, unconditional: Tensor | None, **changes: Any) -> Denoiser:
    settings: dict[str, Any] = {"prediction": "epsilon", "cfg_scale": 5.0, **changes}
    return Denoiser(network, MODEL, conditional=conditional, unconditional=unconditional, **settings)


@pytest.mark.parametrize("cfg_scale", [1.0, 5.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_batch_is_its_images_bit_for_bit(cfg_scale: float, dtype: torch.dtype) -> None:
    x, conditional, unconditional = tensors(4)
    network = TinyNet().to(dtype)
    batch = make(network, conditional, unconditional, cfg_scale=cfg_scale, dtype=dtype)(x, SIGMA)
    assert batch.dtype == torch.float32
    for i in range(4):
        one = slice(i, i + 1)
        alone = make(network, conditional[one], unconditional[one], cfg_scale=cfg_scale, dtype=dtype)
        assert torch.equal(batch[one], alone(x[one], SIGMA))


def test_a_batch_may_be_one_call() -> None:
    x, conditional, unconditional = tensors(4)
    network = TinyNet()
    batched = make(network, conditional, unconditional, batched=True)(x, SIGMA)
    assert [count for count, _ in network.seen] == [8]
    alone = make(TinyNet(), conditional, unconditional)(x, SIGMA)
    assert torch.allclose(batched, alone, rtol=1e-4, atol=1e-4)


def test_one_text_serves_the_whole_batch() -> None:
    x, conditional, unconditional = tensors(3)
    shared = make(TinyNet(), conditional[:1], unconditional[:1])(x, SIGMA)
    repeated = make(TinyNet(), conditional[:1].repeat(3, 1, 1), unconditional[:1].repeat(3, 1, 1))(x, SIGMA)
    assert torch.equal(shared, repeated)
    one_negative = make(TinyNet(), conditional, unconditional[:1])(x, SIGMA)
    assert torch.equal(one_negative[:1], make(TinyNet(), conditional[:1], unconditional[:1])(x[:1], SIGMA))


def test_guidance_is_two_evaluations_in_one_call_and_none_is_half_of_it() -> None:
    x, conditional, unconditional = tensors(1)
    network = TinyNet()
    guided = make(network, conditional, unconditional)
    guided(x, SIGMA)
    assert network.seen == [(2, 400.0)]
    assert guided.evals == 1
    plain = make(network, conditional, None, cfg_scale=1.0)
    plain(x, SIGMA)
    assert network.seen[1:] == [(1, 400.0)]
    assert plain.estimates[-1].unconditional is None


def test_the_estimates_are_kept() -> None:
    x, conditional, unconditional = tensors(2)
    denoise = make(TinyNet(), conditional, unconditional, cfg_scale=3.0)
    result = denoise(x, SIGMA)
    (estimate,) = denoise.estimates
    assert estimate.unconditional is not None
    assert torch.equal(estimate.guided, result)
    assert torch.equal(guide(estimate.conditional, estimate.unconditional, 3.0), result)
    alone = make(TinyNet(), conditional, None, cfg_scale=1.0)(x, SIGMA)  # other batch size, other last bits
    torch.testing.assert_close(estimate.conditional, alone)


def test_the_unconditional_estimate_is_there_after_a_call() -> None:
    x, conditional, unconditional = tensors(1)
    denoise = make(TinyNet(), conditional, unconditional, cfg_scale=3.0)
    with pytest.raises(AttributeError):
        _ = denoise.unconditional
    denoise(x, SIGMA)
    assert denoise.unconditional is denoise.estimates[-1].unconditional
    plain = make(TinyNet(), conditional, None, cfg_scale=1.0)
    assert plain(x, SIGMA) is plain.unconditional


@pytest.mark.parametrize("prediction", ["epsilon", "v", "x0"])
@pytest.mark.parametrize("sigma", [MODEL.sigma_min, 0.7, MODEL.sigma_max])
def test_a_perfect_network_gives_the_clean_latent_back(prediction: str, sigma: float) -> None:
    generator = torch.Generator().manual_seed(1)
    x0, epsilon = torch.randn(2, 3, 4, 8, 8, generator=generator, dtype=torch.float64)
    alpha_bar = 1 / (1 + sigma**2)
    state = math.sqrt(alpha_bar) * x0 + math.sqrt(1 - alpha_bar) * epsilon  # of DDPM
    v = math.sqrt(alpha_bar) * epsilon - math.sqrt(1 - alpha_bar) * x0
    answers = {"epsilon": epsilon, "v": v, "x0": x0}
    rows = iter(range(3))

    def network(x: Tensor, timestep: Tensor, context: Tensor) -> Any:
        row = next(rows)
        torch.testing.assert_close(x, state[row : row + 1])
        assert timestep.tolist() == pytest.approx([MODEL.timestep(sigma)])
        return answers[prediction][row : row + 1]

    text = torch.zeros(1, 7, 8)
    denoise = make(network, text, None, prediction=prediction, cfg_scale=1.0, dtype=torch.float64)
    torch.testing.assert_close(denoise(x0 + sigma * epsilon, sigma), x0, rtol=1e-9, atol=1e-9)


def test_guiding_clean_estimates_is_guiding_noise() -> None:
    x, conditional, unconditional = tensors(1)
    network = TinyNet()
    scaled, time = x / math.sqrt(1 + SIGMA**2), torch.tensor([400.0])
    noise = guide(network(scaled, time, conditional), network(scaled, time, unconditional), 5.0)
    torch.testing.assert_close(make(network, conditional, unconditional)(x, SIGMA), x - SIGMA * noise)


def test_the_unconditional_half_is_skipped_outside_of_the_interval() -> None:
    x, conditional, unconditional = tensors(1)
    network = TinyNet()
    denoise = make(network, conditional, unconditional, cfg_interval=(1.0, SIGMA))
    plain = make(TinyNet(), conditional, None, cfg_scale=1.0)
    for sigma in (2 * SIGMA, SIGMA, 1.0):
        clean = denoise(x, sigma)
        assert torch.equal(clean, plain(x, sigma)) == (sigma != SIGMA)
    assert [count for count, _ in network.seen] == [1, 2, 1]
    assert (denoise.evals, denoise.passes, plain.passes) == (3, 4, 3)
    assert [estimate.unconditional is None for estimate in denoise.estimates] == [True, False, True]
    assert torch.equal(denoise.unconditional, clean)


@pytest.mark.parametrize("cfg_rescale", [0.0, 0.7])
def test_what_is_known_is_put_into_every_estimate_to_the_bit(cfg_rescale: float) -> None:
    x, conditional, unconditional = tensors(2)
    known = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(5))
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., :5], mask[..., 5] = 1, 0.5
    arguments = {"cfg_rescale": cfg_rescale}
    blended = make(TinyNet(), conditional, unconditional, blend=Blend(known, mask), **arguments)
    free = make(TinyNet(), conditional, unconditional, **arguments)
    clean, without = blended(x, SIGMA), free(x, SIGMA)
    torch.testing.assert_close(clean[..., :5], without[..., :5])
    torch.testing.assert_close(clean[..., 5], (without[..., 5] + known[..., 5]) / 2)
    (estimate,) = blended.estimates
    assert estimate.unconditional is blended.unconditional
    for each in (clean, estimate.conditional, blended.unconditional):
        assert torch.equal(each[..., 6:], known.expand_as(x)[..., 6:])


def test_an_inpainting_network_reads_more_channels() -> None:
    x, conditional, unconditional = tensors(2)
    extra = torch.randn(1, 5, 16, 16, generator=torch.Generator().manual_seed(5))
    seen: list[Tensor] = []

    def network(state: Tensor, timestep: Tensor, context: Tensor) -> Tensor:
        seen.append(state)
        return state[:, :4]

    make(network, conditional, unconditional, extra=extra)(x, SIGMA)
    assert [state.shape for state in seen] == [(2, 9, 16, 16)] * 2
    for i, state in enumerate(seen):
        assert torch.equal(state[:, :4], (x[i : i + 1] / math.sqrt(1 + SIGMA**2)).repeat(2, 1, 1, 1))
        assert torch.equal(state[:, 4:], extra.repeat(2, 1, 1, 1))


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_rescaled_guidance_has_the_contrast_of_the_conditional_prediction(share: float) -> None:
    a, b = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    guided = guide(a, b, 7.0)
    changed = rescale(guided, a, share)
    dims = (1, 2, 3)
    torch.testing.assert_close(
        changed.std(dim=dims), share * a.std(dim=dims) + (1 - share) * guided.std(dim=dims)
    )
    torch.testing.assert_close(changed / changed.std(), guided / guided.std(), rtol=0.1, atol=0.1)


@pytest.mark.parametrize(
    ("start", "end", "on"),
    [
        (0.0, 1.0, [0, 1, 2, 3, 4]),
        (0.2, 0.6, [1, 2]),
        (0.6, 1.0, [3, 4]),  # 0.6 * 5 is a little more than 3
        (0.0, 0.2, [0]),
        (0.1, 0.9, [1, 2, 3, 4]),
        (0.21, 0.39, []),
    ],
)
def test_an_interval_of_steps_is_one_of_noise_levels(start: float, end: float, on: list[int]) -> None:
    grid = (14.6, 5.0, 2.0, 0.9, 0.3, 0.0)
    low, high = interval(grid, start, end)
    assert [i for i, sigma in enumerate(grid[:-1]) if low < sigma <= high] == on
    assert (low == 0) == (end == 1)
    assert (high == math.inf) == (start == 0)


def test_scales_zero_and_one_are_the_two_estimates() -> None:
    a, b = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(guide(a, b, 1.0), a)
    torch.testing.assert_close(guide(a, b, 0.0), b)


def test_a_cancel_stops_before_the_network_runs() -> None:
    x, conditional, unconditional = tensors(1)
    network, cancel = TinyNet(), threading.Event()
    denoise = make(network, conditional, unconditional, cancel=cancel)
    denoise(x, SIGMA)
    cancel.set()
    with pytest.raises(Cancelled):
        denoise(x, SIGMA)
    assert len(network.seen) == denoise.evals == 1


def test_what_cannot_be_run_is_refused() -> None:
    _, conditional, unconditional = tensors(1)
    with pytest.raises(ValueError, match="epsilon, v or x0"):
        make(TinyNet(), conditional, unconditional, prediction="score")
    with pytest.raises(ValueError, match="unconditional"):
        make(TinyNet(), conditional, None)
    with pytest.raises(ValueError, match="unconditional"):
        make(TinyNet(), conditional, unconditional[:, :3])


@pytest.mark.gpu
def test_on_an_accelerator_a_batch_is_one_call() -> None:
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if device is None:
        pytest.skip("no accelerator")
    x, conditional, unconditional = tensors(3)
    network = TinyNet().to(device)
    there = make(network, conditional.to(device), unconditional.to(device))(x.to(device), SIGMA)
    assert network.seen == [(6, 400.0)]
    here = make(TinyNet(), conditional, unconditional)(x, SIGMA)
    torch.testing.assert_close(there.cpu(), here, rtol=1e-2, atol=1e-2)
