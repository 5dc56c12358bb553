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
from core.prompts.grammars import read_comfyui
from core.recipes.opened_recipe import OpenedRecipe
from core.recipes.readers.graph import Graph, Link, Node
from core.recipes.readers.node_inputs import UnknownValueError
from core.recipes.readers.node_rules import MODELS, PICTURES, SAMPLERS, SIZES, TEXTS
from core.recipes.readers.node_values import NodeValues
from core.recipes.readers.workflow import nodes_of
from core.recipes.report_builder import CPU, GPU, ReportBuilder, as_number, as_whole
from core.request.fields import MAX_STEPS
from core.request.sigmas import parse_sigmas

if TYPE_CHECKING:
    from core.recipes.readers.node_rules import Rule
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
# Its KSampler leaves the last sigma but one out for these; samplers with a node for sigmas do not.
_WITHOUT_NEXT_TO_LAST = ("dpm_2", "dpm_2_ancestral", "uni_pc", "uni_pc_bh2")
_MOST_PASSES = 50  # followed, one after the other
_EMBEDDING = re.compile(r"\(?embedding:[^\s,()]{1,200}(?::[0-9.]{1,6}\))?")
_MASKS = ("SetLatentNoiseMask", "VAEEncodeForInpaint")
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
    "context": "only passes values on",
    "basicpipe": "only passes values on",
    "switch": "only passes a value on",
    "primitive": "is linked to nothing that is read",
    "(bypassed)": "is switched off in the workflow: it passes its inputs on",
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
    graph = Graph(nodes_of(data)) if is_workflow(data) else Graph.of_prompt(data)
    first = first_sampler(NodeValues(graph))
    if first is None:
        others = sorted({node.kind for node in graph.nodes.values() if "sampler" in node.kind.lower()})
        named = f" (its samplers: {', '.join(others[:5])})" if others else ""
        raise UserError(f"the ComfyUI graph has no known sampler{named}; paste its prompt as text instead")
    reader = _Reader(graph, first, ReportBuilder(registry))
    reader.read()
    return reader.report.found("comfyui")


def first_sampler(values: NodeValues) -> Node | None:
    """The first sampler on the way to an output: the nearest one before it, or one that runs before that."""
    nodes = values.graph.nodes.values()
    outputs = [n for n in nodes if re.match("(?i)save|preview|image ?save", n.kind)]
    links = (link for node in outputs for link in node.links().values())
    found = next((node for node in values.upstream(*links) if node.kind in SAMPLERS), None)
    node = found or next((node for node in nodes if node.kind in SAMPLERS), None)
    seen = set[str]()
    while node is not None and node.id not in seen and len(seen) < _MOST_PASSES:
        seen.add(node.id)
        latent = node.inputs.get("latent_image")
        node = next((before for before in values.upstream(latent) if before.kind in SAMPLERS), node)
    return node


