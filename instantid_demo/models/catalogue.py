"""The public models that work with InstantID: where they are, how large, under which licence."""

from pathlib import Path
from typing import Literal

from instantid_demo.request import Model, RequestError
from instantid_demo.settings import Settings

Kind = Literal["identity", "faces", "base", "few-step", "control", "depth", "preview", "vae", "filter"]


class Entry(Model):
    """One model."""

    name: str
    """As the command line names it; also its folder under the models folder."""
    label: str
    kind: Kind
    repository: str
    """Hub id."""
    files: tuple[str, ...] = ()
    """Patterns of the files to fetch; empty: all that a diffusers folder needs."""
    gigabytes: float
    licence: str
    about: str

    @property
    def patterns(self) -> list[str]:
        """What to fetch, safe formats only."""
        return list(self.files) or ["*.json", "*.txt", "*.safetensors", "*.model"]


_SDXL = "CreativeML Open RAIL++-M"
_RESEARCH = "research only, non-commercial (depends on insightface's models)"

ENTRIES: tuple[Entry, ...] = tuple(
    Entry(
        **dict(zip(("name", "label", "kind", "repository", "files", "gigabytes", "licence", "about"), row, strict=True))
    )
    for row in (
        (
            *("instantid", "InstantID", "identity", "InstantX/InstantID"),
            *(("ControlNetModel/*", "ip-adapter.bin"), 4.2, _RESEARCH, "IdentityNet and the image adapter for SDXL."),
        ),
        (
            *("antelopev2", "antelopev2", "faces", "DIAMONIK7777/antelopev2"),
            *(("scrfd_10g_bnkps.onnx", "glintr100.onnx", "genderage.onnx"), 0.3, "non-commercial research"),
            "Finds and recognises faces for SDXL.",
        ),
        (
            *("sdxl", "YamerMIX v8", "base", "wangqixun/YamerMIX_v8"),
            *((), 7.0, "see the model's page", "The base of the original demo."),
        ),
        (
            *("sdxl-base", "SDXL base 1.0", "base", "stabilityai/stable-diffusion-xl-base-1.0"),
            *((), 7.0, _SDXL, "The plain base that all others grew from."),
        ),
        (
            *("realvis", "RealVisXL V5", "base", "SG161222/RealVisXL_V5.0"),
            *((), 7.0, _SDXL, "Photographs of people."),
        ),
        (
            *("juggernaut", "Juggernaut XL v9", "base", "RunDiffusion/Juggernaut-XL-v9"),
            *((), 7.0, "CreativeML Open RAIL-M", "Photographs and film looks."),
        ),
        (
            *("dreamshaper", "DreamShaper XL", "base", "Lykon/dreamshaper-xl-1-0"),
            *((), 7.0, _SDXL, "Paintings and fantasy as well as photographs."),
        ),
        (
            *("animagine", "Animagine XL 4", "base", "cagliostrolab/animagine-xl-4.0"),
            *((), 7.0, _SDXL, "Drawn pictures in the anime style."),
        ),
        (
            *("lightning", "SDXL-Lightning, 4 steps", "few-step", "ByteDance/SDXL-Lightning"),
            *(("sdxl_lightning_4step_lora.safetensors",), 0.4, _SDXL, "The Fast preset: four steps."),
        ),
        (
            *("lcm", "LCM-LoRA", "few-step", "latent-consistency/lcm-lora-sdxl"),
            *(("pytorch_lora_weights.safetensors",), 0.4, _SDXL, "The Draft preset: a quick sketch."),
        ),
        (
            *("hyper", "Hyper-SDXL, 8 steps", "few-step", "ByteDance/Hyper-SD"),
            *(("Hyper-SDXL-8steps-lora.safetensors",), 0.8, "see the model's page"),
            "Eight steps; use it as a LoRA with the scheduler ddim and guidance 1.",
        ),
        (
            *("lcm-sd15", "LCM-LoRA for SD1.5", "few-step", "latent-consistency/lcm-lora-sdv1-5"),
            *(("pytorch_lora_weights.safetensors",), 0.1, "openrail++", "For those who trained an SD1.5 InstantID."),
        ),
        (
            *("control-pose", "Pose ControlNet", "control", "thibaud/controlnet-openpose-sdxl-1.0"),
            *((), 5.0, "see the model's page", "Copies a body's pose."),
        ),
        (
            *("control-canny", "Canny ControlNet", "control", "diffusers/controlnet-canny-sdxl-1.0"),
            *(("config.json", "diffusion_pytorch_model.fp16.safetensors"), 2.5, _SDXL, "Copies edges."),
        ),
        (
            *("control-depth", "Depth ControlNet", "control", "diffusers/controlnet-depth-sdxl-1.0-small"),
            *(("config.json", "diffusion_pytorch_model.fp16.safetensors"), 0.3, _SDXL, "Copies depth."),
        ),
        (
            *("depth", "Depth Anything V2 small", "depth", "depth-anything/Depth-Anything-V2-Small-hf"),
            *((), 0.1, "Apache-2.0", "Reads depth off a photo."),
        ),
        (
            *("nsfw", "Picture filter", "filter", "Falconsai/nsfw_image_detection"),
            *((), 0.4, "Apache-2.0", "Notices sexual pictures."),
        ),
        (
            *("fp16-vae", "SDXL VAE for half precision", "vae", "madebyollin/sdxl-vae-fp16-fix"),
            *((), 0.3, "MIT", "Decodes without overflowing in half precision."),
        ),
    )
)
"""Facts from the models' pages; nothing is fetched before the user asks for it."""


def entry(name: str) -> Entry:
    """An entry by name or hub id.

    Raises:
        RequestError: there is none.
    """
    for known in ENTRIES:
        if name in (known.name, known.repository):
            return known
    raise RequestError(f"The catalogue has no {name}: `python -m instantid_demo download` lists what there is.")


def knows(name: str) -> bool:
    """Whether the catalogue has it."""
    return any(name in (known.name, known.repository) for known in ENTRIES)


def label(name: str) -> str:
    """An entry's label, or the name itself for what the user brought along."""
    return entry(name).label if knows(name) else name


def folder_of(name: str, models: Path) -> Path:
    """Where a model lies once it is here; a hub id's slash becomes two hyphens, so that it stays one folder."""
    return models / (entry(name).name if knows(name) else name.replace("/", "--"))


def local(name: str, settings: Settings) -> Path | None:
    """The folder of a completely downloaded model, None where it is not here."""
    if not name or name.startswith(".") or "\\" in name:
        return None
    folder = folder_of(name, settings.models)
    return folder if (folder / ".complete").is_file() else None
