"""Workflows for ComfyUI: whole graphs of known nodes that draw what was drawn here, or say what they do not."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from instantid_demo import cli, comfyui, presets, styles
from instantid_demo.prepare import PLAIN_PROMPT
from instantid_demo.provenance import metadata
from instantid_demo.request import GenerationRequest, Likeness, Result

NODES: dict[str, tuple[list[str], list[str], int]] = {
    "CheckpointLoaderSimple": ([], ["MODEL", "CLIP", "VAE"], 1),
    "LoraLoader": (["MODEL", "CLIP"], ["MODEL", "CLIP"], 3),
    "CLIPTextEncode": (["CLIP"], ["CONDITIONING"], 1),
    "ConditioningConcat": (["CONDITIONING", "CONDITIONING"], ["CONDITIONING"], 0),
    "InstantIDModelLoader": ([], ["INSTANTID"], 1),
    "InstantIDFaceAnalysis": ([], ["FACEANALYSIS"], 1),
    "ControlNetLoader": ([], ["CONTROL_NET"], 1),
    "LoadImage": ([], ["IMAGE", "MASK"], 2),
    "ApplyInstantIDAdvanced": (
        ["INSTANTID", "FACEANALYSIS", "CONTROL_NET", "IMAGE", "MODEL", "CONDITIONING", "CONDITIONING", "IMAGE", "MASK"],
        ["MODEL", "CONDITIONING", "CONDITIONING"],
        6,
    ),
    "ControlNetApplyAdvanced": (
        ["CONDITIONING", "CONDITIONING", "CONTROL_NET", "IMAGE"],
        ["CONDITIONING", "CONDITIONING"],
        3,
    ),
    "Canny": (["IMAGE"], ["IMAGE"], 2),
    "RescaleCFG": (["MODEL"], ["MODEL"], 1),
    "EmptyLatentImage": ([], ["LATENT"], 3),
    "ImageScale": (["IMAGE"], ["IMAGE"], 4),
    "ImageScaleBy": (["IMAGE"], ["IMAGE"], 2),
    "ImageToMask": (["IMAGE"], ["MASK"], 1),
    "VAEEncode": (["IMAGE", "VAE"], ["LATENT"], 0),
    "SetLatentNoiseMask": (["LATENT", "MASK"], ["LATENT"], 0),
    "RepeatLatentBatch": (["LATENT"], ["LATENT"], 1),
    "KSampler": (["MODEL", "CONDITIONING", "CONDITIONING", "LATENT"], ["LATENT"], 7),
    "VAEDecode": (["LATENT", "VAE"], ["IMAGE"], 0),
    "SaveImage": (["IMAGE"], [], 1),
    "Note": ([], [], 1),
}
"""Inputs, outputs and number of values of ComfyUI's nodes and of the pack's."""
SDXL = {"model": "sdxl", "width": 896, "height": 1152, "seed": 3}


class Flow:
    """A workflow whose nodes and links fit together."""

    def __init__(self, flow: dict[str, Any]) -> None:
        self.nodes = {node["id"]: node for node in flow["nodes"]}
        self.sources = {}
        for number, source, out, target, into, kind in flow["links"]:
            assert number in self.nodes[source]["outputs"][out]["links"]
            assert self.nodes[source]["outputs"][out]["type"] == kind
            assert self.nodes[target]["inputs"][into]["link"] == number
            assert self.nodes[target]["inputs"][into]["type"] == kind
            self.sources[target, self.nodes[target]["inputs"][into]["name"]] = self.nodes[source]
        for node in self.nodes.values():
            inputs, outputs, widgets = NODES[node["type"]]
            assert [entry["type"] for entry in node["inputs"]] == inputs
            assert [entry["type"] for entry in node["outputs"]] == outputs
            assert len(node["widgets_values"]) == widgets
            free = {entry["name"] for entry in node["inputs"] if entry["link"] is None}
            assert free <= ({"mask"} if node["type"] == "ApplyInstantIDAdvanced" else set())

    def all(self, kind: str) -> list[dict[str, Any]]:
        return [node for node in self.nodes.values() if node["type"] == kind]

    def one(self, kind: str) -> dict[str, Any]:
        (node,) = self.all(kind)
        return node

    def source(self, node: dict[str, Any], *names: str) -> dict[str, Any]:
        for name in names:
            node = self.sources[node["id"], name]
        return node

    @property
    def sampling(self) -> list[Any]:
        return self.one("KSampler")["widgets_values"][2:]

    @property
    def note(self) -> str:
        return self.one("Note")["widgets_values"][0]


def flow(record: dict[str, Any] | None = None, **fields: Any) -> Flow:
    return Flow(comfyui.workflow(GenerationRequest(**fields), record))


def test_the_whole_of_it() -> None:
    made = flow(prompt="a person", style="film noir", seed=3, lora=({"source": "x/y", "weight": 0.5},))
    assert made.one("KSampler")["widgets_values"][:2] == [3, "fixed"]
    assert made.one("LoraLoader")["widgets_values"] == ["y.safetensors", 0.5, 0.5]
    assert made.source(made.one("SaveImage"), "images", "samples")["type"] == "KSampler"


@pytest.mark.parametrize(
    ("quality", "sampling", "file"),
    [
        ("quality", [30, 5.0, "euler", "normal", 1.0], None),
        ("fast", [4, 1.0, "euler", "sgm_uniform", 1.0], "sdxl_lightning_4step_lora.safetensors"),
        ("draft", [4, 1.0, "lcm", "sgm_uniform", 1.0], "pytorch_lora_weights.safetensors"),
    ],
)
def test_a_preset_brings_its_lora_and_sampler(quality: str, sampling: list[Any], file: str | None) -> None:
    recipe = presets.SDXL.recipes[quality]
    drawn = {"steps": recipe.steps, "guidance": recipe.guidance, "scheduler": recipe.scheduler}
    for fields in ({}, drawn):
        made = flow(**SDXL, quality=quality, **fields)
        assert made.sampling == sampling
        assert [node["widgets_values"] for node in made.all("LoraLoader")] == ([[file, 1.0, 1.0]] if file else [])
        if file:
            assert made.source(made.one("ApplyInstantIDAdvanced"), "model")["type"] == "LoraLoader"
            assert file in made.note


@pytest.mark.parametrize("quality", ["fast", "draft"])
def test_a_preset_without_its_lora_is_drawn_as_it_was(quality: str) -> None:
    plain = presets.SDXL.without_lora[quality]
    drawn = {"steps": plain.steps, "guidance": plain.guidance, "scheduler": plain.scheduler}
    made = flow(**SDXL, quality=quality, **drawn)
    assert made.sampling == [plain.steps, plain.guidance, "dpmpp_2m", "karras", 1.0]
    assert made.all("LoraLoader") == []


@pytest.mark.parametrize("quality", ["quality", "fast", "draft"])
def test_a_base_of_few_steps_gets_no_lora_for_them(quality: str) -> None:
    steps = presets.MERGED_STEPS[quality]
    for drawn in ({}, {"steps": steps, "guidance": 1.0, "scheduler": "euler"}):
        made = flow(**{**SDXL, "model": "RealVisXL_Lightning"}, quality=quality, **drawn)
        assert made.sampling == [steps, 1.0, "euler", "sgm_uniform", 1.0]
        assert made.all("LoraLoader") == []


def test_guidance_zero_stays_and_own_numbers_go_before_the_preset() -> None:
    assert flow(**SDXL, guidance=0).sampling[1] == 0
    assert flow(**SDXL, quality="fast", steps=7, scheduler="lcm").sampling == [7, 1.0, "lcm", "sgm_uniform", 1.0]
    made = flow(**SDXL, scheduler="tcd", guidance_rescale=0.3)
    assert made.sampling[2:4] == ["euler", "normal"]
    assert "the scheduler tcd" in made.note
    assert made.one("RescaleCFG")["widgets_values"] == [0.3]
    assert made.source(made.one("KSampler"), "model")["type"] == "RescaleCFG"


def test_pockets_numbers_become_sdxls() -> None:
    fields = {"model": "pocket", "width": 128, "height": 128, "steps": 2, "guidance": 1.0, "scheduler": "ddim"}
    made = flow(**fields, quality="fast")
    assert made.sampling == [30, 4.5, "euler", "normal", 1.0]
    assert made.one("EmptyLatentImage")["widgets_values"] == [1016, 1016, 1]
    assert "Pocket's own size" in made.note


def test_the_words_are_the_products() -> None:
    def words(made: Flow) -> list[str]:
        applied = made.one("ApplyInstantIDAdvanced")
        return [made.source(applied, name)["widgets_values"][0] for name in ("positive", "negative")]

    assert words(flow()) == [PLAIN_PROMPT, ""]
    noir = styles.find("film noir")
    positive, negative = words(flow(prompt="a clown", negative_prompt="hat", style="film noir"))
    assert "a clown" in positive
    assert positive.startswith("film noir style")
    assert negative == f"{noir.negative} hat"
    assert words(flow(style="film noir"))[0] == noir.prompt.replace("{prompt}", "a person")
    assert words(flow(prompt=r"a [grey] (red:1.3) \(hat\)")) == [r"a (grey:0.9091) (red:1.3) \(hat\)", ""]
    made = flow(prompt="a BREAK b BREAK c")
    outer = made.source(made.one("ApplyInstantIDAdvanced"), "positive")
    assert outer["type"] == "ConditioningConcat"
    assert made.source(outer, "conditioning_from")["widgets_values"] == ["c"]
    assert made.source(outer, "conditioning_to", "conditioning_from")["widgets_values"] == ["b"]
    assert made.source(outer, "conditioning_to", "conditioning_to")["widgets_values"] == ["a"]


def test_words_that_were_encoded_apart_come_back() -> None:
    text = json.dumps(comfyui.workflow(GenerationRequest(prompt="a cat BREAK a hat BREAK snow", negative_prompt="dog")))
    found = metadata.of_texts({"workflow": text})
    assert (found["prompt"], found["negative_prompt"]) == ("a cat BREAK a hat BREAK snow", "dog")


def test_loras_are_called_by_their_files() -> None:
    sources = {
        "/home/bob/loras/ann.safetensors": "ann.safetensors",
        "C:\\loras\\ann.pt": "ann.pt",
        "ann": "ann.safetensors",
        "owner/name": "name.safetensors",
        "owner/name/file.safetensors": "file.safetensors",
        "hyper": "Hyper-SDXL-8steps-lora.safetensors",
    }
    for source, file in sources.items():
        made = flow(lora=({"source": source},))
        assert made.one("LoraLoader")["widgets_values"][0] == file
        assert "bob" not in json.dumps(comfyui.workflow(GenerationRequest(lora=({"source": source},))))


def test_a_start_picture_with_its_mask() -> None:
    made = flow(**SDXL, init="a.jpg", mask="m.png", strength=0.35, images=3)
    assert made.sampling[-1] == 0.35
    batch = made.source(made.one("KSampler"), "latent_image")
    assert (batch["type"], batch["widgets_values"]) == ("RepeatLatentBatch", [3])
    masked = made.source(batch, "samples")
    assert made.source(masked, "samples", "pixels")["widgets_values"] == ["lanczos", 896, 1152, "center"]
    assert made.source(masked, "samples", "pixels", "image")["title"] == "Start picture"
    assert made.source(masked, "mask", "image", "image")["widgets_values"][0] == "mask.png"
    assert flow(**SDXL, strength=0.35).sampling[-1] == 1.0
    plain = flow(**SDXL, init="a.jpg")
    assert plain.source(plain.one("KSampler"), "latent_image")["type"] == "VAEEncode"


def test_extra_controls() -> None:
    controls = (
        {"kind": "canny", "image": "c.png", "strength": 0.4, "start": 0.1, "end": 0.7},
        {"kind": "depth", "image": "d.png", "is_map": True},
        {"kind": "pose", "image": "p.png"},
    )
    made = flow(**SDXL, control=controls)
    last = made.source(made.one("KSampler"), "positive")
    assert made.source(made.one("KSampler"), "negative") is last
    assert last["type"] == "ControlNetApplyAdvanced"
    assert "openpose" in made.source(last, "control_net")["widgets_values"][0]
    first = made.source(last, "positive", "positive")
    assert first["widgets_values"] == [0.4, 0.1, 0.7]
    assert made.source(first, "image")["type"] == "Canny"
    assert made.source(first, "positive")["type"] == "ApplyInstantIDAdvanced"
    assert made.source(made.source(last, "positive"), "image")["type"] == "LoadImage"
    assert "the drawing of the pose map" in made.note
    assert "depth" not in made.note


def test_what_has_no_node_is_named() -> None:
    person = {"face": "a.jpg", "region": {"x0": 0, "y0": 0, "x1": 0.5, "y1": 1}}
    request = GenerationRequest(
        **SDXL,
        person=(person, person),
        view={"yaw": 30},
        place={"x": 0.2},
        face_detail=True,
        identity_every=2,
        guidance_end=0.5,
    )
    said = comfyui.left_out(request)
    for part in ("view (yaw 30)", "group", "Place", "Second pass for the face", "every k-th step (2)", "until (0.5)"):
        assert any(part in entry for entry in said), part
    note = Flow(comfyui.workflow(request)).note
    assert all(entry in note for entry in said)
    assert comfyui.left_out(GenerationRequest(**SDXL)) == []
    assert flow(upscale=2).one("ImageScaleBy")["widgets_values"] == ["lanczos", 2.0]
    assert flow(combine="concatenate").one("ApplyInstantIDAdvanced")["widgets_values"][-1] == "concat"


def test_a_picture_becomes_a_workflow(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    request = GenerationRequest(
        **SDXL,
        steps=4,
        guidance=1.0,
        scheduler="euler",
        quality="fast",
        face=("a.jpg",),
        init="b.jpg",
        view={"roll": 10},
        blend_with=("c.jpg",),
        strength=0.5,
        control=({"kind": "canny", "image": "d.png", "strength": 0.7},),
    )
    picture = Image.new("RGB", (64, 64))
    result = Result(
        pictures=(picture,),
        seeds=(3,),
        likeness=((Likeness(value=0.7, word="strong"),),),
        seconds={},
        request=request,
        model_name="YamerMIX v8",
    )
    (tmp_path / "a.webp").write_bytes(metadata.encode(picture, "webp", metadata.parameters_text(result, 0)))
    assert cli.main(["export-comfyui", str(tmp_path / "a.webp"), "--out", str(tmp_path / "w.json")]) == 0
    made = Flow(json.loads((tmp_path / "w.json").read_text()))
    assert made.sampling == [4, 1.0, "euler", "sgm_uniform", 0.5]
    assert made.one("ControlNetApplyAdvanced")["widgets_values"][0] == 0.7
    said = capsys.readouterr().out
    assert "Left out: the view (roll 10)" in said
    assert "Left out: the blend with a second person" in said
    # And back again, as far as it goes.
    assert metadata.of_texts({"workflow": (tmp_path / "w.json").read_text()})["seed"] == 3


@pytest.mark.parametrize(
    "record",
    [{"control": 5, "pictures": 5, "person": 5}, {"control": [1, {"kind": "x"}, {"strength": 9}], "pictures": [1, []]}],
)
def test_a_strange_record_adds_nothing(record: dict[str, Any], tmp_path: Path) -> None:
    text = f"x\nInstantID: {json.dumps({'seed': 3, **record})}"
    (tmp_path / "a.png").write_bytes(metadata.encode(Image.new("RGB", (64, 64)), "png", text))
    assert cli.main(["export-comfyui", str(tmp_path / "a.png"), "--out", str(tmp_path / "w.json")]) == 0
    assert Flow(json.loads((tmp_path / "w.json").read_text())).all("ControlNetApplyAdvanced") == []