class _Reader:
    """Reads the graph around one sampler into the report."""

    def __init__(self, graph: Graph, sampler: Node, report: ReportBuilder) -> None:
        self.graph, self.sampler, self.report = graph, sampler, report
        self.values = NodeValues(graph)
        self.parts = [sampler]
        self.read_nodes = {sampler.id}
        for name in ("guider", "sampler", "sigmas", "noise"):
            if name in sampler.inputs:
                nodes = self._nodes(name, sampler.inputs[name])
                self.read_nodes |= {node.id for node in nodes}
                self.parts += nodes[-1:]

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

    def _nodes(self, key: str, link: object) -> list[Node]:
        """The nodes on the way of a link to what makes it; none, and a line in the report, if unknown."""
        try:
            return list(self.values.nodes(link))
        except UnknownValueError as error:
            self.report.ignore(key, "(linked)", f"comes {error}")
            return []

    def _value(self, key: str, node: Node, rule: Rule) -> object:
        """What a node has at an input or makes by a rule; None, and a reason for the report, if unknown."""
        try:
            found = self.values.value(self.values.computed(node, rule))
        except UnknownValueError as error:
            self.report.reasons[key] = f"comes {error}"
            return None
        return None if isinstance(found, Link) else found

    def _find(self, *names: str) -> tuple[str, object] | None:
        """The first of these inputs that a part has: its key in the report, and its value."""
        for node in self.parts:
            for name in names:
                if name in node.inputs:
                    key = f"{node.kind}.{name}"
                    return key, self._value(key, node, name)
        return None

    def _seed(self, key: str, value: object) -> None:
        self.report.seed(key, value)
        part = next(node for node in self.parts if f"{node.kind}.{key.rpartition('.')[2]}" == key)
        if part.inputs.get("add_noise") in ("disable", False):
            self.report.ignore(
                f"{part.kind}.add_noise", part.inputs["add_noise"], "noise is always added here"
            )
            part.used.add("add_noise")
        if str(part.inputs.get("noise_mode", "CPU")).startswith("GPU"):  # Inspire Pack
            self.report.ignore("noise", "GPU", GPU)
        else:
            self.report.keep("noise", "CPU", CPU)
        part.used.add("noise_mode")

    def _prompts(self) -> None:
        for name, field in (("positive", "prompt"), ("negative", "negative")):
            links = [self._link(name), self._link("conditioning") if name == "positive" else None]
            link = next((link for link in links if link is not None), None)
            if link is not None:
                nodes = self._nodes(name, link)
                if nodes:
                    self._text(nodes[-1], self._slot(link), field)

    def _slot(self, link: object) -> int:
        """The output of the node that makes what a link carries."""
        made = self.values.value(link)
        return made.slot if isinstance(made, Link) else -1

    def _link(self, name: str) -> object:
        return next((node.inputs[name] for node in self.parts if name in node.inputs), None)

    def _text(self, node: Node, slot: int, field: str) -> None:
        if node.kind == "ConditioningZeroOut":
            self.read_nodes.add(node.id)
            note = "embeddings of zeros there, an empty prompt here"
            self.report.map(f"{node.kind} ({field})", "(linked)", "an empty prompt", note, **{field: ""})
            return
        names = TEXTS.get((node.kind, slot))
        if names is None:
            note = f"comes from {node.kind}, node {node.id}, whose text is not known"
            self.report.ignore(field, "(linked)", note)
            return
        self.read_nodes.add(node.id)
        key = f"{node.kind}.{names[0] if isinstance(names[0], str) else 'text'} ({field})"
        texts = [self._value(key, node, name) for name in names]
        if texts != texts[:1] * len(texts):
            self.report.ignore(key, texts, "a text for each of two text encoders: only one is supported")
            return
        text = texts[0]
        if isinstance(text, str) and _EMBEDDING.search(text):
            self.report.ignore(f"{key}: embedding", text, "embeddings are not supported")
            text = _EMBEDDING.sub("", text)
        note = "brackets, weights and BREAK are written as they count there"
        self.report.translated_prompt(key, text, field, read_comfyui, note)

    def _method(self) -> None:
        self.report.map("emphasis", "(not given)", "comfy", "how weights act there", emphasis="comfy")
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
        self.report.as_in_k_diffusion()
        named = sampler is not None and "sampler_name" in self.sampler.inputs
        if named and sampler[1] in _WITHOUT_NEXT_TO_LAST:
            self.report.without_next_to_last()

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
                self.report.ignore(key, value, "has no counterpart without an init image")
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
            first = as_whole(start[1])
            if first is None:
                self.report.ignore(*start, "is not a whole number")
            elif first <= 0:
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
            if last is None or steps is None:
                self.report.ignore(*end, "cannot be compared with the steps")
            elif last >= steps:
                self.report.keep(*end, "to the last step")
            else:
                self.report.ignore(*end, "all steps run here: the pass after it is not supported")

    def _picture(self) -> Node | None:
        """The node that encodes the init image."""
        try:
            nodes = list(self.values.nodes(self._link("latent_image")))
        except UnknownValueError:
            return None
        return next((node for node in nodes[-1:] if node.kind in PICTURES), None)

    def _latent(self) -> None:
        """The size from the empty latent, or the init image and mask."""
        link = self._link("latent_image")
        nodes = [] if link is None else self._nodes("latent_image", link)
        for node in nodes:
            self.read_nodes.add(node.id)
            if node.kind in _MASKS or node.kind == "InpaintModelConditioning":
                note = "give the init image and its mask"
                self.report.map(node.kind, "(linked)", "inpainting, mask blur 0", note, mask_blur=0)
            elif node.kind in PICTURES:
                self.report.ignore(node.kind, "(linked)", "give the init image")
        if not nodes:
            return
        node, slot = nodes[-1], self._slot(link)
        rules = SIZES.get((node.kind, slot))
        if rules is not None:
            self._size(node, rules)
        elif node.kind not in PICTURES:
            note = f"comes from {node.kind}, node {node.id}, whose size is not known"
            self.report.ignore("latent_image", "(linked)", note)

    def _size(self, node: Node, rules: tuple[Rule, Rule]) -> None:
        key = f"{node.kind}.width, height"
        sides = [self._value(key, node, rule) for rule in rules]
        shown = "x".join(str(as_whole(side)) for side in sides) if None not in sides else sides
        cut = [side - side % 8 if isinstance(side, int) else side for side in sides]
        self.report.size(key, shown, *cut)
        if cut != sides and self.report.lines[-1].fate == "kept":
            self.report.lines.pop()
            new = f"{cut[0]}x{cut[1]}"
            self.report.map(key, shown, new, "a latent there is cut to whole 8 pixels, and so the image")
        if "batch_size" in node.inputs:
            key = f"{node.kind}.batch_size"
            batch = self._value(key, node, "batch_size")
            if batch != 1:
                self.report.ignore(key, batch, "a recipe describes one image: the first of the batch")

    def _model(self) -> None:
        """The checkpoint and text encoder, and the nodes that change them."""
        link = self._link("model")
        for node in [] if link is None else self._nodes("model", link):
            if node.kind == "RescaleCFG":
                key = "RescaleCFG.multiplier"
                self.report.number(key, self._value(key, node, "multiplier"), "cfg_rescale", 0.0, 1.0)
            elif node.kind in MODELS:
                key = f"{node.kind}.{MODELS[node.kind]}"
                found = self._value(key, node, MODELS[node.kind])
                self.report.model(key, found.get("content") if isinstance(found, Mapping) else found)
            else:
                continue
            self.read_nodes.add(node.id)
        self._clip_skip()

    def _clip_skip(self) -> None:
        """The last layer that a text encoder was set to stop at; the same for both prompts, or unknown."""
        found: list[tuple[str, object] | None] = []
        encoders = [node for node in self.graph.nodes.values() if node.id in self.read_nodes]
        for encoder in encoders:
            if encoder.kind == "Efficient Loader":
                found.append(self._layer(encoder, "clip_skip"))
            elif "clip" in encoder.inputs and any(kind == encoder.kind for kind, _ in TEXTS):
                nodes = self._nodes(f"{encoder.kind}.clip", encoder.inputs["clip"])
                setters = [n for n in nodes if n.kind in ("CLIPSetLastLayer", "Efficient Loader")]
                self.read_nodes |= {n.id for n in setters}
                name = (
                    "stop_at_clip_layer" if setters and setters[0].kind == "CLIPSetLastLayer" else "clip_skip"
                )
                found.append(self._layer(setters[0], name) if setters else None)
        given = next((each for each in found if each is not None), None)
        if given is None:
            return
        key, value = given
        layer = as_whole(value)
        if any(each is None or each[1] != value for each in found):
            self.report.ignore(key, value, "differs between the prompts")
            return
        counted = None if layer is None else -layer
        note = "counted from the last layer, which is 1 here and -1 there"
        self.report.clip_skip(key, layer, counted, note)

    def _layer(self, node: Node, name: str) -> tuple[str, object]:
        key = f"{node.kind}.{name}"
        return key, self._value(key, node, name)

    def _options(self) -> None:
        for node in self.parts[1:]:
            for name in _OPTIONS.keys() & node.inputs.keys():
                key = f"{node.kind}.{name}"
                self.report.option(key, self._value(key, node, name), _OPTIONS[name])

    def _rest(self) -> None:
        """Report each unread input of the nodes that were read, and each other node."""
        for node in self.graph.nodes.values():
            if node.id in self.read_nodes or node.used:
                for name, value in node.literals().items():
                    if name not in node.used:
                        self.report.ignore(f"{node.kind}.{name}", value, "has no counterpart here")
            else:
                typed = {name: value for name, value in node.literals().items() if value not in ("", None)}
                title = f" ({node.title})" if node.title and node.title != node.kind else ""
                self.report.ignore(f"{node.kind}{title}", typed or "(no values)", reason(node))


def reason(node: Node) -> str:
    """Why a node is ignored."""
    small = node.kind.lower().replace(" ", "").replace("_", "")
    return next((why for word, why in _REASONS.items() if word in small), "LatentCanvas has no such node")
