"""What a model's name means: which folders and files it is made of, and which model is chosen where none is named."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

from instantid_demo.method import checkpoints
from instantid_demo.names import is_path
from instantid_demo.presets import Family
from instantid_demo.request import ControlKind, RequestError
from instantid_demo.settings import Settings

Recogniser = Literal["dlib", "antelopev2"]
RECOGNISERS: dict[int, Recogniser] = {128: "dlib", 512: "antelopev2"}
"""Face recogniser by the width of the embedding that an adapter takes."""
IDENTITY_FOLDERS = ("ControlNetModel", "IdentityNet")
ADAPTER_FILES = ("image_adapter.safetensors", "ip-adapter.safetensors", "ip-adapter.bin")
KINDS: tuple[ControlKind, ...] = get_args(ControlKind)
PUBLISHED_WIDTH = 2048
"""Of SDXL's text tokens: networks of another width are somebody's own, and public ControlNets do not fit them."""
SDXL_PARTS = ("instantid", "antelopev2", "sdxl", "nsfw")
"""Everything that SDXL is downloaded as."""
ANY_CONTROL = "control"
"""Folder of a model's ControlNet for every kind of map; `control-canny` and the like hold one for that kind."""
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Source:
    """The parts of one model."""

    name: str
    """As a request names it."""
    label: str
    """As the page and the metadata name it."""
    family: Family
    base: Path
    identity_net: Path
    adapter: Path
    recogniser: Recogniser
    embedding_dim: int
    controls: Mapping[ControlKind, Path] = field(default_factory=dict)
    """Extra ControlNets that are here."""
    architecture: str = "sdxl"
    takes_public_controls: bool = False
    """The ControlNets that were published for SDXL fit it."""
    vae: Path | None = None
    """An autoencoder that decodes in half precision without overflowing, instead of the base's own."""
    lenders: tuple[Path, ...] = ()
    """Complete base models that are here: their text encoders serve a single file that has none."""
    few_step: checkpoints.FewStep | None = None
    """What the base was merged with, so that it draws in a few steps."""
    v_prediction: bool = False
    """The base is one file that predicts velocity, not noise."""
    preview: Path | None = None
    """A tiny autoencoder for previews."""

    @property
    def folder(self) -> Path | None:
        """The model's folder, where its own defaults may lie."""
        return self.base if self.base.is_dir() else None


def choose(settings: Settings) -> str:
    """The model of a request that names none: the host's choice, or SDXL where it can run well, or Pocket."""
    if settings.model != "auto":
        return settings.model
    # In this order: the page is built without importing torch where SDXL is not here.
    return "sdxl" if sdxl_is_here(settings) and has_gpu(settings) else "pocket"


def has_gpu(settings: Settings) -> bool:
    """Whether the model would run on a graphics processor."""
    if settings.device != "auto":
        return settings.device != "cpu"
    import torch

    return torch.cuda.is_available() or torch.backends.mps.is_available()


def sdxl_is_here(settings: Settings) -> bool:
    """Whether everything that SDXL needs has been downloaded."""
    try:
        return not lacking(resolve("sdxl", settings), settings)
    except RequestError:
        return False


def lacking(source: Source, settings: Settings) -> tuple[str, ...]:
    """Names in the catalogue of what a model needs besides its own parts and is not here: who finds faces, who looks
    at the pictures."""
    from instantid_demo.models import catalogue

    needed = ["antelopev2"] if source.recogniser == "antelopev2" else []
    if settings.safety and source.family != "pocket":
        needed.append("nsfw")
    return tuple(name for name in needed if catalogue.local(name, settings) is None)


def require_complete(source: Source, settings: Settings) -> None:
    """Refuses a model that could be loaded but not used.

    Raises:
        RequestError: something is `lacking`.
    """
    if names := lacking(source, settings):
        what = {"antelopev2": "the face recogniser antelopev2", "nsfw": "the picture filter"}
        raise RequestError(
            f"{source.label} also needs {' and '.join(what[name] for name in names)}: "
            f"run `python -m instantid_demo download {' '.join(names)}` once, or use Pocket."
        )


