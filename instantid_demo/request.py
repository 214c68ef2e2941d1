"""The one typed request that page, command line, API and saved metadata share, and what comes back for it.

Every field carries its label, help text, range and default here and nowhere else. `json_schema_extra` holds
what the front ends need besides: `group` (the part of the page), `advanced` (folded away), `private` (a path
to a user's file: never stored in metadata), `step` (slider step).
"""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from instantid_demo.names import without_paths

MAX_SIDE = 2048
MAX_IMAGES = 8
MAX_PHOTOS = 8
MAX_PEOPLE = 4
MAX_LORAS = 5

Quality = Literal["quality", "fast", "draft"]
Scheduler = Literal["auto", "euler", "euler_ancestral", "ddim", "dpmpp_2m", "dpmpp_2m_karras", "lcm", "tcd", "unipc"]
ControlKind = Literal["pose", "depth", "canny"]
PictureFormat = Literal["png", "jpeg", "webp"]
FacePart = Literal["hair", "eyes", "mouth", "skin", "ground"]


class RequestError(Exception):
    """The user's side is at fault; the message is one plain sentence that says what to do next.

    Not a `ValueError`: whoever catches what a library finds wrong with a file would catch our own sentence with it.
    """


class Model(BaseModel):
    """Base of the request's parts: immutable, no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class View(Model):
    """Direction of the head in degrees. +yaw turns towards the picture's right, +pitch up, +roll clockwise."""

    yaw: float = Field(0, ge=-90, le=90)
    pitch: float = Field(0, ge=-60, le=60)
    roll: float = Field(0, ge=-180, le=180)


class Region(Model):
    """A box in fractions of the picture's width and height, `x0 < x1`, `y0 < y1`."""

    x0: float = Field(ge=0, le=1)
    y0: float = Field(ge=0, le=1)
    x1: float = Field(ge=0, le=1)
    y1: float = Field(ge=0, le=1)

    @model_validator(mode="after")
    def _not_empty(self) -> "Region":
        if self.x1 - self.x0 < 0.05 or self.y1 - self.y0 < 0.05:
            raise ValueError("A region needs at least 5 % of the picture in both directions: x0,y0,x1,y1.")
        return self


def region(edges: Any) -> Region:
    """A region of `[x0, y0, x1, y1]`, from whomever.

    Raises:
        RequestError: it is none; the message says what is wrong with it.
    """
    if not isinstance(edges, (list, tuple)) or len(edges) != 4:
        raise RequestError("A region is four numbers from 0 to 1: x0, y0, x1, y1.")
    try:
        return Region(**dict(zip(("x0", "y0", "x1", "y1"), edges, strict=True)))
    except ValidationError as error:
        first = error.errors()[0]
        if not first["loc"]:
            raise RequestError(str(first["msg"]).removeprefix("Value error, ")) from error
        given = str(first["input"])[:40]
        raise RequestError(f"A region's {first['loc'][0]} is a number from 0 to 1, not {given!r}.") from error


class Place(Model):
    """Where the face stands in the frame: its centre, and its size as a factor of the usual one."""

    x: float = Field(0.5, ge=0, le=1)
    y: float = Field(0.5, ge=0, le=1)
    size: float = Field(1.0, ge=0.2, le=2)


class Person(Model):
    """One of several people in a picture."""

    face: Path = Field(json_schema_extra={"private": True})
    region: Region
    view: View | None = None


class Control(Model):
    """An extra ControlNet beside IdentityNet."""

    kind: ControlKind
    image: Path = Field(json_schema_extra={"private": True})
    is_map: bool = False
    """True where `image` already is the control map, not a photo to make one from."""
    strength: float = Field(0.5, ge=0, le=2)
    start: float = Field(0, ge=0, le=1)
    end: float = Field(1, ge=0, le=1)
    net: str = Field("", max_length=1000)
    """An own ControlNet: a folder, a file or a hub id; empty: the one that the model has for this kind."""


class Lora(Model):
    """A LoRA and its weight; `source` is a file, a hub id, `owner/name/file`, or a name in the folder of LoRAs."""

    source: str
    weight: float = Field(1.0, ge=-2, le=2)


