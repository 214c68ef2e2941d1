"""The whole page: header, tabs, API; and how it is served."""

import os
import threading
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import gradio as gr

from instantid_demo.settings import Settings
from instantid_demo.ui import theme
from instantid_demo.ui.about import About
from instantid_demo.ui.api import Api
from instantid_demo.ui.blend import Blend
from instantid_demo.ui.consent import Consents
from instantid_demo.ui.create import Create
from instantid_demo.ui.desk import Desk, Engine
from instantid_demo.ui.group import Group
from instantid_demo.ui.history import History
from instantid_demo.ui.models import Models
from instantid_demo.ui.verify import Verify
from instantid_demo.ui.words import attributes, i18n, span, word

TITLE = "InstantID"
_MARK = (
    '<svg class="mark" viewBox="0 0 40 40" aria-hidden="true"><rect width="40" height="40" rx="11" fill="#177863"/>'
    '<ellipse cx="20" cy="19" rx="8.6" ry="11" fill="none" stroke="#fff" stroke-width="2"/>'
    '<g fill="#fff"><circle cx="16.4" cy="16.6" r="1.5"/><circle cx="23.6" cy="16.6" r="1.5"/>'
    '<circle cx="20" cy="20.4" r="1.3"/><circle cx="17.4" cy="24.2" r="1.2"/><circle cx="22.6" cy="24.2" r="1.2"/>'
    "</g></svg>"
)


def build(settings: Settings, engine: Engine | None = None) -> gr.Blocks:
    """The page. Loads no model; `engine` is for tests, else the application's own."""
    desk = Desk(settings, engine or _shared_engine(settings))
    minutes = settings.upload_minutes * 60
    with gr.Blocks(
        title=TITLE, analytics_enabled=False, delete_cache=(min(minutes, 600), minutes), fill_width=True
    ) as demo:
        gr.HTML(word("language"), elem_id="language-probe", apply_default_css=False)
        badge = gr.HTML(header(desk), elem_id="header", apply_default_css=False)
        consents = Consents(settings)
        model = gr.State("auto")
        with gr.Tabs(elem_classes="tabs") as tabs:
            with gr.Tab(word("tab.create"), id="create"):
                create = Create(desk, consents, model)
            with gr.Tab(word("tab.blend"), id="blend"):
                Blend(desk, consents, model)
            with gr.Tab(word("tab.group"), id="group"):
                Group(desk, consents, model)
            with gr.Tab(word("tab.history"), id="history") as history_tab:
                History(desk, create, tabs, history_tab)
            with gr.Tab(word("tab.models"), id="models") as models_tab:
                Models(desk, model, badge, models_tab, header)
            with gr.Tab(word("tab.verify"), id="verify"):
                Verify(desk, create, tabs)
            with gr.Tab(word("tab.about"), id="about"):
                About(desk)
        Api(desk)
        consents.connect(demo)
        demo.load(lambda: header(desk), None, badge, api_visibility="private", show_progress="hidden")
        demo.unload(desk.forget)
    demo.queue(default_concurrency_limit=settings.queue_size + 1, max_size=None)
    return demo


def launch(demo: gr.Blocks, settings: Settings, **more: Any) -> Any:
    """Serves the page on 127.0.0.1 and `$PORT` or 7860; on a Space where the Space says."""
    given: dict[str, Any] = {
        "server_name": os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"),
        "server_port": int(os.environ.get("PORT", os.environ.get("GRADIO_SERVER_PORT", "7860"))),
        "auth": settings.accounts(),
        "mcp_server": settings.mcp,
        "max_file_size": f"{settings.upload_mb}mb",
        "theme": theme.theme(),
        "css": theme.css(),
        "head": theme.head(),
        "i18n": i18n(),
        "favicon_path": str(settings.assets / "icon.png"),
        "footer_links": ["api", "settings"],
        "run_history": False,
        "ssr_mode": False,
        "show_error": True,
    }
    return demo.launch(**given | more)


def warm_up(engine: Any) -> threading.Thread:
    """Loads the model in the background once the page is up, so that the first picture does not wait for it."""
    thread = threading.Thread(target=engine.warm_up, name="model-loading", daemon=True)
    thread.start()
    return thread


def header(desk: Desk, model: str = "auto") -> str:
    """Name, model badge and the licence note, as HTML."""
    badge = desk.engine.badge(model)
    badge_word = f"badge.{badge.family}"
    explained = attributes(f"{badge_word}.help", "title")
    shown = f'<span class="badge" id="badge" tabindex="0" {explained}>{span(badge_word)}</span>'
    note = span("badge.licence", "p", "licence-note") if badge.research_only else ""
    return (
        f'<header class="top">{_MARK}<div><h1>{TITLE}</h1>{span("tagline", "p", "tagline")}</div>'
        f'<span class="room"></span>{shown}'
        f'<button type="button" class="icon-button" data-action="tour" {attributes("tour", "aria-label")} '
        f"{attributes('tour', 'title')}>?</button>"
        f'<button type="button" class="icon-button" data-action="theme" {attributes("theme", "aria-label")} '
        f"{attributes('theme', 'title')}>◐</button></header>{note}"
    )


def _shared_engine(settings: Settings) -> Engine:
    from instantid_demo import engine

    return engine.shared(settings)
