"""ComfyUI's graphs: from the sampler along its links to prompts, size, model; the rest is reported.

A graph can do anything; what is read is the pass that starts from noise or from a picture. Whatever runs
after it (upscaling, a second pass, faces) and whatever changes the model (LoRAs, ControlNet) is ignored, and
said.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from core.errors import UserError
from core.recipes.opened_recipe import OpenedRecipe
from core.recipes.readers.graph import Graph, Link, Node
from core.recipes.report_builder import CPU, ReportBuilder, as_number, as_whole
from core.request.model_defaults import MAX_STEPS
from core.request.sigmas import parse_sigmas

if TYPE_CHECKING:
    from core.sampling.registry import Registry

_SAMPLERS = {
    "SamplerEulerAncestral": "euler_ancestral",
    "SamplerEulerAncestralCFGPP": "euler_ancestral_cfg_pp",
    "SamplerDPMPP_2S_Ancestral": "dpmpp_2s_ancestral",
    "SamplerDPMPP_2M_SDE": "dpmpp_2m_sde",
    "SamplerDPMPP_3M_SDE": "dpmpp_3m_sde",
    "SamplerDPMPP_SDE": "dpmpp_sde",
    "SamplerDPMAdaptative": "dpm_adaptive",
    "SamplerLMS": "lms",
    "SamplerER_SDE": "er_sde",
    "SamplerSASolver": "sa_solver",
}
_SCHEDULES = {
    "KarrasScheduler": "karras",
    "ExponentialScheduler": "exponential",
    "PolyexponentialScheduler": "polyexponential",
    "LaplaceScheduler": "laplace",
    "BetaSamplingScheduler": "beta",
    "AlignYourStepsScheduler": "align_your_steps",
}
_OPTIONS = {
    "eta": "eta",
    "s_noise": "s_noise",
    "solver_type": "solver",
    "order": "order",
    "rtol": "rtol",
    "atol": "atol",
}
_MOST_PASSES = 50  # one after the other, that are followed
_MASKS = ("SetLatentNoiseMask", "VAEEncodeForInpaint")
_TEXTS = ("text", "text_g", "t5xxl", "prompt", "text_l", "clip_l", "string", "value")
_MODELS = ("ckpt_name", "unet_name", "model_name", "base_ckpt_name")
_REASONS = {
    "lora": "LoRAs are not applied here",
    "controlnet": "ControlNet is not here",
    "ipadapter": "IP-Adapter is not here",
    "upscale": "nothing is made larger afterwards here",
    "vaeloader": "load the model with that VAE (--vae) to have it",
    "vae": "decoding is this program's own",
    "save": "saving is this program's own",
    "preview": "showing is this program's own",
    "loadimage": "the picture must be given beside the request",
    "note": "is a note",
    "markdown": "is a note",
    "reroute": "only passes something on",
    "primitive": "is not what anything that is read comes from",
    "facedetailer": "nothing is painted over afterwards here",
    "ksampler": "a pass after the first one, which is not made here",
    "sampler": "a pass after the first one, which is not made here",
    "freeu": "FreeU is not here",
    "hypernetwork": "hypernetworks are not applied here",
}


def is_prompt(data: object) -> bool:
    """Whether JSON is a graph as it runs."""
    return isinstance(data, Mapping) and any(
        isinstance(item, Mapping) and "class_type" in item for item in data.values()
    )


def is_workflow(data: object) -> bool:
    """Whether JSON is a graph as it is edited."""
    return isinstance(data, Mapping) and isinstance(data.get("nodes"), list) and "links" in data


def read(data: Mapping[str, Any], registry: Registry) -> OpenedRecipe:
    """What a graph of either form says. Raises UserError when no sampler is in it."""
    graph = Graph.of_workflow(data) if is_workflow(data) else Graph.of_prompt(data)
    first = first_sampler(graph)
    if first is None:
        raise UserError(
            "the ComfyUI graph has no sampler that is known here; paste its prompt as text instead"
        )
    reader = _Reader(graph, first, ReportBuilder(registry))
    reader.read()
    return reader.sheet.found("comfyui")


def first_sampler(graph: Graph) -> Node | None:
    """The sampler that an output begins with: the nearest one before it, or what runs before that."""
    outputs = [n for n in graph.nodes.values() if re.match("(?i)save|preview|image ?save", n.kind)]
    found = [
        n
        for n in graph.upstream(*(link for node in outputs for link in node.links().values()))
        if _samples(n)
    ]
    found = found or [node for node in graph.nodes.values() if _samples(node)]
    if not found:
        return None
    node, seen = found[0], set[str]()
    while node.id not in seen and len(seen) < _MOST_PASSES:
        seen.add(node.id)
        latent = node.inputs.get("latent_image", node.inputs.get("latent"))
        node = next((before for before in graph.upstream(latent) if _samples(before)), node)
    return node


def _samples(node: Node) -> bool:
    """Whether it takes steps: it has a start, and steps or levels."""
    names = node.inputs.keys()
    starts = bool(names & {"seed", "noise_seed", "noise"})
    return (
        starts
        and bool(names & {"steps", "sigmas"})
        and bool(names & {"positive", "guider", "conditioning", "latent_image"})
    )


class _Reader:
    """Fills the sheet in from the graph around one sampler."""

    def __init__(self, graph: Graph, sampler: Node, sheet: ReportBuilder) -> None:
        self.graph, self.sampler, self.sheet = graph, sampler, sheet
        self.parts = [sampler]
        for name in ("guider", "sampler", "sigmas", "noise"):
            self.parts += self._chain(sampler.inputs.get(name), name)
        self.read_nodes = {node.id for node in self.parts}

    def read(self) -> None:
        self._prompts()
        self._method()
        for names, reader in ((("seed", "noise_seed"), self._seed), (("cfg",), self.sheet.cfg_scale)):
            found = self._find(*names)
            if found is not None:
                reader(*found)
        if any(node.kind == "BasicGuider" for node in self.parts):
            self.sheet.map(
                "BasicGuider", "no guidance", "cfg scale 1", "guidance of 1 is none", cfg_scale=1.0
            )
        self._latent()
        self._model()
        self._options()
        self._rest()

    def _chain(self, link: object, name: str) -> list[Node]:
        """The node of a link, and those that it passes on from under the same name."""
        nodes: dict[str, Node] = {}
        node = self.graph.source(link)
        while node is not None and node.id not in nodes:
            nodes[node.id] = node
            node = self.graph.source(node.inputs.get(name))
        return list(nodes.values())

    def _find(self, *names: str) -> tuple[str, object] | None:
        """The first of these inputs that a part has: its key in the report, and its value."""
        for node in self.parts:
            for name in names:
                if name in node.inputs:
                    node.used.add(name)
                    value = node.inputs[name]
                    if isinstance(value, Link):
                        kinds = (str,) if name in ("sampler_name", "scheduler", "sigmas") else (int, float)
                        value = self.graph.literal(value, kinds)
                    return f"{node.kind}.{name}", value
        return None

    def _seed(self, key: str, value: object) -> None:
        self.sheet.seed(key, value)
        part = next(node for node in self.parts if f"{node.kind}.{key.rpartition('.')[2]}" == key)
        if part.inputs.get("add_noise") in ("disable", False):
            self.sheet.ignore(
                f"{part.kind}.add_noise", part.inputs["add_noise"], "noise is always added here"
            )
            part.used.add("add_noise")
        self.sheet.keep("noise", "CPU", CPU)

    def _prompts(self) -> None:
        for name, field in (("positive", "prompt"), ("negative", "negative")):
            link = self._link(name) or (self._link("conditioning") if name == "positive" else None)
            node = self._encoder(link, name)
            if node is None:
                if link is not None:
                    self.sheet.ignore(name, "(linked)", "no text was found behind it")
                continue
            self._text(node, field)

    def _link(self, name: str) -> object:
        return next((node.inputs[name] for node in self.parts if name in node.inputs), None)

    def _encoder(self, link: object, name: str) -> Node | None:
        """The node that holds the text: through whatever changes a conditioning on the way."""
        seen: set[str] = set()
        node = self.graph.source(link)
        while node is not None and node.id not in seen:
            seen.add(node.id)
            if node.kind == "ConditioningZeroOut":
                return node
            if any(isinstance(node.inputs.get(text), str | Link) for text in _TEXTS):
                return node
            both = isinstance(node.inputs.get("positive"), Link) and isinstance(
                node.inputs.get("negative"), Link
            )
            first = (
                (["positive", "negative"][link.slot % 2] if isinstance(link, Link) else name) if both else ""
            )
            names = (first, "conditioning", "conditioning_to", "conditioning_1", *node.links())
            link = next((node.inputs[n] for n in names if isinstance(node.inputs.get(n), Link)), None)
            node = self.graph.source(link)
        return None

    def _text(self, node: Node, field: str) -> None:
        self.read_nodes.add(node.id)
        if node.kind == "ConditioningZeroOut":
            self.sheet.keep(f"{node.kind} ({field})", "", "nothing to steer by", **{field: ""})
            return
        for name in _TEXTS:
            text = self.graph.literal(node.inputs[name], (str,)) if name in node.inputs else None
            if isinstance(text, str) and (text or not field):
                break
        else:
            name, text = next(n for n in _TEXTS if n in node.inputs), ""
        node.used.add(name)
        key, new = f"{node.kind}.{name} ({field})", _as_a1111(str(text))
        self.sheet.prompt(key, new, field)
        if new != text:
            self.sheet.lines.pop()
            self.sheet.map(
                key, text, new, "square brackets are only text there, embeddings are not loaded here"
            )

    def _method(self) -> None:
        sampler = self._find("sampler_name") or self._kind(_SAMPLERS)
        schedule = self._find("scheduler") or self._kind(_SCHEDULES)
        self.sheet.method(sampler, schedule)
        typed = next((n for n in self.parts if n.kind == "ManualSigmas"), None)
        if typed is not None:
            self._typed(typed)
            return
        steps, denoise = self._find("steps"), self._find("denoise")
        if steps is not None:
            self.sheet.steps(*steps)
        if denoise is not None:
            self._denoise(*denoise)
        self._part_of_steps()

    def _kind(self, names: Mapping[str, str]) -> tuple[str, object] | None:
        return next(((node.kind, names[node.kind]) for node in self.parts if node.kind in names), None)

    def _typed(self, node: Node) -> None:
        node.used.add("sigmas")
        text = node.inputs.get("sigmas")
        try:
            levels = parse_sigmas(text if isinstance(text, str) else "")
        except UserError:
            self.sheet.ignore("ManualSigmas.sigmas", text, "are not falling noise levels")
        else:
            self.sheet.keep("ManualSigmas.sigmas", text, sigmas=levels)

    def _denoise(self, key: str, value: object) -> None:
        """Of N steps at denoise d, all N run there, on the last part of a grid of N / d; here N of N / d."""
        number, steps = as_number(value), self.sheet.values.get("steps")
        if number is None or not 0 < number <= 1:
            self.sheet.ignore(key, value, "is not above 0 and at most 1")
        elif self._picture() is None:
            if number == 1:
                self.sheet.keep(key, value, "all of the steps run")
            else:
                self.sheet.ignore(key, value, "has no effect without a picture to start from")
        elif steps is None or number == 1:
            self.sheet.strength(key, value)
        else:
            total = min(int(steps / number), MAX_STEPS)
            strength = number if int(total * number) == steps else math.ceil(1e4 * steps / total) / 1e4
            self.sheet.map(
                key,
                value,
                f"strength {strength:g}, steps {total}",
                f"so that {int(total * min(strength, 1.0))} steps run, as there; give the picture",
                strength=min(strength, 1.0),
                steps=total,
            )

    def _part_of_steps(self) -> None:
        """KSamplerAdvanced runs from one step to another."""
        start, end = self._find("start_at_step"), self._find("end_at_step")
        steps = self.sheet.values.get("steps")
        if start is not None:
            first = as_whole(start[1]) or 0
            if first <= 0:
                self.sheet.keep(*start, "from the first step")
            elif steps is None or first >= steps or self._picture() is None:
                self.sheet.ignore(*start, "steps are left out here only from a picture")
            else:
                part = math.ceil(1e4 * (steps - first) / steps) / 1e4
                self.sheet.map(
                    *start, f"strength {part:g}", "the same last steps; give the picture", strength=part
                )
        if end is not None:
            last = as_whole(end[1])
            if last is None or steps is None or last >= steps:
                self.sheet.keep(*end, "to the last step")
            else:
                self.sheet.ignore(*end, "all steps run here: what runs after it there is not here")

    def _picture(self) -> Node | None:
        """What encodes the picture that the run starts from."""
        before = self.graph.upstream(self._link("latent_image"))
        return next((node for node in before if node.kind.lower().startswith("vaeencode")), None)

    def _latent(self) -> None:
        """Size from the empty latent, or the picture and mask that the run starts from."""
        for node in self.graph.upstream(self._link("latent_image")):
            if {"width", "height"} <= node.inputs.keys() and "latent" in node.kind.lower():
                self.read_nodes.add(node.id)
                node.used |= {"width", "height", "batch_size"}
                sides = [self.graph.literal(node.inputs[name], (int, float)) for name in ("width", "height")]
                shown = "x".join(str(as_whole(side)) for side in sides) if None not in sides else sides
                self.sheet.size(f"{node.kind}.width, height", shown, *sides)
                if node.inputs.get("batch_size", 1) != 1:
                    note = "a recipe is of one picture: the first of theirs"
                    self.sheet.ignore(f"{node.kind}.batch_size", node.inputs["batch_size"], note)
                return
            if node.kind in _MASKS:
                self.read_nodes.add(node.id)
                note = "give the picture and its mask"
                self.sheet.map(node.kind, "(linked)", "inpainting, mask blur 0", note, mask_blur=0)
            elif node.kind.lower().startswith("vaeencode"):
                self.read_nodes.add(node.id)
                self.sheet.ignore(node.kind, "(linked)", "give the picture")

    def _model(self) -> None:
        """What the run's model and words come from, and what changes them on the way."""
        clip = [node.inputs.get("clip") for node in self.graph.nodes.values() if node.id in self.read_nodes]
        for node in self.graph.upstream(self._link("model"), *clip):
            name = next((name for name in _MODELS if name in node.inputs), None)
            if "stop_at_clip_layer" in node.inputs:
                layer = as_whole(self.graph.literal(node.inputs["stop_at_clip_layer"], (int, float)))
                node.used.add("stop_at_clip_layer")
                counted = None if layer is None else -layer
                note = "counted from the last layer, which is 1 here and -1 there"
                self.sheet.clip_skip(f"{node.kind}.stop_at_clip_layer", layer, counted, note)
            elif node.kind == "RescaleCFG" and "multiplier" in node.inputs:
                node.used.add("multiplier")
                self.sheet.number("RescaleCFG.multiplier", node.inputs["multiplier"], "cfg_rescale", 0.0, 1.0)
            elif name is not None and self.sheet.model_name is None:
                node.used.add(name)
                self.sheet.model(f"{node.kind}.{name}", self.graph.literal(node.inputs[name], (str,)))
            else:
                continue
            self.read_nodes.add(node.id)

    def _options(self) -> None:
        for node in self.parts[1:]:
            for name in _OPTIONS.keys() & node.inputs.keys():
                node.used.add(name)
                self.sheet.option(f"{node.kind}.{name}", node.inputs[name], _OPTIONS[name])

    def _rest(self) -> None:
        """A line for each input that was not read of nodes that were, and one for each other node."""
        for node in self.graph.nodes.values():
            if node.id in self.read_nodes:
                for name, value in node.literals().items():
                    if name not in node.used:
                        self.sheet.ignore(f"{node.kind}.{name}", value, "has no counterpart here")
            elif not node.used:
                typed = {name: value for name, value in node.literals().items() if value not in ("", None)}
                title = f" ({node.title})" if node.title and node.title != node.kind else ""
                self.sheet.ignore(f"{node.kind}{title}", typed or "(no values)", reason(node))


def _as_a1111(text: str) -> str:
    """A prompt in the notation here: escaped square brackets, without words that load an embedding."""
    plain = re.sub(r"\(?embedding:[^\s,()]{1,200}(?::[0-9.]{1,6}\))?", "", text)
    return re.sub(r"(?<!\\)([\[\]])", r"\\\1", plain)


def reason(node: Node) -> str:
    """Why a node is ignored."""
    small = node.kind.lower().replace(" ", "").replace("_", "")
    return next((why for word, why in _REASONS.items() if word in small), "this program has no such node")
