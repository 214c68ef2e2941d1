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
