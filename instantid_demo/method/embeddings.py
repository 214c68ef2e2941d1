"""Textual inversion: words that stand for vectors, for the time of one encoding; the text encoders stay as they are.

A file holds a few rows per text encoder: `clip_l` and `clip_g` for SDXL, `emb_params`, `string_to_param` or one
tensor by the name of its word for SD1.5.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from instantid_demo.method import checkpoints
from instantid_demo.models.addons import plain_name
from instantid_demo.request import RequestError

Rows = tuple[Tensor, ...]
"""Per text encoder, (n, width)."""


def named(text: str, names: Mapping[str, Path]) -> dict[str, Path]:
    """Which embeddings a prompt names, by the way in which it does: `embedding:name`, or the name alone."""
    found = {}
    for match in re.finditer(r"embedding:\s*([^\s,:;()\[\]<>|]+)|(?<![\w.-])([^\W\d][\w.-]*\w)", text, re.IGNORECASE):
        file = names.get(plain_name(match[1] or match[2]))
        if file is not None:
            found[match[0]] = file
    return found


def read_all(files: Mapping[str, Path], pipe: Any) -> tuple[dict[str, Rows], list[str]]:
    """The embeddings of a prompt's words; one that does not fit stands for nothing, which a note says."""
    learned, notes = dict[str, Rows](), list[str]()
    for word, file in files.items():
        try:
            learned[word] = read(file, pipe)
        except RequestError as error:
            learned[word] = tuple(torch.zeros(0, encoder.config.hidden_size) for encoder in _encoders(pipe))
            notes.append(f"Left out of the words: {error}")
    return learned, notes


def _encoders(pipe: Any) -> list[Any]:
    return [getattr(pipe, name) for name in ("text_encoder", "text_encoder_2") if getattr(pipe, name, None)]


def read(file: Path, pipe: Any) -> Rows:
    """An embedding's rows for each text encoder of a pipeline.

    Raises:
        RequestError: the file is damaged, no embedding, or one for another architecture.
    """
    shapes = checkpoints.read_shapes(file)
    if file.suffix.lower() == ".safetensors":
        from safetensors.torch import load_file

        state = load_file(file)
    else:
        state = _flat(torch.load(file, map_location="cpu", weights_only=True))
    widths = [encoder.config.hidden_size for encoder in _encoders(pipe)]
    if {"clip_l", "clip_g"} <= set(shapes):
        rows = [state["clip_l"], state["clip_g"]]
    else:
        rows = [tensor for key, tensor in state.items() if tensor.ndim in (1, 2) and tensor.is_floating_point()]
    rows = [tensor.reshape(-1, tensor.shape[-1]).float() for tensor in rows]
    if [tensor.shape[-1] for tensor in rows] != widths:
        theirs = {(768, 1280): "SDXL", (768,): "SD1.5", (1024,): "SD 2"}.get(tuple(row.shape[-1] for row in rows))
        why = f"was made for {theirs}" if theirs else "is none, or one for another kind of model"
        raise RequestError(f"The embedding {file.name} {why}: choose one made for this model.")
    return tuple(rows)


def _flat(content: Any) -> dict[str, Tensor]:
    flat: dict[str, Tensor] = {}
    for key, value in content.items() if isinstance(content, Mapping) else ():
        flat |= {str(key): value} if isinstance(value, Tensor) else _flat(value)
    return flat


@contextmanager
def put_in(encoder: Any, rows: Mapping[int, Tensor]) -> Iterator[None]:
    """One call of a text encoder (one text) that gets these vectors at these places instead of its words' own."""

    def replaced(module: Any, arguments: Any, output: Tensor) -> Tensor:
        output = output.clone()
        for place, row in rows.items():
            output[:, place] = row.to(output)
        return output

    if not rows:
        yield
        return
    hook = encoder.get_input_embeddings().register_forward_hook(replaced)
    try:
        yield
    finally:
        hook.remove()
