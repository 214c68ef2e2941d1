"""A request as a workflow for ComfyUI with the ComfyUI_InstantID nodes.

Photos are never part of it: the two LoadImage nodes wait for the user's own files.
"""

import argparse
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from instantid_demo.request import GenerationRequest, RequestError
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


@dataclass
class Graph:
    """A workflow in the making."""

    nodes: list[dict[str, Any]] = field(default_factory=list)
    links: list[list[Any]] = field(default_factory=list)

    def add(
        self,
        kind: str,
        inputs: list[tuple[str, str, tuple[int, int] | None]],
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


def workflow(request: GenerationRequest) -> dict[str, Any]:
    """The ComfyUI workflow of a request for one person."""
    from instantid_demo import wording

    request, _ = wording.understood(request, Settings(), elsewhere=True)
    graph = Graph()
    checkpoint = graph.add(
        "CheckpointLoaderSimple",
        [],
        [("MODEL", "MODEL"), ("CLIP", "CLIP"), ("VAE", "VAE")],
        ["your-sdxl-model.safetensors"],
    )
    model, clip = (checkpoint, 0), (checkpoint, 1)
    for lora in request.lora:
        name = lora.source if lora.source.endswith(".safetensors") else f"{lora.source}.safetensors"
        added = graph.add(
            "LoraLoader",
            [("model", "MODEL", model), ("clip", "CLIP", clip)],
            [("MODEL", "MODEL"), ("CLIP", "CLIP")],
            [Path(name).name, lora.weight, lora.weight],
        )
        model, clip = (added, 0), (added, 1)
    if request.clip_skip is not None:
        read = graph.add("CLIPSetLastLayer", [("clip", "CLIP", clip)], [("CLIP", "CLIP")], [-request.clip_skip])
        clip = (read, 0)
    text = [("CONDITIONING", "CONDITIONING")]
    positive = graph.add("CLIPTextEncode", [("clip", "CLIP", clip)], text, [_prompt(request)], "Prompt")
    negative = graph.add(
        "CLIPTextEncode", [("clip", "CLIP", clip)], text, [request.negative_prompt], "Not in the picture"
    )
    adapter = graph.add("InstantIDModelLoader", [], [("INSTANTID", "INSTANTID")], ["ip-adapter.bin"])
    faces = graph.add("InstantIDFaceAnalysis", [], [("FACEANALYSIS", "FACEANALYSIS")], ["CPU"])
    net = graph.add(
        "ControlNetLoader", [], [("CONTROL_NET", "CONTROL_NET")], ["instantid/diffusion_pytorch_model.safetensors"]
    )
    loaded = [("IMAGE", "IMAGE"), ("MASK", "MASK")]
    face = graph.add("LoadImage", [], loaded, ["face.jpg", "image"], "Photo of the face")
    pose = graph.add("LoadImage", [], loaded, ["pose.jpg", "image"], "Photo of the pose")
    applied = graph.add(
        "ApplyInstantIDAdvanced",
        [
            ("instantid", "INSTANTID", (adapter, 0)),
            ("insightface", "FACEANALYSIS", (faces, 0)),
            ("control_net", "CONTROL_NET", (net, 0)),
            ("image", "IMAGE", (face, 0)),
            ("model", "MODEL", model),
            ("positive", "CONDITIONING", (positive, 0)),
            ("negative", "CONDITIONING", (negative, 0)),
            ("image_kps", "IMAGE", (pose, 0)),
            ("mask", "MASK", None),
        ],
        [("MODEL", "MODEL"), ("POSITIVE", "CONDITIONING"), ("NEGATIVE", "CONDITIONING")],
        [
            *(request.adapter_strength, request.identity_strength, request.identity_start, request.identity_end),
            *(request.identity_noise, "average"),
        ],
    )
    # Pocket's 128 pixels would be far too few for SDXL.
    width, height = request.width or 896, request.height or 1152
    if min(width, height) < 512:
        width, height = 1016, 1016
    empty = graph.add("EmptyLatentImage", [], [("LATENT", "LATENT")], [width, height, request.images])
    sampler, scheduler = SAMPLERS.get(request.scheduler, SAMPLERS["euler"])
    few = request.model == "pocket" or request.steps is None
    steps, guidance = (30, 4.5) if few else (request.steps, request.guidance or 4.5)
    sampled = graph.add(
        "KSampler",
        [
            ("model", "MODEL", (applied, 0)),
            ("positive", "CONDITIONING", (applied, 1)),
            ("negative", "CONDITIONING", (applied, 2)),
            ("latent_image", "LATENT", (empty, 0)),
        ],
        [("LATENT", "LATENT")],
        [request.seed or 0, "fixed", steps, guidance, sampler, scheduler, 1.0],
    )
    decoded = graph.add(
        "VAEDecode", [("samples", "LATENT", (sampled, 0)), ("vae", "VAE", (checkpoint, 2))], [("IMAGE", "IMAGE")], []
    )
    graph.add("SaveImage", [("images", "IMAGE", (decoded, 0))], [], ["InstantID"])
    return graph.finished()


def export(request: GenerationRequest, file: Path) -> None:
    """Writes the workflow of a request.

    Raises:
        RequestError: the file cannot be written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(workflow(request), indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise RequestError(f"{file} cannot be written: choose another place.") from error


def _prompt(request: GenerationRequest) -> str:
    from instantid_demo import styles

    known = styles.load(Settings().style_folders)
    return styles.apply(request.style, request.prompt, request.negative_prompt, known)[0]


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
    export(flags.validated(metadata.restored(given.picture)), given.out)
    print(given.out)
    return 0
