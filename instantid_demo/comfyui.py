"""A request as a workflow for ComfyUI with its own nodes and the ComfyUI_InstantID ones.

Pictures are never part of it: LoadImage nodes wait for the user's own files. What ComfyUI has no node for is named in
a note inside the workflow, and to whoever exports.
"""

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from instantid_demo import presets
from instantid_demo.method.checkpoints import few_step_of
from instantid_demo.models import catalogue
from instantid_demo.names import public_name
from instantid_demo.request import Control, GenerationRequest, Lora, RequestError
from instantid_demo.settings import Settings

SAMPLERS: dict[str, tuple[str, str]] = {
    "euler": ("euler", "normal"),
    "euler_ancestral": ("euler_ancestral", "normal"),
    "ddim": ("ddim", "ddim_uniform"),
    "dpmpp_2m": ("dpmpp_2m", "normal"),
    "dpmpp_2m_karras": ("dpmpp_2m", "karras"),
    "lcm": ("lcm", "sgm_uniform"),
    "unipc": ("uni_pc", "normal"),
}
"""Our scheduler -> ComfyUI's sampler and scheduler; what is missing becomes euler."""
FEW_STEP_SPACING = "sgm_uniform"
"""ComfyUI's name for steps spaced as few-step LoRAs learned them."""
POCKET = presets.Recipe(30, 4.5, "euler")
"""Instead of Pocket's own few steps on 128 pixels, which would be far too few for SDXL."""
SQUARE, LEAST_SIDE = 1016, 512
"""The size instead of Pocket's, and the side below which a picture counts as Pocket's."""
NETS = {"pose": "openpose", "depth": "depth", "canny": "canny"}
_NO_NODE = (
    *("place", "guidance_start", "guidance_end", "identity_every", "deep_every", "quick_decode", "enhance_non_face"),
    "face_detail",
)
"""Fields that ComfyUI has no node for."""


