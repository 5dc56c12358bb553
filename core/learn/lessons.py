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
    (("core.learn.forward:noised", "math.sqrt"), ("core.starting:Start.state", "x = x0 + sigma * noise")),
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
    (("core.schedule:NoiseSchedule.from_betas", "accumulate("), ("core.schedule:last_part", "return")),
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

LESSONS = {lesson.name: lesson for lesson in (_FORWARD, _SCHEDULES, _REVERSE)}
