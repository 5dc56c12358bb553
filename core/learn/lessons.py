"""The short text beside each view: what is to be seen, the formula, its source, the code that does it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Lesson:
    """`text` is Markdown with formulas in $. `code` are (function, words in the line that does it)."""

    name: str
    title: str
    text: str
    source: str
    code: tuple[tuple[str, str], ...]


_FORWARD = Lesson(
    "forward",
    "Forward: adding noise",
    r"""Training begins by spoiling data in a known way: at timestep $t$ a clean $x_0$ is mixed with noise
$\epsilon \sim \mathcal{N}(0, I)$,

$$x_t = \sqrt{\bar\alpha_t}\,x_0 + \sqrt{1-\bar\alpha_t}\,\epsilon$$

so any $t$ is reached in one jump. Only one number matters, the **signal-to-noise ratio**
$\bar\alpha_t/(1-\bar\alpha_t) = 1/\sigma_t^2$. The code counts in $\sigma$: the same state, divided by
$\sqrt{\bar\alpha_t}$, is $x = x_0 + \sigma\epsilon$.

*Try:* find the $t$ at which you can no longer say what it is. What is its SNR?""",
    "Ho et al. 2020, [arXiv:2006.11239](https://arxiv.org/abs/2006.11239), eq. 4",
    (
        ("core.learn.forward:noised", "math.sqrt"),
        ("core.inference.start:Start.state", "x = x0 + sigma * noise"),
    ),
)
_SCHEDULES = Lesson(
    "schedules",
    "Schedules: which noise levels",
    r"""Two choices are easily mixed up. The **betas** belong to the model: how much noise each of its
timesteps was trained with, $\bar\alpha_t = \prod_{s \le t}(1-\beta_s)$. The **schedule** is yours at
sampling: which $N$ of those levels the sampler visits. Many marks at low $\sigma$ are many steps for details,
at high $\sigma$ for composition.

**img2img** at strength $s$ runs the last $\lfloor N s \rfloor$ steps: what is left of its start is not run.

*Try:* cosine beside linear betas at the end; Karras beside linspace with 10 steps; strength 0.3.""",
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
    r"""A sampler walks from noise to data along the **score**, the direction in which the noisy density
grows. A denoiser $D$ knows it:

$$\nabla_x \log p(x;\sigma) = \frac{D(x;\sigma) - x}{\sigma^2}, \qquad
\frac{dx}{d\sigma} = \frac{x - D(x;\sigma)}{\sigma}$$

For these points $D$ is a formula, the mean of the data weighted by how well each explains $x$, so what you
see is the sampler's error alone. All may ask $D$ equally often: a second-order sampler takes half the steps.

*Try:* 6 evaluations, then 40. Which sampler is the first to draw moons? Why do DDPM's ways tremble?""",
    "Karras et al. 2022, [arXiv:2206.00364](https://arxiv.org/abs/2206.00364), eq. 1 and 3; "
    "Song et al. 2021, [arXiv:2011.13456](https://arxiv.org/abs/2011.13456)",
    (("core.learn.clouds:exact_denoiser", "softmax"),),
)

_DDPM = Lesson(
    "ddpm",
    "DDPM and DDIM: a thousand steps or twenty",
    r"""DDPM walks back through every timestep and draws noise at each. DDIM found that the same network also
fits a way without noise, the probability-flow ODE, on which steps can be skipped. In this project's
coordinates one step to the level $\sigma'$ is

$$x' = D(x;\sigma) + \frac{\sigma'}{\sigma}\,\bigl(x - D(x;\sigma)\bigr)$$

DDIM's error shrinks as its steps grow. DDPM's picture is another draw each time: far from DDIM's does not
mean wrong.

*Try:* 10 steps beside 50. Which parts of the picture change, and which were settled at once?""",
    "Song et al. 2021, [arXiv:2010.02502](https://arxiv.org/abs/2010.02502), eq. 12; "
    "Ho et al. 2020, [arXiv:2006.11239](https://arxiv.org/abs/2006.11239), algorithm 2",
    (("sampler:ddim", "x = x0 + math.sqrt"), ("sampler:ddpm", "noise(sigma, target)")),
)
_GUIDANCE = Lesson(
    "guidance",
    "Guidance: how much the prompt weighs",
    r"""The network is asked twice, with the prompt and without it. Guidance goes on along the difference,
past what the prompt alone would say:

$$\hat D = D_\varnothing + s\,(D_c - D_\varnothing)$$

Scale $s = 1$ is the conditional estimate, 0 the unconditional one. Large scales give what was asked for, in
fewer variants and with too much contrast, for the sum leaves the range in which pictures lie.

*Try:* an early step and a late one: where does the prompt still pull? At which scale do colours burn?
Several prompts at scales 0, 1, 4: why is the first column one picture?""",
    "Ho and Salimans 2022, [arXiv:2207.12598](https://arxiv.org/abs/2207.12598), eq. 6",
    (("core.sampling.guidance:guide", "return unconditional"),),
)
_INTERPOLATION = Lesson(
    "interpolation",
    "Interpolation: between two of anything",
    r"""Noise in many dimensions lies on a thin shell: $\|z\| \approx \sqrt n$. The straight line between two
draws cuts through it, at half way with only $1/\sqrt2$ of that length, a noise that the model never saw. The
arc keeps to the shell:

$$\mathrm{slerp}(a,b;t) = \frac{\sin((1-t)\theta)}{\sin\theta}\,a + \frac{\sin(t\theta)}{\sin\theta}\,b$$

Text states may go on the straight line. Mixed latents of two pictures are a double exposure, until noise and
the model make one picture of them.

*Try:* two seeds of one prompt: at which share does the picture tip over?""",
    "Shoemake 1985, Animating Rotation with Quaternion Curves; Song et al. 2021, "
    "[arXiv:2010.02502](https://arxiv.org/abs/2010.02502), section 5.3",
    (("core.learn.interpolation:slerp", "return (math.sin"),),
)
_LATENTS = Lesson(
    "latents",
    "Latent space: what the network really sees",
    r"""The UNet never sees a pixel. A VAE encodes the picture into a few channels at an eighth of its size,
and decodes what comes out:

$$z = c\,\mathcal E(x), \qquad \hat x = \mathcal D(z / c)$$

where $c$ gives $z$ a spread of about 1, which the noise schedule counts on. What the VAE cannot keep, no
sampler can draw: fine lettering and small faces fail here first.

*Try:* a photograph and a drawing. Where is the error? Which channel looks like light and dark?""",
    "Rombach et al. 2022, [arXiv:2112.10752](https://arxiv.org/abs/2112.10752), section 3.1 and appendix G",
    (("core.models.vae:AutoencoderKL.encode", "scaling_factor"),),
)
_TRAIN = Lesson(
    "train",
    "Train: a model of your own",
    r"""A training step takes clean data, a random timestep $t$ for each and fresh noise $\epsilon$, mixes
them as in the first lesson, and asks the network to take them apart again:

$$L = \mathbb{E}_{x_0,\,\epsilon,\,t}\;w_t\,\bigl\|\,f_\theta(x_t, t) - y_t\,\bigr\|^2$$

The target $y_t$ is the noise $\epsilon$, or what says as much: the clean $x_0$, or
$v = \sqrt{\bar\alpha_t}\,\epsilon - \sqrt{1-\bar\alpha_t}\,x_0$. The loss never comes near 0, for much of the
noise cannot be known. The finished model is not the last weights but their **moving average**.

*Try:* 100 steps, then 600. Which samples are right first, those of raw or of averaged weights?""",
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
