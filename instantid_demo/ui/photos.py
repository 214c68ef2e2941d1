"""Who the picture shows: the photo, consent, which face in it, further photos, and the identity card."""

from pathlib import Path
from typing import Any

import gradio as gr

from instantid_demo.faces.foreign import SUFFIXES, is_identity
from instantid_demo.faces.photo import extra_suffixes
from instantid_demo.request import RequestError
from instantid_demo.ui import fields, people, stage
from instantid_demo.ui.choice import picture_choice
from instantid_demo.ui.consent import Consents
from instantid_demo.ui.desk import QUIET, Desk, spoken
from instantid_demo.ui.photo_file import PhotoInput
from instantid_demo.ui.words import english, span, word


def photo_input(*, webcam: bool = True, **rest: Any) -> PhotoInput:
    """A place for a photo, kept as the file that the user gave: `open_photo` reads it, and says so if it cannot."""
    sources = ["upload", "webcam", "clipboard"] if webcam else ["upload", "clipboard"]
    made = PhotoInput(**({"type": "filepath", "image_mode": None, "sources": sources, "buttons": []} | rest))
    made.upload(as_shown, [made], [made], **QUIET)
    return made


def as_shown(file: str | None) -> Any:
    """A JPEG beside an uploaded photo that browsers cannot show, such as HEIC, to take its place.

    A picture with transparency or of more than 8 bits stays the file it is: a JPEG would mean something else.
    """
    from instantid_demo.faces.photo import is_shown_by_browsers, opened, rgb

    if not file or is_shown_by_browsers(Path(file)):
        return gr.skip()
    try:
        picture = opened(Path(file))
    except RequestError:
        return gr.skip()  # whoever uses it says what is wrong with it
    if picture.has_transparency_data or picture.mode not in ("RGB", "L", "CMYK", "YCbCr"):
        return gr.skip()
    copy = Path(file).with_suffix(".jpg")
    rgb(picture).save(copy, quality=95, subsampling=0)
    return str(copy)


class Photos:
    """The first card of the Create tab. Nothing is read from a photo before consent is given."""

    def __init__(self, desk: Desk, consents: Consents, model: gr.State) -> None:
        """`model` holds the visitor's choice of model, whose recogniser looks at the photos."""
        self.desk = desk
        with gr.Column(elem_id="who", elem_classes="card"):
            gr.HTML(span("who.title", "h2"), elem_classes="card-title", apply_default_css=False)
            self.photo = photo_input(
                label=word("field.face"),
                height=260,
                elem_id="photo",
                buttons=["fullscreen"],
                placeholder=word("who.placeholder"),
            )
            self.consent = consents.box("create")
            with gr.Column(visible=False, elem_id="faces-box") as faces_box:
                gr.HTML(span("faces.title", "p", "small-title"), apply_default_css=False)
                self.faces = picture_choice([], name_word="faces.title", elem_id="faces", elem_classes="faces")
            faces_note = gr.HTML("", elem_id="faces-note", apply_default_css=False)
            with gr.Accordion(word("more.title"), open=False, elem_id="more-photos"):
                self.more = gr.File(
                    label=word("more.label"),
                    file_count="multiple",
                    file_types=["image", *extra_suffixes(), *SUFFIXES],
                    height=120,
                    elem_id="more-files",
                )
                more_note = gr.HTML("", elem_id="more-note", apply_default_css=False)
                self.combine = fields.component("combine")
                with gr.Row():
                    save = gr.Button(word("card.save"), size="sm", elem_id="save-card")
                card = gr.File(label=word("card.file"), visible=False, elem_id="card-file", interactive=False)
                gr.HTML(span("card.note", "p", "note"), apply_default_css=False)

        allowed = [self.consent, model]
        for event in (self.photo.change, self.consent.change):
            event(spoken(self._find_faces), [self.photo, *allowed], [self.faces, faces_box, faces_note], **QUIET)
        self.more.change(spoken(self._check_photos), [self.photo, self.more, *allowed], more_note, **QUIET)
        save.click(spoken(self._save_card), [self.photo, self.more, self.faces, self.combine, *allowed], card, **QUIET)

    @property
    def inputs(self) -> dict[str, Any]:
        """Components by the name under which `given` reads their values."""
        return {"photo": self.photo, "face_choice": self.faces, "more": self.more, "consent": self.consent}

    def given(self, values: dict[str, Any]) -> dict[str, Any]:
        """The request's fields.

        Raises:
            RequestError: there is no photo.
            gr.Error: there is no consent.
        """
        consent = self.desk.consent(values["consent"])
        photo = values["photo"]
        files = _files(photo, values["more"])
        if not files:
            raise RequestError(english("error.photo"))
        index = int(values["face_choice"]) if values["face_choice"] and photo else None
        return {"face": tuple(Path(file) for file in files), "face_index": index, "consent": consent}

    def _find_faces(self, photo: str | None, given: bool, model: str) -> tuple[Any, Any, str]:
        hidden = gr.update(options=[], value="")
        if not photo or (self.desk.settings.consent and not given):
            return hidden, gr.update(visible=False), ""
        found = self.desk.engine.analyse(Path(photo), model)
        if not found:
            return hidden, gr.update(visible=False), span("faces.none", "p", "hint")
        from instantid_demo.faces import remarks

        largest = people.largest(found)
        note = "".join(span(f"photo.{remark}", "p", "hint") for remark in remarks.of(found[largest]))
        if len(found) == 1:
            return hidden, gr.update(visible=False), note
        options = [
            {
                "id": str(index),
                "name": english("faces.number", n=index + 1),
                "word": "faces.number",
                "values": {"n": index + 1},
                "picture": stage.data_uri(face.crop, 128),
            }
            for index, face in enumerate(found)
        ]
        return gr.update(options=options, value=str(largest)), gr.update(visible=True), note

    def _check_photos(self, photo: str | None, more: list[str] | None, given: bool, model: str) -> str:
        """Says which of several photos looks like someone else."""
        files = _files(photo, more)
        if len(files) < 2 or (self.desk.settings.consent and not given):
            return ""
        faces, numbers, lines = [], [], []
        for number, file in enumerate((file for file in files if not is_identity(file)), start=1):
            found = self.desk.engine.analyse(Path(file), model)
            if not found:
                lines.append(span("more.noface", "p", "hint", n=number))
                continue
            faces.append(found[people.largest(found)])
            numbers.append(number)
        if len(faces) > 1:
            outliers = people.identity_of(faces).outliers
            lines += [span("more.outlier", "p", "hint", n=numbers[index]) for index in outliers]
        return "".join(lines) or span("more.fine", "p", "note", n=len(faces))

    def _save_card(
        self,
        photo: str | None,
        more: list[str] | None,
        choice: str,
        combine: Any,
        given: bool,
        model: str,
        visitor: gr.Request,
    ) -> Any:
        self.desk.consent(given)
        files = [file for file in _files(photo, more) if not is_identity(file)]
        if not files:
            raise RequestError(english("error.photo"))
        chosen = []
        for index, file in enumerate(files):
            found = self.desk.engine.analyse(Path(file), model)
            if not found:
                raise RequestError(english("more.noface", n=index + 1))
            if index == 0 and photo and choice:
                chosen.append(found[min(int(choice), len(found) - 1)])
            else:
                chosen.append(found[people.largest(found)])
        card = self.desk.folder(visitor) / "identity.safetensors"
        people.identity_of(chosen, combine).save(card)
        return gr.update(value=str(card), visible=True)


def _files(photo: str | None, more: list[str] | None) -> list[str]:
    return ([photo] if photo else []) + list(more or [])
