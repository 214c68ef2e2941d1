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
