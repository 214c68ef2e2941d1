"""Where a picture comes from, as far as the picture itself tells."""

import argparse
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from instantid_demo.faces.photo import MAX_BYTES, open_photo
from instantid_demo.provenance import metadata, watermark
from instantid_demo.request import RequestError

Manifest = Literal["trusted", "untrusted", "tampered", "absent"]
MIMES: dict[str, Callable[[bytes], bool]] = {
    "image/png": lambda data: data.startswith(b"\x89PNG"),
    "image/jpeg": lambda data: data.startswith(b"\xff\xd8"),
    "image/webp": lambda data: data[:4] == b"RIFF" and data[8:12] == b"WEBP",
}
"""By the first bytes, for a damaged picture must still be told from one without credentials."""
_WORDS: dict[Manifest, str] = {
    "trusted": "Signed content credentials by a trusted signer: the picture is as it was made.",
    "untrusted": "Signed content credentials: the picture is as it was made, but nobody vouches for the signer.",
    "tampered": "Its content credentials do not fit the picture: it was changed after it was signed.",
    "absent": "No content credentials: it never had any, or somebody removed them.",
}
# What c2pa reports about the signer's name only, not about the picture.
_SIGNER_ONLY = frozenset({"signingCredential.untrusted", "timeStamp.untrusted"})


@dataclass(frozen=True)
class Verification:
    """What a picture tells about its origin."""

    manifest: Manifest
    watermark: bool
    score: float
    """The watermark's score in units of its threshold: found from 1."""
    settings: dict[str, Any]
    """Request fields in its metadata."""
    models: tuple[str, ...] = ()
    """Named in its manifest."""

    @property
    def words(self) -> str:
        """All of it in sentences."""
        said = [_WORDS[self.manifest]]
        if self.models:
            said.append(f"Made with {', '.join(self.models)}.")
        said.append(
            "The invisible watermark of this program was found: it was made here."
            if self.watermark
            else "The invisible watermark of this program was not found."
        )
        if self.settings:
            said.append("It holds settings that can be used again.")
        return " ".join(said)


def verify(path: Path, anchors: Path | None = None) -> Verification:
    """Looks at a picture file.

    Args:
        path: PNG, JPEG or WebP; other pictures can only carry the watermark.
        anchors: PEM file of certificates whose signatures count as trusted.

    Raises:
        RequestError: the file is no picture (one that was damaged after it was signed is tampered with, though).
    """
    try:
        data = Path(path).read_bytes() if Path(path).stat().st_size <= MAX_BYTES else b""
    except OSError:
        data = b""  # open_photo says what is wrong with the file
    manifest, models = read_manifest(data, anchors)
    try:
        picture = open_photo(path)
    except RequestError:
        if manifest == "tampered":
            return Verification(manifest, False, 0.0, {})
        raise
    found = watermark.detect(picture)
    return Verification(manifest, found.found, round(found.score, 3), metadata.read_file(path), models)


def read_manifest(data: bytes, anchors: Path | None = None) -> tuple[Manifest, tuple[str, ...]]:
    """The state of a picture's content credentials and the models that they name."""
    import c2pa

    mime = next((mime for mime, is_it in MIMES.items() if is_it(data)), None)
    if mime is None:
        return "absent", ()
    settings: dict[str, Any] = {}
    if anchors is not None:
        settings = {"trust": {"trust_anchors": anchors.read_text()}, "verify": {"verify_trust": True}}
    try:
        with (
            c2pa.Context(c2pa.Settings.from_json(json.dumps(settings))) as context,
            c2pa.Reader(mime, io.BytesIO(data), context=context) as reader,
        ):
            report = json.loads(reader.json())
    except c2pa.C2paError as error:
        # A file without a manifest is the one harmless reason; anything else is a manifest that cannot be read.
        return ("absent" if "ManifestNotFound" in f"{type(error).__name__} {error}" else "tampered"), ()
    active = report.get("manifests", {}).get(report.get("active_manifest"), {})
    models: tuple[str, ...] = ()
    for assertion in active.get("assertions", []):
        for action in (assertion.get("data") or {}).get("actions", []) if "actions" in assertion["label"] else []:
            models = tuple(str(name) for name in (action.get("parameters") or {}).get("models", []))
    if report.get("validation_state") == "Trusted":
        return "trusted", models
    codes = {status["code"] for status in report.get("validation_status", [])}
    broken = codes - _SIGNER_ONLY
    return ("tampered" if broken or report.get("validation_state") == "Invalid" else "untrusted"), models


def main(argv: list[str]) -> int:
    """`verify FILE [--json] [--anchors PEM]`; 0 when the file could be looked at, whatever was found."""
    from instantid_demo import flags, quiet

    parser: argparse.ArgumentParser = flags.Parser("instantid_demo verify", description="Tell where a picture is from.")
    parser.add_argument("file", type=Path)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--anchors", type=Path, help="PEM file of certificates that count as trusted")
    given = parser.parse_args(argv)
    if given.anchors is not None and not given.anchors.is_file():
        raise RequestError(f"There is no file {given.anchors}: give a PEM file of certificates.")
    with quiet.stdout() as out:
        found = verify(given.file, given.anchors)
        report = {
            "manifest": found.manifest,
            "watermark": found.watermark,
            "score": found.score,
            "models": list(found.models),
            "settings": found.settings,
            "words": found.words,
        }
        print(json.dumps(report) if given.json else found.words, file=out)
    return 0