class Consent(Model):
    """That the user confirmed they may use the face, and which words they confirmed."""

    statement: str
    time: datetime


def _multiple_of_8(value: int) -> int:
    return value - value % 8


Side = Annotated[int, Field(ge=64, le=MAX_SIDE), AfterValidator(_multiple_of_8)]


def about(label: str, help: str, group: str, **more: Any) -> dict[str, Any]:
    """Keyword arguments of a pydantic `Field` for one request field."""
    constraints: dict[str, Any] = {key: more.pop(key) for key in ("ge", "le", "max_length") if key in more}
    return {"title": label, "description": help, "json_schema_extra": {"group": group, **more}} | constraints


class GenerationRequest(Model):
    """Everything that decides a picture. `None` means: as the model and the quality preset have it."""

    model: str = Field(
        "auto", **about("Model", "auto, pocket, sdxl, a folder, a .safetensors file or a hub id.", "model")
    )

    face: tuple[Path, ...] = Field(
        (),
        max_length=MAX_PHOTOS,
        **about("Photo", "One or more photos of the same person, or an identity card.", "people", private=True),
    )
    face_index: int | None = Field(
        None, **about("Which face", "Counted from the left, from 0; empty: the largest.", "people", ge=0, le=63)
    )
    combine: Literal["average", "concatenate"] = Field(
        "average", **about("Several photos", "How photos of one person become one identity.", "people", advanced=True)
    )
    blend_with: tuple[Path, ...] = Field(
        (), max_length=MAX_PHOTOS, **about("Second person", "Photo of a person to blend with.", "people", private=True)
    )
    blend: float = Field(0.5, **about("Blend", "0 is the first person, 1 the second.", "people", ge=0, le=1, step=0.05))
    person: tuple[Person, ...] = Field(
        (),
        max_length=MAX_PEOPLE,
        **about("People", "Several people, each with a region of the picture (x0,y0,x1,y1 as fractions).", "people"),
    )

    pose: Path | None = Field(
        None, **about("Pose photo", "A photo whose head position is copied.", "pose", private=True)
    )
    view: View | None = Field(None, **about("View", "Direction of the head: yaw, pitch and roll in degrees.", "pose"))
    place: Place | None = Field(None, **about("Place", "Where the face stands in the frame: x, y and size.", "pose"))

    prompt: str = Field("", **about("Prompt", "What the picture shows.", "words", max_length=4000))
    negative_prompt: str = Field(
        "", **about("Not in the picture", "What to avoid.", "words", max_length=4000, advanced=True)
    )
    style: str = Field("none", **about("Style", "A preset of words for the look.", "words", max_length=80))

    clip_skip: int | None = Field(
        None,
        **about(
            "Clip skip",
            "Last layer of the text encoder to read, counted from the end as other tools do; SDXL's own is 2.",
            "words",
            ge=1,
            le=12,
            step=1,
            advanced=True,
        ),
    )

    width: Side | None = Field(None, **about("Width", "Pixels.", "size", ge=64, le=MAX_SIDE, step=8))
    height: Side | None = Field(None, **about("Height", "Pixels.", "size", ge=64, le=MAX_SIDE, step=8))
    images: int = Field(1, **about("Pictures", "How many to make.", "size", ge=1, le=MAX_IMAGES, step=1))

    quality: Quality = Field("quality", **about("Quality", "Speed against detail.", "quality"))
    steps: int | None = Field(
        None, **about("Steps", "Denoising steps.", "quality", ge=1, le=100, step=1, advanced=True)
    )
    guidance: float | None = Field(
        None,
        **about("Guidance", "How strictly the words are followed.", "quality", ge=0, le=20, step=0.1, advanced=True),
    )
    scheduler: Scheduler = Field("auto", **about("Scheduler", "The sampling method.", "quality", advanced=True))
    guidance_rescale: float = Field(
        0.0, **about("Guidance rescale", "Against burnt colours.", "quality", ge=0, le=1, step=0.05, advanced=True)
    )
    guidance_start: float = Field(
        0.0,
        **about(
            "Guidance from", "Share of the steps before guidance acts.", "speed", ge=0, le=1, step=0.05, advanced=True
        ),
    )
    guidance_end: float = Field(
        1.0,
        **about(
            "Guidance until",
            "Share of the steps after which guidance rests.",
            "speed",
            ge=0,
            le=1,
            step=0.05,
            advanced=True,
        ),
    )

    identity_strength: float = Field(
        0.8,
        **about("Pose and face shape", "Strength of IdentityNet.", "likeness", ge=0, le=1.5, step=0.05, advanced=True),
    )
    adapter_strength: float = Field(
        0.8, **about("Likeness", "Strength of the image adapter.", "likeness", ge=0, le=1.5, step=0.05, advanced=True)
    )
    appearance: float | None = Field(
        None,
        **about(
            "Looks of the photo",
            "How much of the photo's skin, hair and light is kept beside the face itself; empty: as measured best. "
            "Models that do not look at them ignore this.",
            "likeness",
            ge=0,
            le=1,
            step=0.05,
            advanced=True,
        ),
    )
    free: tuple[FacePart, ...] = Field(
        (),
        max_length=5,
        **about("Parts left free", "Not taken from the photo's looks, but from the words.", "likeness", advanced=True),
    )
    identity_start: float = Field(
        0.0,
        **about(
            "IdentityNet from", "Share of the steps before it acts.", "likeness", ge=0, le=1, step=0.05, advanced=True
        ),
    )
    identity_end: float = Field(
        1.0,
        **about(
            "IdentityNet until",
            "Share of the steps after which it rests.",
            "likeness",
            ge=0,
            le=1,
            step=0.05,
            advanced=True,
        ),
    )
    identity_every: int = Field(
        1,
        **about(
            "IdentityNet every k-th step",
            "Reuses its answer in between: faster.",
            "speed",
            ge=1,
            le=8,
            step=1,
            advanced=True,
        ),
    )
    deep_every: int = Field(
        1,
        **about(
            "Deep blocks every k-th step",
            "The UNet's inner blocks repeat their answer in between: much faster, a little less exact.",
            "speed",
            ge=1,
            le=5,
            step=1,
            advanced=True,
        ),
    )
    quick_decode: bool = Field(
        False,
        **about(
            "Quick decoding",
            "A tiny autoencoder paints the finished picture: faster, fine detail a little softer.",
            "speed",
            advanced=True,
        ),
    )
    identity_noise: float = Field(
        0.0,
        **about(
            "Anti-burn noise", "Noise in the unconditional identity.", "likeness", ge=0, le=1, step=0.05, advanced=True
        ),
    )
    enhance_non_face: bool = Field(
        False,
        **about("Keep the background free", "Confines the identity to the face's box.", "likeness", advanced=True),
    )

    control: tuple[Control, ...] = Field(
        (), max_length=3, **about("Extra controls", "Body pose, depth or edges from another picture.", "controls")
    )
    init: Path | None = Field(
        None, **about("Start picture", "Put the person into this picture.", "start", private=True)
    )
    strength: float = Field(
        0.6, **about("Change", "How much of the start picture may change.", "start", ge=0.05, le=1, step=0.05)
    )
    mask: Path | None = Field(
        None,
        **about(
            "Mask",
            "White, or opaque on a transparent ground, where the start picture may change; the rest stays.",
            "start",
            private=True,
        ),
    )
    face_detail: bool = Field(
        False, **about("Second pass for the face", "Redraws a small face at full size.", "likeness", advanced=True)
    )
    lora: tuple[Lora, ...] = Field(
        (), max_length=MAX_LORAS, **about("LoRAs", "Add-ons of the base model.", "model", advanced=True)
    )

    seed: int | None = Field(
        None, **about("Seed", "Same seed, same picture; empty: random.", "seed", ge=0, le=2**32 - 1)
    )
    upscale: Literal[1, 2, 4] = Field(
        1, **about("Enlarge when saving", "Factor of the saved picture.", "saving", advanced=True)
    )
    format: PictureFormat = Field("png", **about("File type", "Of the saved picture.", "saving", advanced=True))
    prompt_in_credentials: bool = Field(
        False, **about("Prompt in the credentials", "Adds the prompt to the signed manifest.", "saving", advanced=True)
    )
    consent: Consent | None = Field(
        None, **about("Consent", "That you may use this face, and when you said so.", "consent", private=False)
    )

    @field_validator("style")
    @classmethod
    def _style_name(cls, value: str) -> str:
        return value.strip().lower() or "none"

    @model_validator(mode="after")
    def _fits_together(self) -> "GenerationRequest":
        if self.person and (self.face or self.blend_with):
            raise ValueError("Give either --person for several people or --face for one, not both.")
        if self.blend_with and not self.face:
            raise ValueError("Blending needs a first person: add --face.")
        if self.mask and not self.init:
            raise ValueError("A mask needs a start picture: add --init.")
        windows = [(self.identity_start, self.identity_end), (self.guidance_start, self.guidance_end)]
        if any(start > end for start, end in (*windows, *((c.start, c.end) for c in self.control))):
            raise ValueError("A window starts before it ends: the 'from' share must not be above 'until'.")
        return self

    def public(self) -> dict[str, Any]:
        """The request without any path to a user's file, JSON-ready: what restores a request's settings.

        Models and add-ons that are files stand in it by their names.
        """
        return {
            name: value if extra(name)["group"] in ("words", "consent") else without_paths(value)
            for name, value in self.model_dump(mode="json", exclude_defaults=True).items()
            if name not in {"person", "control"} and not extra(name).get("private")
        }

    def arranged(self) -> dict[str, Any]:
        """Extra controls, people's places and which kinds of pictures took part (`pictures`), JSON-ready.

        On record without the pictures themselves, so not restorable.
        """
        hidden = {"control": {"__all__": {"image", "net"}}, "person": {"__all__": {"face"}}}
        parts = self.model_dump(mode="json", include={"control", "person"}, exclude=hidden, exclude_defaults=True)
        given = [name for name in type(self).model_fields if extra(name).get("private") and getattr(self, name)]
        pictures = [name for name in given if name != "face"]
        return without_paths(parts) | ({"pictures": pictures} if pictures else {})


