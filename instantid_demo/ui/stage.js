const root = element.querySelector('.stage');
const draw = () => {
  const v = props.value || { state: 'empty' };
  root.dataset.state = v.state;
  const image = root.querySelector('img');
  if (v.preview) { image.src = v.preview; image.hidden = false; } else if (v.state !== 'running') { image.hidden = true; image.removeAttribute('src'); }
  root.querySelector('.empty').hidden = v.state !== 'empty' || !image.hidden;
  const busy = v.state === 'running';
  root.querySelector('.working').hidden = !busy;
  root.querySelector('.bar i').style.width = v.total ? `${(100 * v.done) / v.total}%` : '0';
  root.querySelector('.bar').classList.toggle('unknown', busy && !v.total);
  root.querySelector('.bar').setAttribute('aria-valuenow', v.total ? Math.round((100 * v.done) / v.total) : 0);
  const text = root.querySelector('.text');
  text.dataset.values = JSON.stringify({ done: v.done, total: v.total, place: v.place });
  text.dataset.word = v.word || 'stage.empty';
  if (v.state === 'empty') root.querySelector('.empty p').dataset.word = v.word || 'stage.empty';
  root.querySelector('.detail').textContent = v.message || '';
};
watch('value', draw);
draw();