def resolve(name: str, settings: Settings) -> Source:
    """The parts of the model `name`: auto, pocket, sdxl, a catalogue entry, a folder, a file or a hub id.

    Raises:
        RequestError: it is not here or not complete; the message says how to get it.
    """
    name = name.strip()
    if name in ("", "auto"):
        name = choose(settings)
    if name == "pocket":
        return _whole(settings.pocket, "pocket", "Pocket preview", settings)
    path = local_path(name)
    if path is None:
        return _from_catalogue(name, settings)
    if path.is_dir() and _inside(path, IDENTITY_FOLDERS) and _inside(path, ADAPTER_FILES):
        return _whole(path, name, path.resolve().name, settings)
    return _with_public_identity(path, name, path.resolve().stem if path.is_file() else path.resolve().name, settings)


def local_path(name: str) -> Path | None:
    """What lies at the place that `name` names; None where it names no place on this machine."""
    try:
        path = Path(name).expanduser()
        return path if path.exists() else None
    except (OSError, RuntimeError, ValueError):
        return None  # too long, of an unknown user, with characters that no name has


def control_net(name: str, settings: Settings) -> Path:
    """The folder or file of a ControlNet that a request names: a path, a catalogue entry or a downloaded hub id.

    Raises:
        RequestError: it is not here.
    """
    from instantid_demo.models import catalogue

    path = local_path(name) or catalogue.local(name, settings)
    if path is None:
        if catalogue.knows(name) or _HUB_ID.fullmatch(name):
            raise RequestError(
                f"The ControlNet {name} is not here: run `python -m instantid_demo download {name}` first."
            )
        if is_path(name):
            raise _no_such_place(name)
        raise RequestError(f"There is no ControlNet {name[:80]!r}: give a folder, a .safetensors file or a hub id.")
    # Some repositories call their weights otherwise than libraries look for them.
    usual = (path / "config.json").is_file() and any(path.glob("diffusion_pytorch_model*"))
    if path.is_dir() and not usual:
        files = sorted(path.glob("*.safetensors"))
        if len(files) > 1:
            names = ", ".join(file.name for file in files[:8])
            raise RequestError(f"{path.name} holds several files ({names}): give the path of the one that you want.")
        return files[0] if files else path
    return path


def _whole(folder: Path, name: str, label: str, settings: Settings) -> Source:
    """A folder that holds base, IdentityNet and adapter."""
    base = checkpoints.require(folder, kind="base-folder")
    net, adapter = _inside(folder, IDENTITY_FOLDERS), _inside(folder, ADAPTER_FILES)
    if net is None or adapter is None:
        raise RequestError(f"{folder.name!r} is incomplete: it needs ControlNetModel/ and image_adapter.safetensors.")
    published = base.architecture == "sdxl" and base.cross_attention_dim == PUBLISHED_WIDTH
    controls = {**(_public_controls(settings) if published else {}), **_controls(folder)}
    source = _checked(name, label, base, net, adapter, controls, settings)
    return replace(source, takes_public_controls=published)


def _with_public_identity(base_path: Path, name: str, label: str, settings: Settings) -> Source:
    """A base model with InstantID's public IdentityNet and adapter."""
    from instantid_demo.models import catalogue

    base = checkpoints.require(base_path, kind=("base-folder", "base-file"))
    if base.architecture != "sdxl":
        raise RequestError(
            f"{label} is an SD1.5 model, and InstantID was published for SDXL alone: choose an SDXL base, or a folder "
            "with an SD1.5 InstantID of your own in it (docs/training.md)."
        )
    instantid = catalogue.local("instantid", settings)
    if instantid is None:
        raise RequestError(
            "InstantID's own weights are not here: run `python -m instantid_demo download instantid` first, "
            "or use --model pocket."
        )
    net, adapter = _inside(instantid, IDENTITY_FOLDERS), _inside(instantid, ADAPTER_FILES)
    if net is None or adapter is None:
        raise RequestError(
            "InstantID's weights are incomplete: run `python -m instantid_demo download instantid` again."
        )
    source = _checked(name, label, base, net, adapter, _public_controls(settings), settings)
    return replace(
        source,
        takes_public_controls=True,
        vae=catalogue.local("fp16-vae", settings),
        preview=catalogue.local("taesdxl", settings),
        lenders=lenders(settings) if base.kind == "base-file" else (),
        few_step=base.few_step or checkpoints.few_step_of(label),
        v_prediction=base.prediction == "v_prediction",
    )