def extra(name: str) -> Mapping[str, Any]:
    """The front-end hints (`group`, `advanced`, `private`, `step`) of a request field."""
    hints = GenerationRequest.model_fields[name].json_schema_extra
    return hints if isinstance(hints, dict) else {}


class Progress(Model):
    """A sign of life while a request runs."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    stage: Literal["queued", "loading", "faces", "denoising", "decoding", "checking"]
    done: int = 0
    total: int = 0
    message: str = ""
    """One plain sentence for the page."""
    preview: Any = None
    """A small PIL RGB picture of the state so far, or None."""


class Likeness(Model):
    """How alike a made face is to its reference."""

    value: float | None
    """Cosine of the embeddings in -1..1; None where no face was found or a profile cannot be compared."""
    word: Literal["strong", "fair", "weak", "profile: not comparable", "no face found"]


class Result(Model):
    """What a finished request gave."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    pictures: tuple[Any, ...] = Field(min_length=1)
    """PIL RGB pictures, unsaved and unmarked."""
    seeds: tuple[int, ...]
    """One per picture; `seeds[0]` is the request's seed."""
    likeness: tuple[tuple[Likeness, ...], ...]
    """Per picture, one entry per person."""
    seconds: dict[str, float]
    """Wall-clock seconds by stage; `total` among them."""
    request: GenerationRequest
    """The request as it ran: model, seed, steps, guidance, scheduler and size filled in."""
    model_name: str
    notes: tuple[str, ...] = ()
    """Plain sentences for the user: what was adjusted, what looked odd."""
    blocked: tuple[bool, ...] = ()
    """Per picture: the safety filter blurred it."""
    kept: Any = None
    """What of the start picture stays (`masks.Kept`), where a mask says so: whoever enlarges, puts it back."""
