"""LoRAs for one request: read once, switched on inside a `with`, off again without a trace."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from instantid_demo.method import checkpoints
from instantid_demo.models import catalogue
from instantid_demo.request import RequestError
from instantid_demo.settings import Settings


def find(source: str, settings: Settings) -> Path:
    """The file of a LoRA: a path, a catalogue name, or a downloaded hub id.

    Raises:
        RequestError: it is not here, or the folder holds no single LoRA file.
    """
    path = Path(source).expanduser()
    if path.suffix == ".safetensors":
        if not path.is_file():
            raise RequestError(f"There is no LoRA {path.name} here: check the name of the file.")
        return path
    folder = catalogue.local(source, settings)
    if folder is None:
        raise RequestError(f"The LoRA {source} is not here: run `python -m instantid_demo download {source}` first.")
    files = sorted(folder.glob("*.safetensors"))
    if len(files) != 1:
        raise RequestError(f"{source} holds {len(files)} files: give the one .safetensors file that you want.")
    return files[0]


@contextmanager
def applied(pipe: Any, wanted: Sequence[tuple[Path, float]]) -> Iterator[None]:
    """The pipeline with these LoRAs at these weights; disabled afterwards, which leaves its weights bit-identical.

    Raises:
        RequestError: a file is no LoRA, or one for another architecture.
    """
    if not wanted:
        yield
        return
    names = [_loaded(pipe, file) for file, _ in wanted]
    pipe.enable_lora()
    try:
        pipe.set_adapters(names, [weight for _, weight in wanted])
        yield
    finally:
        pipe.disable_lora()


def _loaded(pipe: Any, file: Path) -> str:
    """The adapter's name in the pipeline; read from disk the first time only."""
    changed = file.stat().st_mtime_ns
    name = "lora_" + hashlib.sha256(f"{file.resolve()}:{changed}".encode()).hexdigest()[:12]
    known = {adapter for part in pipe.get_list_adapters().values() for adapter in part}
    if name in known:
        return name
    architecture = "sdxl" if hasattr(pipe, "text_encoder_2") else "sd15"
    checkpoints.require(file, kind="lora", architecture=architecture)
    try:
        pipe.load_lora_weights(str(file.parent), weight_name=file.name, adapter_name=name)
    except (ValueError, KeyError, RuntimeError) as error:
        raise RequestError(f"The LoRA {file.name} does not fit this model: choose one made for it.") from error
    return name
