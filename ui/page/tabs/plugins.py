"""The plugins tab: installed plugins and their sources, failures, and a check of any sampler."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from core.errors import UserError
from core.request.parse import parse_options
from ui.page.widgets import text
from ui.page.widgets.fields import QUICK
from ui.page.widgets.sampler_controls import sampler_choices
from ui.service.sampler_check import Check

if TYPE_CHECKING:
    from core.sampling.registry import PluginStatus, Registry

EXAMPLE = '''from itertools import pairwise
from latentcanvas import Step, hookimpl

def my_euler(denoise, x, sigmas, noise):
    """Follows the slope at the start of each step."""
    for i, (sigma, target) in enumerate(pairwise(sigmas)):
        clean = denoise(x, sigma)
        slope = (x - clean) / sigma
        x = x + (target - sigma) * slope
        yield Step(i, target, x, clean)

@hookimpl
def register_samplers(register):
    register("my_euler", my_euler, title="My Euler")
'''
HOW = f"""
<section class="lc-how" aria-label="How to write a plugin">
<h3>Write a plugin</h3>
<p>A sampler is a generator function. Save this as <code>my_euler.py</code> in a folder, for example
<code>my-samplers</code>:</p>
<pre tabindex="0"><code>{escape(EXAMPLE)}</code></pre>
<p>Start the page with that folder; the sampler is then in the list of samplers:</p>
<pre tabindex="0"><code>python launcher.py --plugins-dir my-samplers</code></pre>
<p>Then check it here. Typed options become controls. A package with an entry point is installed with pip.
The guide is <code>docs/plugins/README.md</code>; complete packages to copy are in <code>examples</code>.
A plugin runs with all your permissions: install only what you trust.</p>
</section>
"""
_NOT_YET = (
    "Thirteen rules test whether a sampler follows the contract and is numerically correct, on denoisers "
    "that are known exactly. No model is needed. Choose a sampler, or click its name in the list."
)
_VERDICTS = {True: ("holds", "lc-good"), False: ("broken", "lc-bad"), None: ("not judged", "lc-none")}
_PICK = """
element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-sampler]");
  if (button) trigger("pick", { sampler: button.dataset.sampler });
});
"""


class PluginsTab:
    """The tab: `build` it inside the caller's layout, then `connect` it.

    directory, enabled: the arguments of `core.plugins.current.configure`, so that a check loads the same
    plugins. tracebacks: whether to show them; they hold paths, which guests of a shared page must not see.
    """

    def __init__(
        self,
        registry: Registry,
        *,
        directory: Path | None = None,
        enabled: bool = True,
        tracebacks: bool = True,
    ) -> None:
        self.registry, self.directory, self.enabled = registry, directory, enabled
        self.tracebacks = tracebacks

    def build(self) -> None:
        """The controls."""
        with gr.Row(elem_id="plugins", equal_height=False):
            with gr.Column(scale=6, min_width=320, elem_id="plugin-left"):
                self.listing = gr.HTML(
                    listing_html(self.registry, self.tracebacks),
                    js_on_load=_PICK,
                    apply_default_css=False,
                    elem_id="plugin-list",
                )
                gr.HTML(HOW, apply_default_css=False, elem_id="plugin-how")
            with gr.Column(scale=5, min_width=320, elem_id="plugin-check"):
                gr.HTML('<h3 class="lc-title">Check a sampler</h3>', apply_default_css=False)
                self._build_check()

    def _build_check(self) -> None:
        first = next(iter(_external(self.registry)), None) or next(iter(self.registry.samplers), None)
        with gr.Row():
            self.sampler = gr.Dropdown(
                sampler_choices(self.registry),
                value=first,
                label="Sampler to check",
                elem_id="check-sampler",
                scale=3,
            )
            self.options = gr.Textbox(
                label="With options",
                placeholder="eta=0.5, s_noise=1",
                info="Options left out have their defaults; declared orders are for the defaults",
                max_lines=1,
                elem_id="check-options",
                scale=2,
            )
        with gr.Row():
            self.run = gr.Button("Run the check", variant="primary", elem_id="check-run", scale=3)
            self.stop = gr.Button(
                "Stop", variant="stop", interactive=False, elem_id="check-stop", scale=1, min_width=80
            )
        self.findings = gr.HTML(
            f'<p class="lc-teach">{_NOT_YET}</p>', apply_default_css=False, elem_id="findings"
        )

    def connect(self) -> None:
        """Wire the controls. Checks run one at a time, but never wait for a run."""
        outputs = [self.findings, self.run, self.stop]
        slow: dict[str, Any] = {**QUICK, "concurrency_limit": 1, "concurrency_id": "check"}
        inputs = [self.sampler, self.options]
        running = self.run.click(self.on_check, inputs, outputs, **slow)
        picked = self.listing.pick(_picked, None, inputs, **QUICK).then(
            self.on_check, inputs, outputs, **slow
        )
        self.stop.click(_stopped, None, outputs, cancels=[running, picked], **QUICK)

    def on_check(self, sampler: str | None, options: str | None) -> Iterator[tuple[str, Any, Any]]:
        """(findings, run, stop), while the check runs and at its end."""
        idle = gr.Button(interactive=True), gr.Button(interactive=False)
        try:
            given = self._checked(sampler, options or "")
            check = Check(str(sampler), given, directory=self.directory, enabled=self.enabled)
        except (UserError, OSError) as error:
            yield text.error(str(error)), *idle
            return
        try:
            yield running_html(check), gr.Button(interactive=False), gr.Button(interactive=True)
            while not check.wait(1.0):
                yield running_html(check), gr.skip(), gr.skip()
            yield report_html(check.report()), *idle
        except UserError as error:
            yield text.error(str(error)), *idle
        finally:
            check.stop()  # the page may have been closed, or Stop pressed

    def _checked(self, sampler: str | None, options: str) -> dict[str, str]:
        """The options as typed. Raises UserError for bad ones."""
        if not sampler:
            raise UserError("choose a sampler to check")
        given = parse_options(word for word in map(str.strip, options.split(",")) if word)
        self.registry.sampler(sampler).check_options(given)
        return given


def listing_html(registry: Registry, tracebacks: bool = True) -> str:
    """Every plugin: failed ones first, then external ones, the built-in ones folded."""
    failed = [_plugin(status, tracebacks) for status in registry.failed]
    others = [_plugin(status, tracebacks) for status in registry.plugins if _is_outside(status)]
    builtin = [status for status in registry.plugins if status.builtin and not status.error]
    shown = "".join(failed + others)
    if not shown:
        shown = '<p class="lc-teach">No external plugins are installed. Your own plugins appear here.</p>'
    title = '<h3 class="lc-title">Installed</h3>'
    return f'{title}<div class="lc-plugins">{shown}</div>{_builtin(builtin, registry)}'


def _builtin(statuses: Sequence[PluginStatus], registry: Registry) -> str:
    samplers, schedules = (
        [name for status in statuses for name in getattr(status, kind)] for kind in ("samplers", "schedules")
    )
    said = f"Built in: {len(samplers)} samplers and {len(schedules)} schedules, through the same hooks"
    rows = "".join(
        f'<tr><th scope="row">{escape(status.name)}<span>{escape(status.module)}</span></th>'
        f"<td>{_gave(status)}</td></tr>"
        for status in statuses
    )
    opened = "" if len(registry.plugins) > len(statuses) else " open"
    return (
        f'<details class="lc-builtin"{opened}><summary>{said}</summary>'
        f'<div class="lc-scroll" tabindex="0" role="region" aria-label="Built-in plugins">'
        f"<table><tbody>{rows}</tbody></table></div></details>"
    )


def _plugin(status: PluginStatus, tracebacks: bool) -> str:
    wrong = ""
    if status.error:
        wrong = f'<p class="lc-error">{escape(status.error)}</p>'
        if tracebacks and status.traceback:
            wrong += (
                "<details><summary>Traceback</summary>"
                f'<pre tabindex="0"><code>{escape(status.traceback)}</code></pre></details>'
            )
    state, look = "loaded", "lc-good"
    if status.error:
        state, look = "partly loaded" if _things(status) else "failed", "lc-bad"
    where = " ".join(filter(None, (status.distribution, status.version)))
    module = f" · <code>{escape(status.module)}</code>" if status.module and tracebacks else ""
    return (
        f'<article class="lc-plugin"><h4>{escape(status.name)} <span class="{look}">{state}</span></h4>'
        f'<p class="lc-quiet">from {escape(where)}{module}</p>{wrong}{_gave(status)}</article>'
    )


def _gave(status: PluginStatus) -> str:
    """Its samplers, each a button, and its schedules."""
    samplers = "".join(
        f'<button type="button" data-sampler="{escape(name, quote=True)}" '
        f'title="Check {escape(name, quote=True)}">{escape(name)}</button>'
        for name in status.samplers
    )
    schedules = "".join(f"<span>{escape(name)}</span>" for name in status.schedules)
    said = f'<span class="lc-kind">samplers</span>{samplers}' if samplers else ""
    said += f'<span class="lc-kind">schedules</span>{schedules}' if schedules else ""
    return f'<div class="lc-gave">{said}</div>' if said else ""


def running_html(check: Check) -> str:
    """The progress of a check."""
    return (
        f'<p class="lc-teach" role="status">Checking {escape(check.sampler)} in its own process: '
        f"{check.seconds:.0f} s of about 10 s.</p>"
    )


def report_html(report: Mapping[str, Any]) -> str:
    """A report as `Report.to_dict` gives it, one row for each rule."""
    findings = report["findings"]
    held = sum(finding["passed"] is True for finding in findings)
    broken = [finding["number"] for finding in findings if finding["passed"] is False]
    who = " ".join(filter(None, (str(report["plugin"]), str(report["version"]))))
    options = ", ".join(f"{name}={value}" for name, value in report["options"].items())
    verdict = f"{held} of {len(findings)} rules hold"
    if broken:
        verdict = f"broken: rule{'' if len(broken) == 1 else 's'} {', '.join(map(str, broken))}; {verdict}"
    return (
        f'<p class="lc-verdict {"lc-bad" if broken else "lc-good"}" role="status">{escape(verdict)}</p>'
        f'<p class="lc-quiet"><b>{escape(str(report["sampler"]))}</b> from {escape(who)}'
        f"{f', with {escape(options)}' if options else ''}</p>"
        '<table class="lc-findings"><thead><tr><th scope="col">Rule</th><th scope="col">Verdict</th>'
        '<th scope="col">Measured</th></tr></thead>'
        f"<tbody>{''.join(map(_finding, findings))}</tbody></table>"
    )


def _finding(finding: Mapping[str, Any]) -> str:
    word, look = _VERDICTS[finding["passed"]]
    figure = "" if finding["figure"] is None else f"<b>{finding['figure']:.3g}</b> "
    return (
        f'<tr><th scope="row">{finding["number"]} {escape(finding["name"])}</th>'
        f'<td class="{look}">{word}</td>'
        f"<td>{figure}{escape(finding['sentence'])}</td></tr>"
    )


def _things(status: PluginStatus) -> tuple[str, ...]:
    return status.samplers + status.schedules


def _is_outside(status: PluginStatus) -> bool:
    return not status.builtin and not status.error


def _external(registry: Registry) -> list[str]:
    return [name for status in registry.plugins if not status.builtin for name in status.samplers]


def _picked(event: gr.EventData) -> tuple[str, str]:
    return str(event.sampler), ""


def _stopped() -> tuple[str, Any, Any]:
    words = '<p class="lc-teach" role="status">The check was stopped.</p>'
    return words, gr.Button(interactive=True), gr.Button(interactive=False)
