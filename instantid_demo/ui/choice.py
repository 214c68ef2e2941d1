"""Radio buttons that are pictures: style thumbnails, head positions, the faces found in a photo."""

from typing import Any, TypedDict

import gradio as gr

from instantid_demo.ui.words import english


class Option(TypedDict, total=False):
    """One picture to choose: `picture` is a URL or data URI, `view` a head to draw; `word` is its name's key."""

    id: str
    name: str
    word: str
    picture: str
    view: dict[str, float]


# The template never holds a value: Gradio runs templates as code, so names from files must not enter them.
_DRAW = """
const group = element.querySelector('.choice');
const draw = () => {
  group.setAttribute('data-word-aria-label', props.name_word);
  group.replaceChildren(...(props.options || []).map((option, index) => {
    const button = document.createElement('button');
    button.type = 'button';
    button.setAttribute('role', 'radio');
    button.dataset.id = option.id;
    const picture = document.createElement('span');
    picture.className = 'picture';
    if (option.view) picture.innerHTML = studio.head(option.view);
    else if (option.picture) {
      const image = document.createElement('img');
      image.src = option.picture; image.alt = ''; image.loading = 'lazy'; picture.append(image);
    } else picture.classList.add('plain');
    const name = document.createElement('span');
    name.className = 'name';
    name.textContent = option.name;
    if (option.word) name.dataset.word = option.word;
    if (option.values) name.dataset.values = JSON.stringify(option.values);
    button.append(picture, name);
    return button;
  }));
  mark();
};
const mark = () => {
  const buttons = [...group.children];
  const chosen = buttons.find((button) => button.dataset.id === String(props.value ?? ''));
  buttons.forEach((button) => {
    button.setAttribute('aria-checked', button === chosen);
    button.tabIndex = button === (chosen || buttons[0]) ? 0 : -1;
  });
};
studio.asRadios(group, (id) => { props.value = id; mark(); trigger('input'); });
watch('options', draw);
watch('value', mark);
draw();
"""


class PictureChoice(gr.HTML):
    """A group of picture buttons; its value is the chosen option's `id`."""

    def __init__(
        self, options: list[Option], *, value: str = "", name_word: str, elem_classes: str = "", **rest: Any
    ) -> None:
        """`name_word`: key of the group's accessible name."""
        english(name_word)
        super().__init__(
            value,
            html_template='<div class="choice" role="radiogroup"></div>',
            js_on_load=_DRAW,
            apply_default_css=False,
            options=options,
            name_word=name_word,
            elem_classes=f"picture-choice {elem_classes}".strip(),
            **rest,
        )

    def api_info(self) -> dict[str, Any]:
        return {"type": "string"}
