"""The short text next to each view: what it shows, the formula, its source, the code that computes it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Lesson:
    """`text` is Markdown with formulas in $. `code` holds (function, words in the line to show)."""

    name: str
    title: str
    text: str
    source: str
    code: tuple[tuple[str, str], ...]


_FORWARD = Lesson(
    "forward",
    "Forward: adding noise",
    r"""The forward process adds noise to data in a known way: at timestep $t$ the clean $x_0$ is mixed
with noise $\epsilon \sim \mathcal{N}(0, I)$,

$$x_t = \sqrt{\bar\alpha_t}\,x_0 + \sqrt{1-\bar\alpha_t}\,\epsilon$$

so any $t$ is reached in one step. One number says how noisy $x_t$ is, the **signal-to-noise ratio**
$\bar\alpha_t/(1-\bar\alpha_t) = 1/\sigma_t^2$. The code uses the noise level $\sigma$: the same state,
divided by $\sqrt{\bar\alpha_t}$, is $x = x_0 + \sigma\epsilon$.

*Try:* find the $t$ at which you can no longer recognise the data. What is the SNR there?""",
    "Ho et al. 2020, [arXiv:2006.11239](https://arxiv.org/abs/2006.11239), eq. 4",
    (
        ("core.learn.forward:noised", "math.sqrt"),
        ("core.inference.start:Start.state", "x = x0 + sigma * noise"),
    ),
)
_SCHEDULES = Lesson(
    "schedules",
    "Schedules: which noise levels",
    r"""Two choices are easily confused. The **betas** belong to the model: they fix the noise of each
timestep in training, $\bar\alpha_t = \prod_{s \le t}(1-\beta_s)$. The **schedule** is chosen for each run: it
selects the $N$ noise levels that the sampler visits. Marks at low $\sigma$ are steps for details, marks at
high $\sigma$ are steps for composition.

**img2img** at denoising strength $s$ runs only the last $\lfloor N s \rfloor$ steps. The faded marks are
skipped.

*Try:* compare cosine and linear betas at the last timesteps; Karras and linspace with 10 steps; strength
0.3.""",
    "Nichol and Dhariwal 2021, [arXiv:2102.09672](https://arxiv.org/abs/2102.09672); Karras et al. 2022, "
    "[arXiv:2206.00364](https://arxiv.org/abs/2206.00364), eq. 5",
    (
        ("core.sampling.schedule:NoiseSchedule.from_betas", "accumulate("),
        ("core.sampling.schedule:last_part", "return"),
    ),
)
_REVERSE = Lesson(
    "reverse",
    "Reverse: from noise to data",
    r"""A sampler moves from noise to data along the **score**, the direction in which the density of noisy
data grows. A denoiser $D$ gives the score:

$$\nabla_x \log p(x;\sigma) = \frac{D(x;\sigma) - x}{\sigma^2}, \qquad
\frac{dx}{d\sigma} = \frac{x - D(x;\sigma)}{\sigma}$$

For these points $D$ is an exact formula: the mean of the data points, each weighted by how well it explains
$x$. So every error you see is the sampler's. All samplers get the same number of evaluations of $D$: one that
needs two per step takes half as many steps.

*Try:* 6 evaluations, then 40. Which sampler draws the moons first? Why are DDPM's paths jagged?""",
    "Karras et al. 2022, [arXiv:2206.00364](https://arxiv.org/abs/2206.00364), eq. 1 and 3; "
    "Song et al. 2021, [arXiv:2011.13456](https://arxiv.org/abs/2011.13456)",
    (("core.learn.clouds:exact_denoiser", "softmax"),),
)

