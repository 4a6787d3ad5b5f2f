// The level detective: parts are buttons that can be dragged into lanes, or moved with the arrow keys. Who breaks which
// arrow is judged in Python; this half only shows it. Plain DOM: no library, no import, no network.
function render({ model, el }) {
  const make = (tag, cls, parent, text) => { const e = document.createElement(tag); if (cls) e.className = cls; if (text) e.textContent = text; parent.append(e); return e; };
  el.classList.add("nlbook-detective");
  el.setAttribute("role", "group");
  el.setAttribute("aria-label", "Level detective. Drag a part into a lane, or focus it and press the up and down arrow keys.");
  const scale = make("div", "scale", el);
  make("span", "", scale, "fast ↑");
  const unit = make("span", "", scale);
  const board = make("div", "board", el);
  make("div", "scale", el, "slow ↓");
  const clue = make("div", "clue", el), verdict = make("div", "verdict", el), list = make("ul", "", el);
  verdict.setAttribute("role", "status");
  let focus = "", held = "", moves = 0;

  function move(name, lane) {
    const parts = model.get("parts"), lanes = parts.map((p) => (p.name === name ? lane : p.lane));
    focus = name;
    model.set("chosen", [++moves, ...lanes]);
    model.save_changes();
  }
  function lane(i, label, parts) {
    const row = make("div", i ? "lane" : "lane tray", board);
    row.dataset.lane = i;
    row.setAttribute("role", "group");
    row.setAttribute("aria-label", label);
    make("span", "label", row, label);
    row.ondragover = (e) => { e.preventDefault(); row.classList.add("over"); };
    row.ondragleave = () => row.classList.remove("over");
    row.ondrop = (e) => { e.preventDefault(); row.classList.remove("over"); if (held) move(held, i); };
    for (const p of parts.filter((q) => q.lane === i)) {
      const b = make("button", p.trouble ? "part trouble" : "part", row);
      b.type = "button"; b.draggable = true; b.dataset.name = p.name;
      b.style.borderColor = p.color;
      make("b", "", b, p.name);
      make("span", "", b, p.often);
      b.setAttribute("aria-label", `${p.name}, ${p.kind}, ${p.often}, in ${label}${p.trouble ? ", breaks an arrow" : ""}. ${p.clue}`);
      b.ondragstart = (e) => { held = p.name; e.dataTransfer.setData("text/plain", p.name); e.dataTransfer.effectAllowed = "move"; };
      b.ondragend = () => { held = ""; };
      b.onfocus = b.onmouseenter = () => { clue.textContent = `${p.name}: ${p.clue}.`; };
      b.onkeydown = (e) => {
        const step = { ArrowUp: 1, ArrowDown: -1 }[e.key], top = model.get("labels").length;
        if (step === undefined || e.ctrlKey || e.metaKey || e.altKey) return;
        e.preventDefault(); e.stopPropagation(); // the notebook must not take them for its own
        const to = Math.max(0, Math.min(top, p.lane + step));
        if (to !== p.lane) move(p.name, to);
      };
    }
  }
  function arrows() {
    board.querySelector("svg")?.remove();
    const at = (n) => [...board.querySelectorAll(".part")].find((b) => b.dataset.name === n), base = board.getBoundingClientRect();
    let drawn = "";
    for (const [slow, fast] of model.get("arrows")) {
      const a = at(slow)?.getBoundingClientRect(), b = at(fast)?.getBoundingClientRect();
      if (!a || !b || !a.width) continue;
      const same = a.top === b.top, up = b.top < a.top;
      const x0 = a.left + a.width / 2 - base.left, x1 = b.left + b.width / 2 - base.left;
      const y0 = (up || same ? a.top : a.bottom) - base.top, y1 = (same ? b.top : up ? b.bottom : b.top) - base.top;
      const path = same ? `M${x0} ${y0} Q${(x0 + x1) / 2} ${y0 - 16} ${x1} ${y1}` : `M${x0} ${y0} L${x1} ${y1}`;
      drawn += `<path d="${path}"/><circle cx="${x1}" cy="${y1}" r="4"/>`; // the dot: the part that must be faster
    }
    board.insertAdjacentHTML("beforeend", `<svg aria-hidden="true" width="${board.clientWidth}" height="${board.clientHeight}">${drawn}</svg>`);
  }
  function show() {
    const parts = model.get("parts"), labels = model.get("labels"), bad = model.get("messages");
    board.replaceChildren();
    unit.textContent = `unit of time: one ${model.get("unit")}`;
    for (let i = labels.length; i >= 1; i--) lane(i, labels[i - 1], parts);
    lane(0, "tray", parts);
    verdict.textContent = model.get("verdict");
    verdict.className = "verdict " + (model.get("solved") ? "solved" : bad.length ? "broken" : "");
    list.replaceChildren(...bad.map((m) => { const li = document.createElement("li"); li.textContent = m; return li; }));
    arrows();
    if (focus) [...board.querySelectorAll(".part")].find((b) => b.dataset.name === focus)?.focus();
    focus = "";
  }
  const names = ["parts", "labels", "verdict", "messages", "arrows", "solved", "unit"];
  let due = false; // many traits change at once: one drawing
  const soon = () => { if (!due) { due = true; queueMicrotask(() => { due = false; show(); }); } };
  for (const n of names) model.on("change:" + n, soon);
  show();
  const watch = new ResizeObserver(arrows);
  watch.observe(board);
  return () => { watch.disconnect(); for (const n of names) model.off("change:" + n, soon); };
}
export default { render };