@dataclass
class Graph:
    """A workflow in the making."""

    nodes: list[dict[str, Any]] = field(default_factory=list)
    links: list[list[Any]] = field(default_factory=list)

    def add(
        self,
        kind: str,
        inputs: Sequence[tuple[str, str, tuple[int, int] | None]],
        outputs: list[tuple[str, str]],
        widgets: list[Any],
        title: str = "",
    ) -> int:
        """Adds a node and returns its number.

        Args:
            kind: The node's class.
            inputs: Name, type, and the (node, slot) that feeds it or None.
            outputs: Name and type.
            widgets: Values in the order of the node's own widgets.
            title: Shown instead of the class.
        """
        number = len(self.nodes) + 1
        slots = []
        for slot, (name, kind_of, source) in enumerate(inputs):
            link = None
            if source is not None:
                link = len(self.links) + 1
                self.links.append([link, source[0], source[1], number, slot, kind_of])
                self.nodes[source[0] - 1]["outputs"][source[1]]["links"].append(link)
            slots.append({"name": name, "type": kind_of, "link": link})
        node = {
            "id": number,
            "type": kind,
            "pos": [40 + 360 * ((number - 1) // 4), 60 + 260 * ((number - 1) % 4)],
            "size": [320, 200],
            "flags": {},
            "order": number - 1,
            "mode": 0,
            "inputs": slots,
            "outputs": [
                {"name": name, "type": kind_of, "links": [], "slot_index": slot}
                for slot, (name, kind_of) in enumerate(outputs)
            ],
            "properties": {"Node name for S&R": kind},
            "widgets_values": widgets,
        }
        if title:
            node["title"] = title
        self.nodes.append(node)
        return number

    def finished(self) -> dict[str, Any]:
        """The workflow as ComfyUI saves it."""
        return {
            "last_node_id": len(self.nodes),
            "last_link_id": len(self.links),
            "nodes": self.nodes,
            "links": self.links,
            "groups": [],
            "config": {},
            "extra": {},
            "version": 0.4,
        }


@dataclass(frozen=True)
class Sampling:
    """How ComfyUI samples."""

    steps: int
    guidance: float
    sampler: str
    spacing: str
    lora: catalogue.Entry | None = None
    """The preset's few-step LoRA."""


def workflow(request: GenerationRequest, record: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The ComfyUI workflow of a request for one person.

    Args:
        request: Its styles are looked for in the folders of the settings.
        record: What a picture's settings tell besides (`Restored.record`); else the request's own.
    """
    from instantid_demo import wording

    record = record or request.arranged()
    request, _ = wording.understood(request, Settings(), elsewhere=True)
    sampling = sampling_of(request)
    graph = Graph()
    checkpoint = graph.add(
        "CheckpointLoaderSimple",
        [],
        [("MODEL", "MODEL"), ("CLIP", "CLIP"), ("VAE", "VAE")],
        ["your-sdxl-model.safetensors"],
    )
    model, clip, vae = (checkpoint, 0), (checkpoint, 1), (checkpoint, 2)
    loras = [(lora_file(lora.source), lora.weight, "") for lora in request.lora]
    if sampling.lora:
        loras.append((sampling.lora.files[0], 1.0, f"{sampling.lora.label}: {sampling.lora.repository}"))
    for name, weight, title in loras:
        added = graph.add(
            "LoraLoader",
            [("model", "MODEL", model), ("clip", "CLIP", clip)],
            [("MODEL", "MODEL"), ("CLIP", "CLIP")],
            [name, weight, weight],
            title,
        )
        model, clip = (added, 0), (added, 1)
    if request.clip_skip is not None:
        read = graph.add("CLIPSetLastLayer", [("clip", "CLIP", clip)], [("CLIP", "CLIP")], [-request.clip_skip])
        clip = (read, 0)
    prompt, avoided = _words(request)
    positive = _conditioning(graph, clip, prompt, "Prompt")
    negative = _conditioning(graph, clip, avoided, "Not in the picture")
    adapter = graph.add("InstantIDModelLoader", [], [("INSTANTID", "INSTANTID")], ["ip-adapter.bin"])
    faces = graph.add("InstantIDFaceAnalysis", [], [("FACEANALYSIS", "FACEANALYSIS")], ["CPU"])
    net = _control_net(graph, "instantid/diffusion_pytorch_model.safetensors")
    face, pose = _picture(graph, "face.jpg", "Photo of the face"), _picture(graph, "pose.jpg", "Photo of the pose")
    applied = graph.add(
        "ApplyInstantIDAdvanced",
        [
            ("instantid", "INSTANTID", (adapter, 0)),
            ("insightface", "FACEANALYSIS", (faces, 0)),
            ("control_net", "CONTROL_NET", net),
            ("image", "IMAGE", face),
            ("model", "MODEL", model),
            ("positive", "CONDITIONING", positive),
            ("negative", "CONDITIONING", negative),
            ("image_kps", "IMAGE", pose),
            ("mask", "MASK", None),
        ],
        [("MODEL", "MODEL"), ("POSITIVE", "CONDITIONING"), ("NEGATIVE", "CONDITIONING")],
        [
            *(request.adapter_strength, request.identity_strength, request.identity_start, request.identity_end),
            *(request.identity_noise, "concat" if request.combine == "concatenate" else "average"),
        ],
    )
    model, positive, negative = (applied, 0), (applied, 1), (applied, 2)
    for control in _controls(record):
        positive, negative = _controlled(graph, control, positive, negative)
    if request.guidance_rescale:
        rescaled = graph.add(
            "RescaleCFG", [("model", "MODEL", model)], [("MODEL", "MODEL")], [request.guidance_rescale]
        )
        model = (rescaled, 0)
    started = "init" in record.get("pictures", ())
    sampled = graph.add(
        "KSampler",
        [
            ("model", "MODEL", model),
            ("positive", "CONDITIONING", positive),
            ("negative", "CONDITIONING", negative),
            ("latent_image", "LATENT", _latent(graph, request, vae, record.get("pictures", ()))),
        ],
        [("LATENT", "LATENT")],
        [
            *(request.seed or 0, "fixed" if request.seed is not None else "randomize", sampling.steps),
            *(sampling.guidance, sampling.sampler, sampling.spacing, request.strength if started else 1.0),
        ],
    )
    decoded = graph.add(
        "VAEDecode", [("samples", "LATENT", (sampled, 0)), ("vae", "VAE", vae)], [("IMAGE", "IMAGE")], []
    )
    if request.upscale > 1:
        decoded = graph.add(
            "ImageScaleBy",
            [("image", "IMAGE", (decoded, 0))],
            [("IMAGE", "IMAGE")],
            ["lanczos", float(request.upscale)],
        )
    graph.add("SaveImage", [("images", "IMAGE", (decoded, 0))], [], ["InstantID"])
    graph.add("Note", [], [], [_note(request, record)], "Read me")
    return graph.finished()


def sampling_of(request: GenerationRequest) -> Sampling:
    """Steps, guidance, sampler and few-step LoRA as SDXL had them here, or as it would have."""
    if _is_pockets(request):
        return Sampling(POCKET.steps, POCKET.guidance, *SAMPLERS[POCKET.scheduler])
    own = next((few for lora in request.lora if lora.weight > 0 and (few := presets.few_step(_stem(lora)))), None)
    # A base that draws in few steps by itself takes no LoRA for it.
    merged = few_step_of(request.model)
    defaults = presets.merged(presets.SDXL, merged)
    recipe = own or defaults.recipes[request.quality]
    plain = defaults.without_lora.get(request.quality, recipe)
    # Settings tell how a picture was drawn, not whether the LoRA was here; without it other numbers were used.
    without = (request.scheduler, request.guidance) == (plain.scheduler, plain.guidance)
    lora = catalogue.entry(recipe.lora) if recipe.lora and not without else None
    steps = recipe.steps if request.steps is None else request.steps
    guidance = recipe.guidance if request.guidance is None else request.guidance
    scheduler = recipe.scheduler if request.scheduler == "auto" else request.scheduler
    sampler, spacing = SAMPLERS.get(scheduler, SAMPLERS["euler"])
    return Sampling(steps, guidance, sampler, FEW_STEP_SPACING if lora or own or merged else spacing, lora)


def left_out(request: GenerationRequest, record: Mapping[str, Any] | None = None) -> list[str]:
    """What the workflow of a request does not do as the picture was made here, in a few words each."""
    from instantid_demo import wording

    record = record or request.arranged()
    said = [note.rstrip(".") for note in wording.understood(request, Settings(), elsewhere=True)[1]]
    if request.view is not None:
        turned = ", ".join(f"{axis} {angle:g}" for axis, angle in request.view.model_dump().items() if angle)
        said.append(f"the view ({turned or 'straight ahead'}): give a pose photo with the head like that")
    if people := record.get("person"):
        said.append(f"the group: the workflow draws one person of {len(people)}")
    if "blend_with" in record.get("pictures", ()):
        said.append("the blend with a second person")
    drawn = [control.kind for control in _controls(record) if not control.is_map]
    if maps := [kind for kind in drawn if kind != "canny"]:
        said.append(f"the drawing of the {' and '.join(maps)} map: give a ready one")
    for name in _NO_NODE:
        value, info = getattr(request, name), GenerationRequest.model_fields[name]
        if value != info.default:
            said.append(str(info.title) if isinstance(value, bool) or name == "place" else f"{info.title} ({value})")
    if _is_pockets(request):
        said.append("Pocket's own size, steps, guidance and scheduler: others suit SDXL")
    elif request.scheduler not in (*SAMPLERS, "auto"):
        said.append(f"the scheduler {request.scheduler}: euler stands in its place")
    return said


def _stem(lora: Lora) -> str:
    return lora_file(lora.source).rpartition(".")[0]


def lora_file(source: str) -> str:
    """The name that a LoRA's file has, wherever it lies."""
    if catalogue.knows(source):
        return catalogue.entry(source).files[0]
    name = re.split(r"[/\\]", source)[-1]
    return name if public_name(name) != name else f"{name}.safetensors"


def _is_pockets(request: GenerationRequest) -> bool:
    return request.model == "pocket" or min(request.width or LEAST_SIDE, request.height or LEAST_SIDE) < LEAST_SIDE


def _words(request: GenerationRequest) -> tuple[str, str]:
    """Prompt and negative prompt as the text encoders of SDXL get them here."""
    from instantid_demo import prepare

    words = prepare.words(request, Settings(), elsewhere=True)
    return _for_comfyui(words.prompt), _for_comfyui(words.negative)


def _for_comfyui(words: str) -> str:
    """The same weights in round brackets: ComfyUI knows no others."""
    if "[" not in words:
        return words
    from instantid_demo.method.prompts import parse_weights

    pieces = []
    for text, weight in parse_weights(words):
        escaped = re.sub(r"[()]", r"\\\g<0>", text)
        pieces.append(escaped if weight == 1 else f"({escaped}:{weight:.4g})")
    return "".join(pieces)


def _conditioning(graph: Graph, clip: tuple[int, int], words: str, title: str) -> tuple[int, int]:
    """The encoded words; `BREAK` joins what was encoded apart, as here."""
    made: tuple[int, int] | None = None
    text = [("CONDITIONING", "CONDITIONING")]
    for part in re.split(r"\s*\bBREAK\b\s*", words):
        encoded = (graph.add("CLIPTextEncode", [("clip", "CLIP", clip)], text, [part], title), 0)
        if made is None:
            made = encoded
            continue
        both = [("conditioning_to", "CONDITIONING", made), ("conditioning_from", "CONDITIONING", encoded)]
        made = (graph.add("ConditioningConcat", both, text, []), 0)
    assert made is not None
    return made


def _control_net(graph: Graph, file: str) -> tuple[int, int]:
    return graph.add("ControlNetLoader", [], [("CONTROL_NET", "CONTROL_NET")], [file]), 0


def _picture(graph: Graph, file: str, title: str) -> tuple[int, int]:
    return graph.add("LoadImage", [], [("IMAGE", "IMAGE"), ("MASK", "MASK")], [file, "image"], title), 0


def _controlled(
    graph: Graph, control: Control, positive: tuple[int, int], negative: tuple[int, int]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Both conditionings under an extra ControlNet."""
    kind = control.kind
    net = _control_net(graph, f"your-sdxl-{NETS[kind]}-controlnet.safetensors")
    titles = {"pose": "Map of the body's pose", "depth": "Map of the depth", "canny": "Map of the edges"}
    draws = kind == "canny" and not control.is_map
    image = _picture(graph, f"{kind}.png", "Picture for its edges" if draws else titles[kind])
    if draws:
        image = (graph.add("Canny", [("image", "IMAGE", image)], [("IMAGE", "IMAGE")], [0.4, 0.8]), 0)
    applied = graph.add(
        "ControlNetApplyAdvanced",
        [
            ("positive", "CONDITIONING", positive),
            ("negative", "CONDITIONING", negative),
            ("control_net", "CONTROL_NET", net),
            ("image", "IMAGE", image),
        ],
        [("positive", "CONDITIONING"), ("negative", "CONDITIONING")],
        [control.strength, control.start, control.end],
    )
    return (applied, 0), (applied, 1)


def _latent(graph: Graph, request: GenerationRequest, vae: tuple[int, int], pictures: Sequence[str]) -> tuple[int, int]:
    """What is denoised: nothing yet, or the start picture."""
    width, height = request.width or presets.SDXL.width, request.height or presets.SDXL.height
    if min(width, height) < LEAST_SIDE:
        width, height = SQUARE, SQUARE
    latent = [("LATENT", "LATENT")]
    if "init" not in pictures:
        return graph.add("EmptyLatentImage", [], latent, [width, height, request.images]), 0

    def cut(file: str, title: str) -> tuple[int, int]:
        source = ("image", "IMAGE", _picture(graph, file, title))
        return graph.add("ImageScale", [source], [("IMAGE", "IMAGE")], ["lanczos", width, height, "center"]), 0

    start = cut("start.png", "Start picture")
    made = (graph.add("VAEEncode", [("pixels", "IMAGE", start), ("vae", "VAE", vae)], latent, []), 0)
    if "mask" in pictures:
        white = ("image", "IMAGE", cut("mask.png", "White where it may change"))
        mask = (graph.add("ImageToMask", [white], [("MASK", "MASK")], ["red"]), 0)
        made = (graph.add("SetLatentNoiseMask", [("samples", "LATENT", made), ("mask", "MASK", mask)], latent, []), 0)
    if request.images > 1:
        made = (graph.add("RepeatLatentBatch", [("samples", "LATENT", made)], latent, [request.images]), 0)
    return made


def _controls(record: Mapping[str, Any]) -> list[Control]:
    """The extra controls on record, whose pictures are not."""
    return [Control.model_validate({**entry, "image": "map"}) for entry in record.get("control", ())]


def _note(request: GenerationRequest, record: Mapping[str, Any]) -> str:
    said = ["Choose your own SDXL checkpoint, the ControlNet and adapter of InstantID, and your own pictures."]
    if lora := sampling_of(request).lora:
        said.append(f"The few steps need the LoRA {lora.files[0]} from {lora.repository}.")
    said += [f"Left out: {part}." for part in left_out(request, record)]
    return "\n\n".join(said)


def export(request: GenerationRequest, file: Path, record: Mapping[str, Any] | None = None) -> None:
    """Writes the workflow of a request; arguments as `workflow`'s.

    Raises:
        RequestError: the file cannot be written, or the style is not here.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(workflow(request, record), indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise RequestError(f"{file.name} cannot be written: choose another place.") from error


def main(argv: list[str]) -> int:
    """`export-comfyui PICTURE --out WORKFLOW`."""
    from instantid_demo import flags
    from instantid_demo.provenance import metadata

    parser: argparse.ArgumentParser = flags.Parser(
        "instantid_demo export-comfyui", description="Write a picture's settings as a ComfyUI workflow."
    )
    parser.add_argument("picture", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args(argv)
    restored = metadata.restored(given.picture)
    request = flags.validated(restored)
    export(request, given.out, restored.record)
    print(given.out)
    for part in left_out(request, restored.record):
        print(f"Left out: {part}.")
    return 0
