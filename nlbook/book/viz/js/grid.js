// A map whose cells are buttons: click one, or move with the arrow keys, and Python shows the run of that cell.
// Plain DOM: no library, no import, no network.
function render({ model, el }) {
  const make = (tag, cls, parent, text) => { const e = document.createElement(tag); if (cls) e.className = cls; if (text) e.textContent = text; parent.append(e); return e; };
  el.classList.add("nlbook-grid");
  el.setAttribute("role", "group");
  el.setAttribute("aria-label", "Stability map. Choose a cell with the mouse or the arrow keys to see its run.");
  const table = make("table", "", el), img = make("img", "", el);
  let clicks = 0, url = "", hold = false;

  function pick(r, c) {
    hold = true; // the keyboard stays on the chosen cell
    model.set("chosen", [++clicks, r, c]);
    model.save_changes();
  }
  function show() {
    const rows = model.get("rows"), columns = model.get("columns"), cells = model.get("cells"), [r0, c0] = model.get("at");
    table.replaceChildren();
    const head = make("tr", "", make("thead", "", table));
    make("th", "", head, model.get("row_name"));
    for (const c of columns) make("th", "", head, c);
    const body = make("tbody", "", table);
    rows.forEach((label, r) => {
      const tr = make("tr", "", body);
      make("th", "", tr, label);
      columns.forEach((column, c) => {
        const cell = cells[r][c], b = make("button", cell.edge ? "edge" : "", make("td", "", tr), cell.text);
        b.type = "button";
        b.style.background = cell.color;
        b.setAttribute("aria-label", cell.label);
        b.setAttribute("aria-pressed", r === r0 && c === c0);
        b.tabIndex = r === r0 && c === c0 ? 0 : -1;
        b.onclick = () => pick(r, c);
        b.onkeydown = (e) => {
          const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[e.key];
          if (!step || e.ctrlKey || e.metaKey || e.altKey) return;
          e.preventDefault(); e.stopPropagation(); // the notebook must not take them for its own
          const r1 = r + step[0], c1 = c + step[1];
          if (r1 >= 0 && c1 >= 0 && r1 < rows.length && c1 < columns.length) pick(r1, c1);
        };
      });
    });
    const foot = make("tr", "", make("tfoot", "", table));
    make("th", "", foot);
    const th = make("th", "", foot, model.get("column_name"));
    th.colSpan = columns.length;
    if (hold) table.querySelector('[aria-pressed="true"]')?.focus();
    hold = false;
  }
  function picture() {
    const next = URL.createObjectURL(new Blob([model.get("png")], { type: "image/png" }));
    img.src = next;
    img.alt = model.get("alt");
    img.style.width = model.get("width") + "px";
    if (url) URL.revokeObjectURL(url);
    url = next;
  }
  const names = ["rows", "columns", "cells", "at"];
  let due = false; // many traits change at once: one drawing
  const soon = () => { if (!due) { due = true; queueMicrotask(() => { due = false; show(); }); } };
  for (const n of names) model.on("change:" + n, soon);
  model.on("change:png", picture);
  show();
  picture();
  return () => {
    for (const n of names) model.off("change:" + n, soon);
    model.off("change:png", picture);
    if (url) URL.revokeObjectURL(url);
  };
}
export default { render };
