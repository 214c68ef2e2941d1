"""The only way a picture leaves the program: enlarged, watermarked, with its settings, signed, written."""

import os
import time
from pathlib import Path

from instantid_demo import framing
from instantid_demo.request import PictureFormat, RequestError, Result
from instantid_demo.settings import Settings

MIMES: dict[PictureFormat, str] = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}
SUFFIXES: dict[str, PictureFormat] = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}
LEAST_SIDE = 256
"""Smaller pictures are enlarged: the watermark needs the room."""


def save(result: Result, where: Path, settings: Settings) -> list[Path]:
    """Writes a result's pictures.

    Args:
        result: What the engine made.
        where: A folder, made if missing, or a file, whose ending then decides the format; further pictures get
            `-2`, `-3` … behind its name.
        settings: Which guards stand.

    Returns:
        The files, one per picture.

    Raises:
        RequestError: there is no picture, the ending is unknown, or the place cannot be written to.
    """
    if not result.pictures:
        raise RequestError("No picture was made: try again with more steps.")
    names, kind = _names(result, where)
    saved = []
    for index, file in enumerate(names):
        data = encoded(result, index, kind, settings)
        unfinished = file.with_name(f".{file.name}.partial")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            unfinished.write_bytes(data)
            os.replace(unfinished, file)
        except OSError as error:
            unfinished.unlink(missing_ok=True)
            raise RequestError(f"{file} cannot be written: choose another place to save to.") from error
        saved.append(file)
    return saved


def check_place(where: Path) -> None:
    """Finds out before the drawing whether pictures can be saved there.

    Raises:
        RequestError: the ending is unknown, or the place cannot be written to.
    """
    try:
        is_folder = where.is_dir()
        folder = where.parent if where.suffix and not is_folder else where
        if not is_folder and where.suffix and where.suffix.lower() not in SUFFIXES:
            raise RequestError(f"Pictures can be saved as {', '.join(SUFFIXES)}, not {where.suffix[:20]}.")
        where.exists()  # raises where the name alone is too long
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        shown = str(where) if len(str(where)) <= 80 else f"{str(where)[:80]}…"
        raise RequestError(f"{shown} cannot be made: choose another place to save to.") from error
    if not os.access(folder, os.W_OK):
        raise RequestError(f"{folder} cannot be written to: choose another place to save to.")


def encoded(result: Result, index: int, kind: PictureFormat, settings: Settings) -> bytes:
    """One picture of a result as the bytes of a finished file."""
    from instantid_demo.provenance import credentials, metadata, watermark

    request = result.request
    picture = framing.enlarged(result.pictures[index].convert("RGB"), request.upscale, LEAST_SIDE)
    # What the filter blurred stays blurred.
    kept = None if any(result.blocked[index : index + 1]) else result.kept
    if kept is not None:
        # At the size of the file: an enlarged copy of the canvas would be softer than the start picture.
        picture = kept.around(picture)
    if settings.watermark:
        picture = watermark.embed(picture, None if kept is None else kept.untouched())
    text = metadata.parameters_text(result, index, prompt=settings.prompt_in_metadata)
    data = metadata.encode(picture, kind, text, faithful=kept is not None)
    if not settings.credentials:
        return data
    signer = credentials.Signer.of(settings.home, settings.signing_certificate, settings.signing_key)
    claims = credentials.Claims(
        models=(result.model_name,),
        prompt=request.prompt if request.prompt_in_credentials else None,
        consent=request.consent,
    )
    return signer.sign(data, MIMES[kind], claims)


def _names(result: Result, where: Path) -> tuple[list[Path], PictureFormat]:
    count = len(result.pictures)
    if where.is_dir() or not where.suffix:
        kind = result.request.format
        ending = ".jpg" if kind == "jpeg" else f".{kind}"
        # Nanoseconds keep two results of the same second and seed apart.
        stamp = f"{time.strftime('%Y%m%d-%H%M%S')}-{time.time_ns() % 10**9 // 1000:06d}"
        return [where / f"{stamp}-{result.seeds[index]}{ending}" for index in range(count)], kind
    if where.suffix.lower() not in SUFFIXES:
        raise RequestError(f"Pictures can be saved as {', '.join(SUFFIXES)}, not {where.suffix}.")
    kind = SUFFIXES[where.suffix.lower()]
    numbered = [where.with_stem(f"{where.stem}-{index + 1}") for index in range(1, count)]
    return [where, *numbered], kind
