/* The page's own script: words in the reader's language, drawing of heads, shortcuts, first-run tour. */
window.studio = (() => {
  const tables = __WORDS__;
  let language = "en";

  const word = (key, values) => {
    const text = (tables[language] || tables.en)[key] ?? tables.en[key] ?? key;
    return text.replace(/\{(\w+)\}/g, (whole, name) => (values && name in values ? values[name] : whole));
  };

  const set = (element, now, attribute) => {
    if (attribute ? element.getAttribute(attribute) !== now : element.textContent !== now) {
      if (attribute) element.setAttribute(attribute, now);
      else element.textContent = now;
    }
  };
  const ATTRIBUTES = { "data-word-title": "title", "data-word-aria-label": "aria-label", "data-word-data-empty": "data-empty" };
  const translateOne = (element) => {
    if (!element.attributes) return;
    const values = element.dataset.values ? JSON.parse(element.dataset.values) : null;
    if (element.dataset.word) set(element, word(element.dataset.word, values), null);
    for (const [from, to] of Object.entries(ATTRIBUTES)) {
      const key = element.getAttribute(from);
      if (key) set(element, word(key, values), to);
    }
  };
  const MARKED = "[data-word],[data-word-title],[data-word-aria-label],[data-word-data-empty]";
  const translate = (root) => {
    if (root.matches && root.matches(MARKED)) translateOne(root);
    if (root.querySelectorAll) root.querySelectorAll(MARKED).forEach(translateOne);
  };

  /* Gradio decides the language; a hidden element shows which one it took. */
  const readLanguage = () => {
    const probe = document.querySelector("#language-probe");
    const now = probe && probe.textContent.trim();
    if (now && tables[now] && now !== language) {
      language = now;
      document.documentElement.lang = now;
      translate(document.body);
      document.dispatchEvent(new Event("studio-language"));
    }
  };

  /* Controls that Gradio names by its own English words, or not at all. */
  const nameControls = () => {
    document.querySelectorAll("input[type=number]:not([aria-label]), input[type=range]:not([aria-label])").forEach((input) => {
      const block = input.closest(".block");
      const label = block && block.querySelector("[data-testid=block-info], .block-info, label span");
      if (label && label.textContent.trim()) input.setAttribute("aria-label", label.textContent.trim());
    });
  };

  const observe = () => {
    readLanguage();
    translate(document.body);
    nameControls();
    new MutationObserver((changes) => {
      readLanguage();
      for (const change of changes) {
        if (change.type === "attributes") translateOne(change.target);
        else if (change.type === "characterData") change.target.parentElement && translateOne(change.target.parentElement);
        else {
          translateOne(change.target);
          change.addedNodes.forEach((node) => node.nodeType === 1 && translate(node));
        }
      }
      nameControls();
    }).observe(document.body, {
      childList: true, subtree: true, characterData: true, attributes: true,
      attributeFilter: ["data-word", "data-values", "data-word-title", "data-word-aria-label"],
    });
  };

  /* ---- A head like a drawing dummy's: turned by +yaw to the picture's right, +pitch up, +roll clockwise. ---- */
  const turn = (x, y, z, view) => {
    const [yaw, pitch, roll] = [view.yaw, view.pitch, view.roll].map((degrees) => ((degrees || 0) * Math.PI) / 180);
    let [a, c] = [x * Math.cos(yaw) + z * Math.sin(yaw), z * Math.cos(yaw) - x * Math.sin(yaw)];
    let b = y * Math.cos(pitch) - c * Math.sin(pitch);
    c = c * Math.cos(pitch) + y * Math.sin(pitch);
    return [a * Math.cos(roll) - b * Math.sin(roll), a * Math.sin(roll) + b * Math.cos(roll), c];
  };
  /* Points on an ellipsoid; the depth of the surface there follows from x and y. */
  const onHead = (x, y, out = 1) => {
    const depth = Math.sqrt(Math.max(0, 1 - (x / 0.78) ** 2 - y ** 2)) * 0.86 * out;
    return [x, y, depth];
  };
  const path = (points, view) => {
    let drawn = "", open = false;
    for (const point of points) {
      const [x, y, z] = turn(...point, view);
      if (z < -0.02) { open = false; continue; }
      drawn += `${open ? "L" : "M"}${(x * 34).toFixed(1)} ${(y * 34).toFixed(1)}`;
      open = true;
    }
    return drawn;
  };
  const range = (from, to, count) => Array.from({ length: count + 1 }, (_, i) => from + ((to - from) * i) / count);
  const headShapes = (view) => {
    const eye = (side) => {
      const ring = range(0, 2 * Math.PI, 14).map((t) => onHead(side * 0.31 + 0.12 * Math.cos(t), -0.1 + 0.055 * Math.sin(t)));
      return `<path class="feature" d="${path(ring, view)}"/>`;
    };
    const brow = (side) => `<path class="line" d="${path(range(-0.15, 0.15, 6).map((x) => onHead(side * 0.31 + x, -0.26 + x * x * 1.6)), view)}"/>`;
    const nose = [[0, -0.04, 0.86], [0, 0.12, 0.98], [0, 0.2, 1.04], [0.07, 0.23, 0.9]];
    const mouth = range(-0.2, 0.2, 8).map((x) => onHead(x, 0.5 + 0.05 * Math.cos((x / 0.2) * Math.PI * 0.5)));
    const middle = range(-0.98, -0.3, 10).map((y) => onHead(0, y));
    const across = range(-0.77, 0.77, 24).map((x) => onHead(x, -0.02));
    const jaw = range(0.6, 0.99, 8).map((y) => onHead(0, y));
    const ear = (side) => {
      const ring = range(0, 2 * Math.PI, 12).map((t) => [side * 0.79, 0.02 + 0.17 * Math.sin(t), -0.05 + 0.09 * Math.cos(t)]);
      const shown = turn(side * 0.79, 0, 0.1, view)[2] > -0.25;
      return shown ? `<path class="ear" d="${ring.map((p, i) => { const [x, y] = turn(...p, view); return `${i ? "L" : "M"}${(x * 34).toFixed(1)} ${(y * 34).toFixed(1)}`; }).join("")}Z"/>` : "";
    };
    const wide = 0.78 * Math.abs(Math.cos((view.yaw * Math.PI) / 180)) + 0.86 * Math.abs(Math.sin((view.yaw * Math.PI) / 180));
    return `<ellipse class="skull" rx="${(wide * 34).toFixed(1)}" ry="34" transform="rotate(${view.roll || 0})"/>` +
      ear(-1) + ear(1) +
      `<path class="guide" d="${path(middle, view)}"/><path class="guide" d="${path(across, view)}"/><path class="guide" d="${path(jaw, view)}"/>` +
      brow(-1) + brow(1) + eye(-1) + eye(1) + `<path class="line" d="${path(nose, view)}"/><path class="line mouth" d="${path(mouth, view)}"/>`;
  };
  const head = (view) => `<svg class="head" viewBox="-42 -42 84 84" aria-hidden="true">${headShapes(view)}</svg>`;

  /* Radio buttons that are pictures: one tab stop, arrow keys move. */
  const asRadios = (group, choose) => {
    group.addEventListener("click", (event) => {
      const button = event.target.closest("[role=radio]");
      if (button) choose(button.dataset.id);
    });
    group.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      const buttons = [...group.querySelectorAll("[role=radio]")];
      const at = buttons.indexOf(document.activeElement);
      if (!step || at < 0) return;
      event.preventDefault();
      const next = buttons[(at + step + buttons.length) % buttons.length];
      choose(next.dataset.id);
      next.focus();
    });
  };

  /* Pointer dragging on a box that fills `[0,1]²`; `moved(dx, dy)` in fractions since the last event. */
  const draggable = (surface, handle, moved, done) => {
    handle.addEventListener("pointerdown", (down) => {
      down.preventDefault();
      down.stopPropagation();
      handle.setPointerCapture(down.pointerId);
      let [x, y] = [down.clientX, down.clientY];
      const move = (event) => {
        const size = surface.getBoundingClientRect();
        moved((event.clientX - x) / size.width, (event.clientY - y) / size.height);
        [x, y] = [event.clientX, event.clientY];
      };
      const up = () => {
        handle.removeEventListener("pointermove", move);
        handle.removeEventListener("pointerup", up);
        handle.removeEventListener("pointercancel", up);
        done();
      };
      handle.addEventListener("pointermove", move);
      handle.addEventListener("pointerup", up);
      handle.addEventListener("pointercancel", up);
    });
  };
  const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

  /* ---- Shortcuts, theme, tour ---- */
  const shown = (element) => element && element.offsetParent !== null && !element.disabled;
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      const button = [...document.querySelectorAll("button.go")].find(shown);
      if (button) { event.preventDefault(); document.activeElement && document.activeElement.blur && document.activeElement.blur(); setTimeout(() => button.click(), 0); }
    }
  });
  document.addEventListener("click", (event) => {
    const theme = event.target.closest("[data-action=theme]");
    if (theme) {
      const dark = document.body.classList.toggle("dark");
      try { localStorage.setItem("studio-theme", dark ? "dark" : "light"); } catch (error) { /* storage is off */ }
    }
    if (event.target.closest("[data-action=tour]")) startTour(true);
    const go = event.target.closest("button.go, button.runs");
    const answer = go && go.closest(".columns") && go.closest(".columns").querySelector(".answering");
    if (answer && window.innerWidth <= 800) answer.scrollIntoView({ block: "start", behavior: "smooth" });
  });

  const TOUR = [["#who", "tour.1"], ["#what", "tour.2"], ["#generate", "tour.3"]];
  const startTour = (asked) => {
    let seen = null;
    try { seen = localStorage.getItem("studio-tour"); } catch (error) { seen = "storage is off"; }
    if ((seen && !asked) || document.querySelector("#tour")) return;
    const create = document.querySelector(".tabs button[role=tab]");
    if (asked && create) create.click();
    const card = document.createElement("div");
    card.id = "tour";
    card.setAttribute("role", "dialog");
    card.setAttribute("aria-labelledby", "tour-title");
    let at = 0;
    const end = () => {
      try { localStorage.setItem("studio-tour", "seen"); } catch (error) { /* storage is off */ }
      document.querySelectorAll(".tour-lit").forEach((lit) => lit.classList.remove("tour-lit"));
      card.remove();
    };
    const show = () => {
      document.querySelectorAll(".tour-lit").forEach((lit) => lit.classList.remove("tour-lit"));
      const [target, key] = TOUR[at];
      const lit = document.querySelector(target);
      if (lit) { lit.classList.add("tour-lit"); if (asked || at) lit.scrollIntoView({ block: "center", behavior: "smooth" }); }
      card.innerHTML = `<p class="tour-count">${at + 1} / ${TOUR.length}</p>
        <h3 id="tour-title" data-word="${key}.title"></h3><p data-word="${key}.text"></p>
        <div class="tour-buttons"><button type="button" class="skip" data-word="tour.skip"></button>
        <button type="button" class="next" data-word="${at + 1 < TOUR.length ? "tour.next" : "tour.done"}"></button></div>`;
      card.querySelector(".skip").onclick = end;
      card.querySelector(".next").onclick = () => { at += 1; if (at < TOUR.length) show(); else end(); };
      translate(card);
    };
    document.querySelector(".gradio-container").appendChild(card);
    show();
  };

  const start = () => {
    const ready = document.querySelector("#generate");
    if (!ready) { requestAnimationFrame(start); return; }
    try {
      const theme = localStorage.getItem("studio-theme");
      if (theme && !new URLSearchParams(location.search).has("__theme")) document.body.classList.toggle("dark", theme === "dark");
    } catch (error) { /* storage is off */ }
    observe();
    startTour(false);
  };
  requestAnimationFrame(start);

  return { word, translate, head, headShapes, asRadios, draggable, clamp };
})();
