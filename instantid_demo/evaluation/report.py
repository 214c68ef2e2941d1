"""The report of an evaluation: JSON, a Markdown table for the model card, and one HTML page with the pictures in it."""

import base64
import html
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from instantid_demo.evaluation.measure import Evaluation, Person
from instantid_demo.request import RequestError

THUMBNAIL = 192
CARD_BEGIN, CARD_END = "<!-- evaluate: begin -->", "<!-- evaluate: end -->"
"""Between these lines of a model card stands the table that `evaluate --card` writes."""
_BINS = 40
Mark = Callable[[Image.Image], Image.Image]


def table(figures: dict[str, Any]) -> str:
    """The summary as a Markdown table: measured, and what detector and recogniser would give a perfect generator."""
    perfect, crop = figures["ceiling"]["second_picture"], figures["ceiling"]["own_crop"]
    shaken = figures["ceiling"]["disturbed"]
    rows = [
        ("Face found", _share(figures["face_found"]), _share(crop["face_found"])),
        ("Rank-1 identification", _share(figures["rank1"]), _share(perfect["rank1"])),
        ("Cosine to the own person", _number(figures["matched_cosine"]), _number(perfect["matched_cosine"])),
        ("Cosine to other people", _number(figures["mismatched_cosine"]), _number(perfect["mismatched_cosine"])),
        ("Difference of the two", _number(figures["separation"]), _number(perfect["separation"])),
        ("Rank-1, pictures disturbed", _share(figures["disturbed"]["rank1"]), _share(shaken["rank1"])),
        ("Difference, pictures disturbed", _number(figures["disturbed"]["separation"]), _number(shaken["separation"])),
        ("Detail (1: as sharp as the portrait)", _number(figures["detail"]), _number(1.0)),
        ("Keypoint error (eye distances)", _number(figures["keypoint_error"]), _number(crop["keypoint_error"])),
        ("Seconds per picture", _number(figures["seconds_per_picture"]), ""),
    ]
    seen = figures["looks"]
    rows += [
        ("Colour of the cheeks, off by (Lab)", _number(seen["cheeks"]), ""),
        ("Face darker than the portrait's by (Lab L)", _number(seen["darker"]), ""),
        ("Gradients of the inner face (1: the portrait's)", _number(seen["gradients"]), _number(1.0)),
    ]
    if second := figures["second_recogniser"]:
        floor, ceiling = second["thumbnail"], second["mirrored"]
        rows += [
            (f"Rank-1, judged by {second['name']}", _share(second["rank1"]), _share(ceiling["rank1"])),
            ("… of the portrait as a thumbnail of 24 pixels", _share(floor["rank1"]), ""),
            (
                f"Cosine to the own person, {second['name']}",
                _number(second["matched_cosine"]),
                _number(ceiling["matched_cosine"]),
            ),
            ("… of the thumbnail", _number(floor["matched_cosine"]), ""),
            (f"Difference of cosines, {second['name']}", _number(second["separation"]), _number(ceiling["separation"])),
        ]
        for name, group in second["rank1_by_skin"].items():
            rows.append(
                (f"Rank-1 of {group['people']} people with {name} skin, {second['name']}", _share(group["rank1"]), "")
            )
    if "styles" in figures:
        rows += [
            (f"Style promises kept ({len(figures['styles'])} styles)", _share(figures["style_obedience"]), ""),
            ("Difference between seeds (Lab)", _number(figures["diversity"]["lab_distance_between_seeds"]), ""),
            ("Cosine between seeds", _number(figures["diversity"]["cosine_between_seeds"]), ""),
        ]
    for name, view in figures.get("views", {}).items():
        measured = ", ".join((_share(view["face_found"]), _number(view["keypoint_error"]), _number(view["cosine"])))
        rows.append((f"Turned, {name}: face found, keypoint error, cosine", measured, ""))
    if group := figures.get("group"):
        rows += [
            (
                f"Two people in one picture: each more alike to the own ({group['pairs']} pairs)",
                _share(group["kept"]),
                "",
            ),
            ("Cosine to the own and to the other person there", _both(group["cosine_own"], group["cosine_other"]), ""),
        ]
    head = f"| {figures['portraits']} portraits, {figures['model_name']} | measured | ceiling |"
    return "\n".join([head, "|---|---|---|", *(f"| {' | '.join(row)} |" for row in rows)])