_DDPM = Lesson(
    "ddpm",
    "DDPM and DDIM: a thousand steps or twenty",
    r"""DDPM goes back through every timestep and adds fresh noise at each. DDIM uses the same network without
fresh noise: it follows the probability-flow ODE, so it can skip timesteps. In this project's coordinates one
step to the level $\sigma'$ is

$$x' = D(x;\sigma) + \frac{\sigma'}{\sigma}\,\bigl(x - D(x;\sigma)\bigr)$$

DDIM's error shrinks as the number of steps grows. DDPM's image also depends on the noise of every step:
far from DDIM's image does not mean wrong.

*Try:* compare 10 steps with 50. Which parts of the image change, and which are the same already?""",
    "Song et al. 2021, [arXiv:2010.02502](https://arxiv.org/abs/2010.02502), eq. 12; "
    "Ho et al. 2020, [arXiv:2006.11239](https://arxiv.org/abs/2006.11239), algorithm 2",
    (("sampler:ddim", "x = x0 + math.sqrt"), ("sampler:ddpm", "noise(sigma, target)")),
)
_GUIDANCE = Lesson(
    "guidance",
    "Guidance: how much the prompt weighs",
    r"""The network runs twice per step, with the prompt and without it. Guidance multiplies the difference
of the two estimates by the scale $s$:

$$\hat D = D_\varnothing + s\,(D_c - D_\varnothing)$$

Scale $s = 1$ gives the conditional estimate $D_c$, $s = 0$ the unconditional one $D_\varnothing$. Large
scales follow the prompt more closely, but with less variety and too much contrast, because the sum leaves the
range of natural images.

*Try:* an early step and a late one: where does the prompt change more? At which scale do colours saturate?
Several prompts at scales 0, 1, 4: why are all images of the first column the same?""",
    "Ho and Salimans 2022, [arXiv:2207.12598](https://arxiv.org/abs/2207.12598), eq. 6",
    (("core.sampling.guidance:guide", "return unconditional"),),
)
_INTERPOLATION = Lesson(
    "interpolation",
    "Interpolation: between two seeds, prompts or images",
    r"""Gaussian noise in $n$ dimensions lies near a sphere: $\|z\| \approx \sqrt n$. The straight line
between two draws (lerp) leaves the sphere; halfway its length is only $1/\sqrt2$ of that, which the model
never saw in training. The arc (slerp) stays on the sphere:

$$\mathrm{slerp}(a,b;t) = \frac{\sin((1-t)\theta)}{\sin\theta}\,a + \frac{\sin(t\theta)}{\sin\theta}\,b$$

Prompt embeddings are not noise: for them lerp works. Mixed latents of two images decode to a double exposure;
img2img turns it into one image.

*Try:* two seeds of one prompt: at which share does the image change from one to the other?""",
    "Shoemake 1985, Animating Rotation with Quaternion Curves; Song et al. 2021, "
    "[arXiv:2010.02502](https://arxiv.org/abs/2010.02502), section 5.3",
    (("core.learn.interpolation:slerp", "return (math.sin"),),
)
_LATENTS = Lesson(
    "latents",
    "Latent space: what the network sees",
    r"""The UNet never sees a pixel. A VAE encodes the image into latents, a few channels at an eighth of its
width and height, and decodes the result:

$$z = c\,\mathcal E(x), \qquad \hat x = \mathcal D(z / c)$$

where $c$ scales $z$ to a standard deviation of about 1, as the noise schedule expects. Details that the VAE
loses cannot be drawn by any sampler: small text and small faces fail first.

*Try:* a photograph and a drawing. Where is the error? Which channel looks like brightness?""",
    "Rombach et al. 2022, [arXiv:2112.10752](https://arxiv.org/abs/2112.10752), section 3.1 and appendix G",
    (("core.models.vae:AutoencoderKL.encode", "scaling_factor"),),
)
_TRAIN = Lesson(
    "train",
    "Train: a model of your own",
    r"""A training step takes clean data $x_0$, a random timestep $t$ for each and fresh noise $\epsilon$,
mixes them as in the first lesson, and trains the network to separate them again:

$$L = \mathbb{E}_{x_0,\,\epsilon,\,t}\;w_t\,\bigl\|\,f_\theta(x_t, t) - y_t\,\bigr\|^2$$

The target $y_t$ is the noise $\epsilon$, or an equivalent: the clean $x_0$, or
$v = \sqrt{\bar\alpha_t}\,\epsilon - \sqrt{1-\bar\alpha_t}\,x_0$. The loss stays well above 0, because much of
the noise cannot be predicted. The finished model has the **moving average** of the weights, not the last
weights.

*Try:* 100 steps, then 600. Which samples look right first, those of the raw or the averaged weights?""",
    "Ho et al. 2020, [arXiv:2006.11239](https://arxiv.org/abs/2006.11239), eq. 14 and algorithm 1; "
    "Salimans and Ho 2022, [arXiv:2202.00512](https://arxiv.org/abs/2202.00512)",
    (
        ("core.training.stages.diffusion:DiffusionStage._loss", "x = signal * x0"),
        ("core.training.stages.diffusion:DiffusionStage._loss", "error = "),
    ),
)

LESSONS = {
    lesson.name: lesson
    for lesson in (_FORWARD, _SCHEDULES, _REVERSE, _DDPM, _GUIDANCE, _INTERPOLATION, _LATENTS, _TRAIN)
}
