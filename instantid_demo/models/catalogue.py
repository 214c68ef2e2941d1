"""The public models that work with InstantID: where they are, how large, under which licence."""

from pathlib import Path
from typing import Literal

from instantid_demo.request import Model, RequestError
from instantid_demo.settings import Settings

Kind = Literal["base", "identity", "faces", "few-step", "control", "depth", "pose", "vae", "preview", "filter"]


class Entry(Model):
    """One model."""

    name: str
    """As the command line names it; also its folder under the models folder."""
    label: str
    kind: Kind
    repository: str
    """Hub id."""
    revision: str = "main"
    """Commit, where one is known to hold these files; main: whatever the repository holds when it is fetched."""
    files: tuple[str, ...] = ()
    """Patterns of the files to fetch; empty: the lightest complete set of a diffusers or transformers folder."""
    gigabytes: float
    """Of these files; a download checks the exact size against the free disk."""
    licence: str
    about: str


_SDXL = "CreativeML Open RAIL++-M"
_PAGE = "see the model's page"
_RESEARCH = "research only, non-commercial (depends on insightface's models)"


def _entry(
    kind: Kind, name: str, label: str, repository: str, gigabytes: float, licence: str, about: str, *files: str
) -> Entry:
    return Entry(
        name=name,
        label=label,
        kind=kind,
        repository=repository,
        files=files,
        gigabytes=gigabytes,
        licence=licence,
        about=about,
    )


ENTRIES: tuple[Entry, ...] = (
    _entry(
        *("identity", "instantid", "InstantID", "InstantX/InstantID", 4.2, _RESEARCH),
        *("IdentityNet and the image adapter for SDXL.", "ControlNetModel/*", "ip-adapter.bin"),
    ),
    _entry(
        *("faces", "antelopev2", "antelopev2", "DIAMONIK7777/antelopev2", 0.3, "non-commercial research"),
        *("Finds and recognises faces for SDXL.", "scrfd_10g_bnkps.onnx", "glintr100.onnx", "genderage.onnx"),
    ),
    _entry(
        *("base", "sdxl", "YamerMIX v8", "wangqixun/YamerMIX_v8", 7, _PAGE, "The base of the original demo."),
    ),
    _entry(
        *("base", "sdxl-base", "SDXL base 1.0", "stabilityai/stable-diffusion-xl-base-1.0", 7, _SDXL),
        "The plain base that all others grew from.",
    ),
    _entry("base", "realvis", "RealVisXL V5", "SG161222/RealVisXL_V5.0", 7, _SDXL, "Photographs of people."),
    _entry(
        *("base", "juggernaut", "Juggernaut XL v9", "RunDiffusion/Juggernaut-XL-v9", 7, "CreativeML Open RAIL-M"),
        "Photographs and film looks.",
    ),
    _entry(
        *("base", "dreamshaper", "DreamShaper XL", "Lykon/dreamshaper-xl-1-0", 7, _SDXL),
        "Paintings and fantasy as well as photographs.",
    ),
    _entry(
        *("base", "animagine", "Animagine XL 4", "cagliostrolab/animagine-xl-4.0", 7, _SDXL),
        "Drawn pictures in the anime style.",
    ),
    _entry(
        *("few-step", "lightning", "SDXL-Lightning, 4 steps", "ByteDance/SDXL-Lightning", 0.4, _SDXL),
        *("The Fast preset: four steps.", "sdxl_lightning_4step_lora.safetensors"),
    ),
    _entry(
        *("few-step", "lcm", "LCM-LoRA", "latent-consistency/lcm-lora-sdxl", 0.4, _SDXL),
        *("The Draft preset: a quick sketch.", "pytorch_lora_weights.safetensors"),
    ),
    _entry(
        *("few-step", "hyper", "Hyper-SDXL, 8 steps", "ByteDance/Hyper-SD", 0.8, _PAGE),
        *("Eight steps; add it as a LoRA, steps and scheduler follow.", "Hyper-SDXL-8steps-lora.safetensors"),
    ),
    _entry(
        *("few-step", "lcm-sd15", "LCM-LoRA for SD1.5", "latent-consistency/lcm-lora-sdv1-5", 0.1, "openrail++"),
        *("For those who trained an SD1.5 InstantID.", "pytorch_lora_weights.safetensors"),
    ),
    _entry(
        *("control", "control-pose", "Pose ControlNet", "thibaud/controlnet-openpose-sdxl-1.0", 5, _PAGE),
        "Copies a body's pose.",
    ),
    _entry(
        *("control", "control-depth", "Depth ControlNet", "diffusers/controlnet-depth-sdxl-1.0-small", 0.3, _SDXL),
        "Copies depth.",
    ),
    _entry(
        *("control", "control-canny", "Canny ControlNet", "diffusers/controlnet-canny-sdxl-1.0", 2.5, _SDXL),
        "Copies edges.",
    ),
    _entry(
        *("depth", "depth", "Depth Anything V2 small", "depth-anything/Depth-Anything-V2-Small-hf", 0.1, "Apache-2.0"),
        "Reads depth off a photo.",
    ),
    _entry(
        *("pose", "openpose", "OpenPose body", "lllyasviel/Annotators", 0.2, "non-commercial (CMU OpenPose)"),
        *("Reads body poses off a photo.", "body_pose_model.pth"),
    ),
    _entry(
        *("vae", "fp16-vae", "SDXL VAE for half precision", "madebyollin/sdxl-vae-fp16-fix", 0.3, "MIT"),
        "Decodes without overflowing in half precision.",
    ),
    _entry(
        *("preview", "taesdxl", "Tiny SDXL autoencoder", "madebyollin/taesdxl", 0.01, "MIT"),
        "Sharper previews while SDXL paints.",
    ),
    _entry(
        *("filter", "nsfw", "Picture filter", "Falconsai/nsfw_image_detection", 0.4, "Apache-2.0"),
        "Notices sexual pictures.",
    ),
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