def remarks(figures: dict[str, Any]) -> list[str]:
    """Plain sentences that belong to the table."""
    ran, alike = figures["settings"], figures["ceiling"]["look_alikes"]
    said = [
        f"Words “{ran['prompt']}”, seed {ran['seed']}, {ran['steps']} steps, guidance {ran['guidance']}, "
        f"{ran['size']}, {ran['cores']} cores ({ran['device']}).",
        "Ceiling: the portrait itself in the picture's framing (face found, keypoints) and its mirrored, halved and "
        "dimmed copy (rank, cosines), seen by the same detector and recogniser.",
        "Disturbed: mirrored, turned by 6 degrees, a poor JPEG. What falls much more there than the ceiling does is no "
        "likeness, but a pattern that pleases the recogniser.",
        f"{alike['pairs']} pairs of different portraits look alike to {figures['recogniser']} "
        f"(closest cosine {alike['closest']:.2f}).",
    ]
    if figures["second_recogniser"] is None:
        said.append(
            f"No second recogniser was on this machine: {figures['recogniser']} conditions the model and judges it, "
            "which flatters. Give an ArcFace .onnx file with --embedder."
        )
    if missing := figures["portraits_without_a_face"]:
        said.append(f"Left out, because no face was found in the portrait: {', '.join(missing)}.")
    if blocked := figures["blocked_by_the_safety_filter"]:
        said.append(f"The safety filter blurred {blocked} of the pictures.")
    return said


