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
