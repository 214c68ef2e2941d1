"""The page's look: a quiet stone-and-pine theme, its style sheet, and the script in the page's head."""

import json

from gradio.themes import Base, Color
from gradio.themes.utils import fonts, sizes

from instantid_demo.ui.scripts import script
from instantid_demo.ui.words import tables

PINE = Color(
    name="pine",
    c50="#eefaf6",
    c100="#d5f2e8",
    c200="#aee4d3",
    c300="#7acfb8",
    c400="#46b398",
    c500="#24967c",
    c600="#177863",
    c700="#146051",
    c800="#134d42",
    c900="#113f37",
    c950="#08241f",
)
STONE = Color(
    name="stone",
    c50="#faf9f7",
    c100="#f3f2ef",
    c200="#e6e4df",
    c300="#d3d0c9",
    c400="#a3a097",
    c500="#737068",
    c600="#57544e",
    c700="#3f3d39",
    c800="#282724",
    c900="#1c1b19",
    c950="#131211",
)


def theme() -> Base:
    """The Gradio theme; its fonts come with Gradio, so the page asks nobody else for anything.

    Weight 700 stands in for 600: the semi-bold file in Gradio 6.31 holds almost no letters.
    """
    made = Base(
        primary_hue=PINE,
        secondary_hue=PINE,
        neutral_hue=STONE,
        radius_size=sizes.radius_lg,
        font=[fonts.LocalFont("Source Sans Pro", weights=(400, 700)), "ui-sans-serif", "system-ui", "sans-serif"],
        font_mono=[fonts.LocalFont("IBM Plex Mono", weights=(400, 700)), "ui-monospace", "monospace"],
    )
    return made.set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
        background_fill_secondary="*neutral_50",
        background_fill_secondary_dark="*neutral_900",
        body_text_color="*neutral_900",
        body_text_color_dark="*neutral_100",
        body_text_color_subdued="*neutral_500",
        body_text_color_subdued_dark="*neutral_400",
        block_background_fill="white",
        block_background_fill_dark="*neutral_900",
        block_border_width="1px",
        block_border_color="*neutral_200",
        block_border_color_dark="*neutral_800",
        block_shadow="none",
        block_label_background_fill="white",
        block_label_background_fill_dark="*neutral_900",
        block_label_border_color="*neutral_200",
        block_label_border_color_dark="*neutral_800",
        block_label_text_color="*neutral_600",
        block_label_text_color_dark="*neutral_300",
        block_title_text_color="*neutral_700",
        block_title_text_color_dark="*neutral_200",
        block_title_text_weight="600",
        block_info_text_color="*neutral_500",
        block_info_text_color_dark="*neutral_400",
        input_background_fill="white",
        input_background_fill_dark="*neutral_800",
        input_border_color="*neutral_300",
        input_border_color_dark="*neutral_700",
        input_border_width="1px",
        border_color_primary="*neutral_200",
        border_color_primary_dark="*neutral_800",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_500",
        button_primary_background_fill_hover_dark="*primary_400",
        button_primary_text_color="white",
        button_primary_text_color_dark="#06211b",
        button_secondary_background_fill="*neutral_100",
        button_secondary_background_fill_hover="*neutral_200",
        button_secondary_background_fill_dark="*neutral_800",
        button_secondary_background_fill_hover_dark="*neutral_700",
        button_transition="background-color 0.15s ease",
        slider_color="*primary_600",
        slider_color_dark="*primary_400",
        checkbox_background_color_selected="*primary_600",
        checkbox_border_color_selected="*primary_600",
        checkbox_label_background_fill="*neutral_100",
        checkbox_label_background_fill_dark="*neutral_800",
        checkbox_label_background_fill_selected="*primary_100",
        checkbox_label_background_fill_selected_dark="*primary_900",
        checkbox_label_text_color_selected="*primary_900",
        checkbox_label_text_color_selected_dark="*primary_100",
        link_text_color="*primary_700",
        link_text_color_dark="*primary_300",
    )


def css() -> str:
    """The page's style sheet."""
    return script("page.css")


def head() -> str:
    """What goes into the page's head: the script with the words of all languages in it."""
    words = json.dumps(tables(), ensure_ascii=False).replace("</", "<\\/")
    page = script("page.js").replace("__WORDS__", words)
    return f'<meta name="color-scheme" content="light dark"><script>{page}</script>'
