"""Where the safety filter stands in a request's way: words first, then people, then pictures."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from PIL import Image

from instantid_demo import safety
from instantid_demo.request import GenerationRequest, RequestError
from instantid_demo.settings import Settings

if TYPE_CHECKING:
    from instantid_demo.prepare import Prepared, Words

CHILD_BELOW = 18.0
"""Years by the recogniser's own, rough estimate."""


def check_words(request: GenerationRequest, text: "Words", settings: Settings) -> None:
    """Refuses unsafe words before any model is loaded.

    Raises:
        RequestError: the prompt is not allowed; the message says why.
    """
    if not settings.safety:
        return
    verdict = safety.check_prompt(f"{request.prompt} {text.prompt}")
    if not verdict.allowed:
        raise RequestError(verdict.reason)


def check_people(prepared: "Prepared", settings: Settings) -> None:
    """Refuses what is not fit for a child where the face looks like one (antelopev2 estimates ages, dlib does not).

    Raises:
        RequestError: the face looks like a child's and the words are not harmless.
    """
    if not settings.safety:
        return
    youngest = min((person.age for person in prepared.people if person.age is not None), default=None)
    if youngest is not None and youngest < CHILD_BELOW:
        verdict = safety.check_prompt(prepared.words.prompt, child=True)
        if not verdict.allowed:
            raise RequestError(verdict.reason)


def picture_filter(family: str, settings: Settings) -> safety.Classifier | None:
    """The classifier that pictures of this family of models must pass, got before they are drawn.

    Raises:
        RequestError: it is not here.
    """
    return safety.classifier_for(family, settings.models) if settings.safety else None


def check_pictures(
    pictures: Sequence[Image.Image], classifier: safety.Classifier | None
) -> tuple[list[Image.Image], tuple[bool, ...], list[str]]:
    """Blurs what the picture filter does not let pass.

    Returns:
        The pictures, which of them are blurred, and sentences for the user.
    """
    verdicts = [safety.check_picture(picture, classifier) for picture in pictures]
    shown = [p if v.allowed else safety.blur(p) for p, v in zip(pictures, verdicts, strict=True)]
    notes = [verdict.reason for verdict in verdicts if not verdict.allowed]
    return shown, tuple(not verdict.allowed for verdict in verdicts), list(dict.fromkeys(notes))