def _public_controls(settings: Settings) -> dict[ControlKind, Path]:
    """SDXL's downloaded ControlNets; the one for all kinds stands in for those that are missing."""
    from instantid_demo.models import catalogue

    union = catalogue.local("control-union", settings)
    found = {kind: catalogue.local(f"control-{kind}", settings) or union for kind in KINDS}
    return {kind: path for kind, path in found.items() if path is not None}


def lenders(settings: Settings) -> tuple[Path, ...]:
    """Downloaded base models in folders, whose parts serve a single file that lacks them."""
    return tuple(mark.parent for mark in sorted(settings.models.glob("*/.complete")) if _is_pipeline(mark.parent))


def _is_pipeline(folder: Path) -> bool:
    return (folder / "model_index.json").is_file()


def _from_catalogue(name: str, settings: Settings) -> Source:
    from instantid_demo.models import catalogue

    folder = catalogue.local(name, settings)
    if folder is not None:
        return _with_public_identity(folder, name, catalogue.label(name), settings)
    if catalogue.knows(name) or _HUB_ID.fullmatch(name):
        raise RequestError(
            f"The model {name} is not here: run `python -m instantid_demo download {name}` first, or use Pocket."
        )
    if is_path(name):
        raise _no_such_place(name)
    raise RequestError(f"There is no model {name[:80]!r}: use pocket, sdxl, a folder, a .safetensors file or a hub id.")


def _no_such_place(path: str) -> RequestError:
    """About a file or folder that is not there; of its path only the name is said."""
    name = re.split(r"[/\\]", path.rstrip("/\\"))[-1][:80]
    return RequestError(f"There is no file or folder {name!r} where it should be: check the path.")


def _checked(
    name: str,
    label: str,
    base: checkpoints.CheckpointInfo,
    net_path: Path,
    adapter_path: Path,
    controls: Mapping[ControlKind, Path],
    settings: Settings,
) -> Source:
    net = checkpoints.require(net_path, kind="identity-net")
    adapter = checkpoints.require(adapter_path, kind="image-adapter")
    checkpoints.require_together(base, net, adapter)
    recogniser = RECOGNISERS.get(adapter.embedding_dim or 0)
    if recogniser is None:
        raise RequestError(f"{adapter_path.name!r} needs a face recogniser that this program does not have.")
    family: Family = "pocket" if _is_pocket(base.path) else base.architecture or "sdxl"
    return Source(
        name,
        label,
        family,
        base.path,
        net_path,
        adapter_path,
        recogniser,
        adapter.embedding_dim or 0,
        controls,
        base.architecture or "sdxl",
    )


def _is_pocket(base: Path) -> bool:
    """Small models trained with our own recipe bring their own defaults, or a small latent grid."""
    if (base / "pocket.json").is_file():
        return True
    config = checkpoints.read_config(base / "unet")
    return config is not None and isinstance(config.sample_size, int) and config.sample_size <= 32


def _inside(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((folder / name for name in names if (folder / name).exists()), None)


def _controls(folder: Path) -> dict[ControlKind, Path]:
    found = {kind: _inside(folder, (f"control-{kind}", ANY_CONTROL)) for kind in KINDS}
    return {kind: path for kind, path in found.items() if path is not None}
