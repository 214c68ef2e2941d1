"""Where a picture comes from, as far as the picture itself tells; nobody else is ever asked."""

import argparse
import io
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from instantid_demo.faces.photo import content, open_photo
from instantid_demo.provenance import credentials, metadata, watermark
from instantid_demo.request import RequestError

Manifest = Literal["trusted", "untrusted", "tampered", "absent"]
MIMES: dict[str, Callable[[bytes], bool]] = {
    "image/png": lambda data: data.startswith(b"\x89PNG"),
    "image/jpeg": lambda data: data.startswith(b"\xff\xd8"),
    "image/webp": lambda data: data[:4] == b"RIFF" and data[8:12] == b"WEBP",
}
"""By the first bytes, for a damaged picture must still be told from one without credentials."""
MOST_MODELS = 8
MOST_LETTERS = 80
"""Of a model's name: a stranger's manifest may claim anything, at any length."""
_WORDS: dict[Manifest, str] = {
    "trusted": "Signed content credentials by a trusted signer: the picture is as it was made.",
    "untrusted": "Signed content credentials: unchanged since it was signed, but nobody vouches for the signer.",
    "tampered": "Its content credentials do not fit the picture: it was changed after it was signed.",
    "absent": "No content credentials: it never had any, or somebody removed them.",
}
_OWN = "Signed content credentials by this very installation: the picture is as it was made here."
# What c2pa reports about the signer's name only, not about the picture.
_SIGNER_ONLY = frozenset({"signingCredential.untrusted", "timeStamp.untrusted"})
_ACTIONS = re.compile(r"c2pa\.actions(\.v\d+)?(__\d+)?")


@dataclass(frozen=True)
class Credentials:
    """What a picture's content credentials are worth."""

    manifest: Manifest
    models: tuple[str, ...] = ()
    """As the signer names them."""
    own: bool = False
    """Signed with this installation's own key."""


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
    own: bool = False
    """Signed with this installation's own key."""

    @property
    def words(self) -> str:
        """All of it in sentences."""
        said = [_OWN if self.own else _WORDS[self.manifest]]
        if self.models:
            said.append(f"Its signer says that it was made with {', '.join(self.models)}.")
        said.append(
            "The invisible watermark of this program was found: it was made here."
            if self.watermark
            else "The invisible watermark of this program was not found."
        )
        if self.settings:
            said.append("It holds settings that can be used again.")
        return " ".join(said)


def verify(path: Path, anchors: Path | None = None, home: Path | None = None) -> Verification:
    """Looks at a picture file.

    Args:
        path: PNG, JPEG or WebP; other pictures can only carry the watermark.
        anchors: PEM file of certificates whose signatures count as trusted.
        home: The application's data, whose own key is then told from others.

    Raises:
        RequestError: the file is no picture (one that was damaged after it was signed is tampered with, though), or
            `anchors` holds no certificates.
    """
    data = content(Path(path))
    found = read_manifest(data, anchors, home)
    try:
        mark = watermark.detect(open_photo(path))
    except RequestError:
        if found.manifest == "tampered":
            return Verification(found.manifest, False, 0.0, {})
        raise
    settings = metadata.read(data)
    return Verification(found.manifest, mark.found, round(mark.score, 3), settings, found.models, found.own)


def read_manifest(data: bytes, anchors: Path | None = None, home: Path | None = None) -> Credentials:
    """What a picture's content credentials are worth; arguments as `verify`'s, `data` is the file.

    Raises:
        RequestError: `anchors` holds no certificates.
    """
    trusted = "" if anchors is None else credentials.certificates(anchors)
    found = _read(data, trusted)
    if found.manifest != "untrusted" or home is None:
        return found
    own = credentials.own_certificates(home)
    if own and _read(data, own).manifest == "trusted":
        return Credentials("untrusted", found.models, own=True)
    return found


class _Report(BaseModel):
    """What c2pa tells, as far as it matters here."""

    class Manifest(BaseModel):
        class Assertion(BaseModel):
            label: str
            data: Any = None

        assertions: list[Assertion] = []

    class Status(BaseModel):
        code: str

    active_manifest: str | None = None
    manifests: dict[str, Manifest] = {}
    validation_state: str | None = None
    validation_status: list[Status] = []


class _Actions(BaseModel):
    """An assertion as this program writes it."""

    class Action(BaseModel):
        class Parameters(BaseModel):
            models: list[str] = []

        parameters: Parameters | None = None

    actions: list[Action]


def _read(data: bytes, trusted: str) -> Credentials:
    import c2pa

    mime = next((mime for mime, is_it in MIMES.items() if is_it(data)), None)
    if mime is None:
        return Credentials("absent")
    # A picture may name an address to ask for its manifest; what is asked for here is the picture alone.
    settings: dict[str, Any] = {"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False, "verify_trust": True}}
    if trusted:
        settings["trust"] = {"trust_anchors": trusted}
    try:
        with (
            c2pa.Context(c2pa.Settings.from_json(json.dumps(settings))) as context,
            c2pa.Reader(mime, io.BytesIO(data), context=context) as reader,
        ):
            report = _Report.model_validate_json(reader.json())
    except c2pa.C2paError as error:
        # Without a manifest of its own, or with the address of one elsewhere; else there is one that cannot be read.
        words = f"{type(error).__name__} {error}"
        absent = "ManifestNotFound" in words or "Remote" in words
        return Credentials("absent" if absent else "tampered")
    except ValidationError:
        return Credentials("tampered")
    models = _models(report)
    if report.validation_state == "Trusted":
        return Credentials("trusted", models)
    broken = {status.code for status in report.validation_status} - _SIGNER_ONLY
    return Credentials("tampered" if broken or report.validation_state == "Invalid" else "untrusted", models)


def _models(report: _Report) -> tuple[str, ...]:
    """Names of models in the active manifest's actions; foreign data of another shape names none."""
    active = report.manifests.get(report.active_manifest or "", _Report.Manifest())
    for assertion in active.assertions:
        if not _ACTIONS.fullmatch(assertion.label):
            continue
        try:
            actions = _Actions.model_validate(assertion.data).actions
        except ValidationError:
            continue
        said = [name for action in actions if action.parameters for name in action.parameters.models]
        names = (" ".join(name.split())[:MOST_LETTERS] for name in said)
        return tuple(name for name in names if name.isprintable() and name)[:MOST_MODELS]
    return ()


def main(argv: list[str]) -> int:
    """`verify FILE [--json] [--anchors PEM]`; 0 when the file could be looked at, whatever was found."""
    from instantid_demo import flags, quiet
    from instantid_demo.settings import Settings

    parser: argparse.ArgumentParser = flags.Parser("instantid_demo verify", description="Tell where a picture is from.")
    parser.add_argument("file", type=Path)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--anchors", type=Path, help="PEM file of certificates that count as trusted")
    given = parser.parse_args(argv)
    with quiet.stdout() as out:
        found = verify(given.file, given.anchors, Settings().home)
        report = {
            "manifest": found.manifest,
            "own": found.own,
            "watermark": found.watermark,
            "score": found.score,
            "models": list(found.models),
            "settings": found.settings,
            "words": found.words,
        }
        print(json.dumps(report) if given.json else found.words, file=out)
    return 0
