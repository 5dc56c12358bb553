"""ComfyUI's graphs: follows the sampler's links to prompts, size and model; reports the rest.

A graph can do anything; read is the pass that starts from noise or from an init image. Nodes that run after
it (upscaling, a second pass, faces) or change the model (LoRAs, ControlNet) are ignored and reported.
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
from core.request.fields import MAX_STEPS
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
_MOST_PASSES = 50  # followed, one after the other
_MASKS = ("SetLatentNoiseMask", "VAEEncodeForInpaint")
_TEXTS = ("text", "text_g", "t5xxl", "prompt", "text_l", "clip_l", "string", "value")
_MODELS = ("ckpt_name", "unet_name", "model_name", "base_ckpt_name")
_REASONS = {
    "lora": "LoRAs are not supported",
    "controlnet": "ControlNet is not supported",
    "ipadapter": "IP-Adapter is not supported",
    "upscale": "upscaling is not supported",
    "vaeloader": "load the model with this VAE (--vae) to use it",
    "vae": "LatentCanvas always decodes",
    "save": "LatentCanvas always saves",
    "preview": "LatentCanvas always shows the image",
    "loadimage": "the image must be given with the request",
    "note": "is a note",
    "markdown": "is a note",
    "reroute": "only passes a value on",
    "primitive": "is linked to nothing that is read",
    "facedetailer": "repainting after the run is not supported",
    "ksampler": "only the first pass is supported",
    "sampler": "only the first pass is supported",
    "freeu": "FreeU is not supported",
    "hypernetwork": "hypernetworks are not supported",
}


def is_prompt(data: object) -> bool:
    """Whether JSON is a graph in the form that runs (API format)."""
    return isinstance(data, Mapping) and any(
        isinstance(item, Mapping) and "class_type" in item for item in data.values()
    )


def is_workflow(data: object) -> bool:
    """Whether JSON is a graph in the form that is edited (workflow)."""
    return isinstance(data, Mapping) and isinstance(data.get("nodes"), list) and "links" in data


def read(data: Mapping[str, Any], registry: Registry) -> OpenedRecipe:
    """The recipe in a graph of either form. Raises UserError when it has no sampler."""
    graph = Graph.of_workflow(data) if is_workflow(data) else Graph.of_prompt(data)
    first = first_sampler(graph)
    if first is None:
        raise UserError("the ComfyUI graph has no known sampler; paste its prompt as text instead")
    reader = _Reader(graph, first, ReportBuilder(registry))
    reader.read()
    return reader.report.found("comfyui")


def first_sampler(graph: Graph) -> Node | None:
    """The first sampler on the way to an output: the nearest one before it, or one that runs before that."""
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
    """Whether it is a sampler: it has a seed or noise, and steps or sigmas."""
    names = node.inputs.keys()
    starts = bool(names & {"seed", "noise_seed", "noise"})
    return (
        starts
        and bool(names & {"steps", "sigmas"})
        and bool(names & {"positive", "guider", "conditioning", "latent_image"})
    )


class _Reader:
    """Reads the graph around one sampler into the report."""

    def __init__(self, graph: Graph, sampler: Node, report: ReportBuilder) -> None:
        self.graph, self.sampler, self.report = graph, sampler, report
        self.parts = [sampler]
        for name in ("guider", "sampler", "sigmas", "noise"):
            self.parts += self._chain(sampler.inputs.get(name), name)
        self.read_nodes = {node.id for node in self.parts}

    def read(self) -> None:
        self._prompts()
        self._method()
        for names, reader in ((("seed", "noise_seed"), self._seed), (("cfg",), self.report.cfg_scale)):
            found = self._find(*names)
            if found is not None:
                reader(*found)
        if any(node.kind == "BasicGuider" for node in self.parts):
            self.report.map(
                "BasicGuider", "no guidance", "cfg scale 1", "a cfg scale of 1 is no guidance", cfg_scale=1.0
            )
        self._latent()
        self._model()
        self._options()
        self._rest()

    def _chain(self, link: object, name: str) -> list[Node]:
        """The node of a link, and those that it is linked to under the same name."""
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
        self.report.seed(key, value)
        part = next(node for node in self.parts if f"{node.kind}.{key.rpartition('.')[2]}" == key)
        if part.inputs.get("add_noise") in ("disable", False):
            self.report.ignore(
                f"{part.kind}.add_noise", part.inputs["add_noise"], "noise is always added here"
            )
            part.used.add("add_noise")
        self.report.keep("noise", "CPU", CPU)

    def _prompts(self) -> None:
        for name, field in (("positive", "prompt"), ("negative", "negative")):
            link = self._link(name) or (self._link("conditioning") if name == "positive" else None)
            node = self._encoder(link, name)
            if node is None:
                if link is not None:
                    self.report.ignore(name, "(linked)", "the link leads to no text")
                continue
            self._text(node, field)

    def _link(self, name: str) -> object:
        return next((node.inputs[name] for node in self.parts if name in node.inputs), None)

    def _encoder(self, link: object, name: str) -> Node | None:
        """The node that holds the text, past nodes that only change the conditioning."""
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
            self.report.keep(f"{node.kind} ({field})", "", "an empty prompt", **{field: ""})
            return
        for name in _TEXTS:
            text = self.graph.literal(node.inputs[name], (str,)) if name in node.inputs else None
            if isinstance(text, str) and (text or not field):
                break
        else:
            name, text = next(n for n in _TEXTS if n in node.inputs), ""
        node.used.add(name)
        key, new = f"{node.kind}.{name} ({field})", _as_a1111(str(text))
        self.report.prompt(key, new, field)
        if new != text:
            self.report.lines.pop()
            self.report.map(
                key, text, new, "square brackets are plain text there; embeddings are not supported here"
            )

    def _method(self) -> None:
        sampler = self._find("sampler_name") or self._kind(_SAMPLERS)
        schedule = self._find("scheduler") or self._kind(_SCHEDULES)
        self.report.method(sampler, schedule)
        typed = next((n for n in self.parts if n.kind == "ManualSigmas"), None)
        if typed is not None:
            self._typed(typed)
            return
        steps, denoise = self._find("steps"), self._find("denoise")
        if steps is not None:
            self.report.steps(*steps)
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
            self.report.ignore("ManualSigmas.sigmas", text, "must be decreasing sigmas")
        else:
            self.report.keep("ManualSigmas.sigmas", text, sigmas=levels)

    def _denoise(self, key: str, value: object) -> None:
        """ComfyUI runs all N steps at denoise d, the last of N / d; here, strength runs N of N / d steps."""
        number, steps = as_number(value), self.report.values.get("steps")
        if number is None or not 0 < number <= 1:
            self.report.ignore(key, value, "must be in (0, 1]")
        elif self._picture() is None:
            if number == 1:
                self.report.keep(key, value, "all steps run")
            else:
                self.report.ignore(key, value, "has no effect without an init image")
        elif steps is None or number == 1:
            self.report.strength(key, value)
        else:
            total = min(int(steps / number), MAX_STEPS)
            strength = number if int(total * number) == steps else math.ceil(1e4 * steps / total) / 1e4
            self.report.map(
                key,
                value,
                f"strength {strength:g}, steps {total}",
                f"so that {int(total * min(strength, 1.0))} steps run, as there; give the init image",
                strength=min(strength, 1.0),
                steps=total,
            )

    def _part_of_steps(self) -> None:
        """KSamplerAdvanced runs from one step to another."""
        start, end = self._find("start_at_step"), self._find("end_at_step")
        steps = self.report.values.get("steps")
        if start is not None:
            first = as_whole(start[1]) or 0
            if first <= 0:
                self.report.keep(*start, "from the first step")
            elif steps is None or first >= steps or self._picture() is None:
                self.report.ignore(*start, "steps can be skipped only with an init image")
            else:
                part = math.ceil(1e4 * (steps - first) / steps) / 1e4
                self.report.map(
                    *start, f"strength {part:g}", "the same last steps; give the init image", strength=part
                )
        if end is not None:
            last = as_whole(end[1])
            if last is None or steps is None or last >= steps:
                self.report.keep(*end, "to the last step")
            else:
                self.report.ignore(*end, "all steps run here: the pass after it is not supported")

    def _picture(self) -> Node | None:
        """The node that encodes the init image."""
        before = self.graph.upstream(self._link("latent_image"))
        return next((node for node in before if node.kind.lower().startswith("vaeencode")), None)

    def _latent(self) -> None:
        """The size from the empty latent, or the init image and mask."""
        for node in self.graph.upstream(self._link("latent_image")):
            if {"width", "height"} <= node.inputs.keys() and "latent" in node.kind.lower():
                self.read_nodes.add(node.id)
                node.used |= {"width", "height", "batch_size"}
                sides = [self.graph.literal(node.inputs[name], (int, float)) for name in ("width", "height")]
                shown = "x".join(str(as_whole(side)) for side in sides) if None not in sides else sides
                self.report.size(f"{node.kind}.width, height", shown, *sides)
                if node.inputs.get("batch_size", 1) != 1:
                    note = "a recipe describes one image: the first of the batch"
                    self.report.ignore(f"{node.kind}.batch_size", node.inputs["batch_size"], note)
                return
            if node.kind in _MASKS:
                self.read_nodes.add(node.id)
                note = "give the init image and its mask"
                self.report.map(node.kind, "(linked)", "inpainting, mask blur 0", note, mask_blur=0)
            elif node.kind.lower().startswith("vaeencode"):
                self.read_nodes.add(node.id)
                self.report.ignore(node.kind, "(linked)", "give the init image")

    def _model(self) -> None:
        """The checkpoint and text encoder, and the nodes that change them."""
        clip = [node.inputs.get("clip") for node in self.graph.nodes.values() if node.id in self.read_nodes]
        for node in self.graph.upstream(self._link("model"), *clip):
            name = next((name for name in _MODELS if name in node.inputs), None)
            if "stop_at_clip_layer" in node.inputs:
                layer = as_whole(self.graph.literal(node.inputs["stop_at_clip_layer"], (int, float)))
                node.used.add("stop_at_clip_layer")
                counted = None if layer is None else -layer
                note = "counted from the last layer, which is 1 here and -1 there"
                self.report.clip_skip(f"{node.kind}.stop_at_clip_layer", layer, counted, note)
            elif node.kind == "RescaleCFG" and "multiplier" in node.inputs:
                node.used.add("multiplier")
                self.report.number(
                    "RescaleCFG.multiplier", node.inputs["multiplier"], "cfg_rescale", 0.0, 1.0
                )
            elif name is not None and self.report.model_name is None:
                node.used.add(name)
                self.report.model(f"{node.kind}.{name}", self.graph.literal(node.inputs[name], (str,)))
            else:
                continue
            self.read_nodes.add(node.id)

    def _options(self) -> None:
        for node in self.parts[1:]:
            for name in _OPTIONS.keys() & node.inputs.keys():
                node.used.add(name)
                self.report.option(f"{node.kind}.{name}", node.inputs[name], _OPTIONS[name])

    def _rest(self) -> None:
        """Report each unread input of the nodes that were read, and each other node."""
        for node in self.graph.nodes.values():
            if node.id in self.read_nodes:
                for name, value in node.literals().items():
                    if name not in node.used:
                        self.report.ignore(f"{node.kind}.{name}", value, "has no counterpart here")
            elif not node.used:
                typed = {name: value for name, value in node.literals().items() if value not in ("", None)}
                title = f" ({node.title})" if node.title and node.title != node.kind else ""
                self.report.ignore(f"{node.kind}{title}", typed or "(no values)", reason(node))


def _as_a1111(text: str) -> str:
    """A prompt in our syntax: escaped square brackets, without words that load an embedding."""
    plain = re.sub(r"\(?embedding:[^\s,()]{1,200}(?::[0-9.]{1,6}\))?", "", text)
    return re.sub(r"(?<!\\)([\[\]])", r"\\\1", plain)


def reason(node: Node) -> str:
    """Why a node is ignored."""
    small = node.kind.lower().replace(" ", "").replace("_", "")
    return next((why for word, why in _REASONS.items() if word in small), "LatentCanvas has no such node")
