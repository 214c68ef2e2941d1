"""Canvases to drag on: where one face stands in the frame, and which part of the picture belongs to whom."""

from typing import Any

import gradio as gr

_FRAME = """
const surface = element.querySelector('.surface');
const draw = () => {
  const v = props.value;
  surface.style.aspectRatio = `${v.width || 1} / ${v.height || 1}`;
  const size = (v.size || 1) * (props.usual || 0.55);
  const short = Math.min(v.width || 1, v.height || 1);
  const box = surface.querySelector('.face');
  box.style.width = `${(size * short / (v.width || 1)) * 100}%`;
  box.style.aspectRatio = '1';
  box.style.left = `${v.x * 100}%`;
  box.style.top = `${v.y * 100}%`;
  box.querySelector('.drawing').innerHTML = studio.head(v);
};
const change = (more) => { props.value = { ...props.value, ...more }; draw(); };
const face = surface.querySelector('.face');
const tell = () => trigger('input');
studio.draggable(surface, face, (dx, dy) => change({
  x: +studio.clamp(props.value.x + dx, 0, 1).toFixed(3), y: +studio.clamp(props.value.y + dy, 0, 1).toFixed(3) }), tell);
studio.draggable(surface, surface.querySelector('.grip'), (dx, dy) => change({
  size: +studio.clamp(props.value.size + (dx + dy) * 1.8, 0.2, 2).toFixed(3) }), tell);
face.addEventListener('keydown', (event) => {
  const step = { ArrowLeft: [-0.02, 0], ArrowRight: [0.02, 0], ArrowUp: [0, -0.02], ArrowDown: [0, 0.02] }[event.key];
  if (step) { event.preventDefault(); change({ x: +studio.clamp(props.value.x + step[0], 0, 1).toFixed(3), y: +studio.clamp(props.value.y + step[1], 0, 1).toFixed(3) }); tell(); }
  if (event.key === '+' || event.key === '-') { event.preventDefault(); change({ size: +studio.clamp(props.value.size + (event.key === '+' ? 0.05 : -0.05), 0.2, 2).toFixed(3) }); tell(); }
});
watch('value', draw);
draw();
"""

_REGIONS = """
const surface = element.querySelector('.surface');
const LEAST = 0.1;
const draw = () => {
  const { boxes, width, height } = props.value;
  surface.style.aspectRatio = `${width || 1} / ${height || 1}`;
  if (surface.children.length !== boxes.length) build();
  boxes.forEach((box, index) => {
    const node = surface.children[index];
    node.style.left = `${box.x0 * 100}%`;
    node.style.top = `${box.y0 * 100}%`;
    node.style.width = `${(box.x1 - box.x0) * 100}%`;
    node.style.height = `${(box.y1 - box.y0) * 100}%`;
  });
};
const change = (index, edit) => {
  const boxes = props.value.boxes.map((box) => ({ ...box }));
  edit(boxes[index]);
  for (const key of ['x0', 'y0', 'x1', 'y1']) boxes[index][key] = +boxes[index][key].toFixed(3);
  props.value = { ...props.value, boxes };
  draw();
};
const move = (dx, dy) => (box) => {
  dx = studio.clamp(dx, -box.x0, 1 - box.x1); dy = studio.clamp(dy, -box.y0, 1 - box.y1);
  box.x0 += dx; box.x1 += dx; box.y0 += dy; box.y1 += dy;
};
const grow = (dx, dy) => (box) => {
  box.x1 = studio.clamp(box.x1 + dx, box.x0 + LEAST, 1); box.y1 = studio.clamp(box.y1 + dy, box.y0 + LEAST, 1);
};
const build = () => {
  surface.replaceChildren(...props.value.boxes.map((_, index) => {
    const node = document.createElement('div');
    node.className = `region region-${index + 1}`;
    node.tabIndex = 0;
    node.setAttribute('role', 'group');
    node.setAttribute('data-word-aria-label', 'group.region');
    node.dataset.values = JSON.stringify({ n: index + 1 });
    const name = document.createElement('span');
    name.className = 'name';
    name.dataset.word = 'group.person';
    name.dataset.values = JSON.stringify({ n: index + 1 });
    const grip = document.createElement('span');
    grip.className = 'grip';
    node.append(name, grip);
    studio.draggable(surface, node, (dx, dy) => change(index, move(dx, dy)), () => trigger('input'));
    studio.draggable(surface, grip, (dx, dy) => change(index, grow(dx, dy)), () => trigger('input'));
    node.addEventListener('keydown', (event) => {
      const step = { ArrowLeft: [-0.02, 0], ArrowRight: [0.02, 0], ArrowUp: [0, -0.02], ArrowDown: [0, 0.02] }[event.key];
      if (!step) return;
      event.preventDefault();
      change(index, (event.shiftKey ? grow : move)(...step));
      trigger('input');
    });
    return node;
  }));
};
watch('value', draw);
draw();
"""


class FaceFrame(gr.HTML):
    """The frame with a head in it to drag and resize.

    Its value: `{yaw, pitch, roll}` in degrees, `{x, y}` in fractions, `size` as a factor, `{width, height}` in px.
    """

    def __init__(self, **rest: Any) -> None:
        super().__init__(
            {"yaw": 0, "pitch": 0, "roll": 0, "x": 0.5, "y": 0.5, "size": 1, "width": 1, "height": 1},
            html_template=(
                '<div class="surface"><div class="face" tabindex="0" role="group" data-word-aria-label="view.frame">'
                '<span class="drawing"></span><span class="grip"></span></div></div>'
            ),
            js_on_load=_FRAME,
            apply_default_css=False,
            elem_classes="face-frame",
            **rest,
        )

    def postprocess(self, value: Any) -> Any:
        return value

    def api_info(self) -> dict[str, Any]:
        return {"type": "object"}


class RegionCanvas(gr.HTML):
    """Boxes to drag and resize; its value: `{boxes: [{x0, y0, x1, y1}], width, height}`, boxes in fractions."""

    def __init__(self, boxes: list[dict[str, float]], **rest: Any) -> None:
        super().__init__(
            {"boxes": boxes, "width": 1, "height": 1},
            html_template='<div class="surface"></div>',
            js_on_load=_REGIONS,
            apply_default_css=False,
            elem_classes="region-canvas",
            **rest,
        )

    def postprocess(self, value: Any) -> Any:
        return value

    def api_info(self) -> dict[str, Any]:
        return {"type": "object"}