def write(evaluation: Evaluation, folder: Path, mark: Mark) -> tuple[Path, Path]:
    """Writes `report.json` and `report.html` to `folder` and returns the two.

    Args:
        evaluation: What was measured.
        folder: Made where it does not exist.
        mark: Puts the product's invisible watermark into a made picture.

    Raises:
        RequestError: the folder cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        data, page_file = folder / "report.json", folder / "report.html"
        data.write_text(json.dumps(evaluation.figures, indent=1) + "\n", encoding="utf-8")
        page_file.write_text(page(evaluation, mark), encoding="utf-8")
    except OSError as error:
        raise RequestError(f"The report cannot be written to {folder}: choose another --report folder.") from error
    return data, page_file


def fill_card(card: Path, figures: dict[str, Any]) -> None:
    """Replaces the table of a model card.

    Raises:
        RequestError: the card or its two marking lines are missing.
    """
    try:
        text = card.read_text(encoding="utf-8")
    except OSError as error:
        raise RequestError(f"The model card {card} cannot be read: check the name after --card.") from error
    before, begin, rest = text.partition(CARD_BEGIN)
    _, end, after = rest.partition(CARD_END)
    if not begin or not end:
        raise RequestError(f"{card} has no place for the table: add the lines {CARD_BEGIN} and {CARD_END}.")
    said = "\n".join(f"- {sentence}" for sentence in remarks(figures))
    card.write_text(f"{before}{begin}\n\n{table(figures)}\n\n{said}\n\n{end}{after}", encoding="utf-8")


def page(evaluation: Evaluation, mark: Mark) -> str:
    """The report as one HTML page that needs nothing else."""
    figures = evaluation.figures
    title = f"Evaluation of {figures['model_name']}"
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        _html_table(table(figures)),
        "<ul>" + "".join(f"<li>{html.escape(said)}</li>" for said in remarks(figures)) + "</ul>",
        "<h2>Cosines: own person (blue) against other people (grey)</h2>",
        histogram(evaluation.matched, evaluation.mismatched),
        "<h2>People</h2><p>Left the portrait in the picture's framing, right the picture that was made of it.</p>",
        '<div class="grid">',
        *(_pair(person, rank, mark) for person, rank in zip(evaluation.people, evaluation.ranks, strict=True)),
        "</div>",
    ]
    if evaluation.styled:
        parts.append("<h2>Styles</h2>")
        for style, pictures in evaluation.styled.items():
            entry = figures["styles"][style]
            rules = "; ".join(entry["rules"])
            heading = f"{style}: kept by {entry['obeyed']:.0%}"
            parts.append(f"<h3>{html.escape(heading)}</h3><p>{html.escape(rules)}</p>{_strip(pictures, style, mark)}")
    if evaluation.seeds:
        parts.append("<h2>Several seeds</h2>")
        parts += [_strip(pictures, "one person, several seeds", mark) for pictures in evaluation.seeds]
    return _PAGE.format(title=html.escape(title), body="\n".join(parts))


def histogram(matched: np.ndarray, mismatched: np.ndarray, width: int = 720, height: int = 160) -> str:
    """Both distributions as SVG bars from -1 to 1, each scaled to its own highest bar."""
    bars = []
    for values, colour in ((mismatched, "#8886"), (matched, "#36cc")):
        counts, edges = np.histogram(values, bins=_BINS, range=(-1, 1))
        top = max(int(counts.max()), 1)
        for count, left in zip(counts, edges[:-1], strict=True):
            tall = height * count / top
            x, y = (left + 1) / 2 * width, height - tall
            bars.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{width / _BINS - 1:.1f}" height="{tall:.1f}" ')
            bars.append(f'fill="{colour}"/>')
    ticks = "".join(
        f'<text x="{(value + 1) / 2 * width:.0f}" y="{height + 16}" text-anchor="middle">{value:g}</text>'
        for value in (-0.75, -0.5, -0.25, 0, 0.25, 0.5, 0.75)
    )
    label = "distribution of cosines"
    return (
        f'<svg viewBox="0 0 {width} {height + 20}" width="{width}" role="img" aria-label="{label}">'
        f'{"".join(bars)}<line x1="0" y1="{height}" x2="{width}" y2="{height}" stroke="currentColor"/>{ticks}</svg>'
    )


def _pair(person: Person, rank: int | None, mark: Mark) -> str:
    if person.found is None:
        said, kind = "no face found", "bad"
    else:
        cosine = _cosine(person)
        said = f"cosine {cosine:.2f}, " + ("nearest to itself" if rank == 0 else f"{rank} others nearer")
        kind = "good" if rank == 0 else "bad"
    name = html.escape(person.name)
    return (
        f'<figure class="{kind}">{_picture(person.own_crop, f"portrait {name}")}'
        f"{_picture(mark(person.made), f'made of {name}')}<figcaption>{name}<br>{said}</figcaption></figure>"
    )


def _cosine(person: Person) -> float:
    assert person.found is not None
    one, other = person.found.embedding, person.reference.embedding
    return float(one @ other / max(float(np.linalg.norm(one) * np.linalg.norm(other)), 1e-12))


def _strip(pictures: Sequence[Image.Image], words: str, mark: Mark) -> str:
    shown = "".join(_picture(mark(picture), html.escape(words)) for picture in pictures)
    return f'<div class="strip">{shown}</div>'


def _picture(picture: Image.Image, words: str) -> str:
    """An `img` tag with the picture in it."""
    small = picture.convert("RGB")
    small.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=88)
    data = base64.b64encode(stream.getvalue()).decode()
    return f'<img src="data:image/jpeg;base64,{data}" alt="{words}" loading="lazy">'


def _html_table(markdown: str) -> str:
    head, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in markdown.splitlines())
    lines = ["<tr>" + "".join(f"<th>{html.escape(cell)}</th>" for cell in head) + "</tr>"]
    lines += ["<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows]
    return f"<table>{''.join(lines)}</table>"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def _both(one: float | None, other: float | None) -> str:
    return f"{_number(one)}, {_number(other)}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2rem auto; padding: 0 1rem;
  color: #222; background: #fff }}
table {{ border-collapse: collapse }}
td, th {{ padding: .25rem .8rem; text-align: left; border-bottom: 1px solid #8884 }}
svg {{ max-width: 100%; font-size: 11px; fill: currentColor }}
.grid {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(250px, 1fr)); gap: .8rem }}
figure {{ margin: 0; padding: .4rem; border-left: 4px solid }} figure img {{ width: 49% }}
.good {{ border-color: #2a7 }} .bad {{ border-color: #c43 }} figcaption {{ font-size: 12px }}
.strip img {{ width: 11.5% ; min-width: 80px }}
@media (prefers-color-scheme: dark) {{ body {{ color: #ddd; background: #161616 }} }}
</style></head><body>
{body}
</body></html>
"""
