"""The About tab: what this is, fair use, privacy, licences, keys."""

import gradio as gr

from instantid_demo.ui.desk import Desk
from instantid_demo.ui.words import span

SECTIONS = ("what", "limits", "fair", "privacy", "licence", "keys", "examples")


class About:
    """Plain text, translated in the browser."""

    def __init__(self, desk: Desk) -> None:
        notice = span("about.hosted", "p") if desk.settings.hosted else ""
        parts = [f"{span(f'about.{name}.title', 'h2')}{span(f'about.{name}', 'p')}" for name in SECTIONS]
        gr.HTML(f'<div class="about-text">{"".join(parts)}{notice}</div>', elem_id="about", apply_default_css=False)
