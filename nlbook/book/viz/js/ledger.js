// A list of claims as buttons, and the card of the chosen one: click, or move with the arrow keys, Home and End.
// Plain DOM: no library, no import, no network.
function render({ model, el }) {
  const make = (tag, cls, parent, text) => { const e = document.createElement(tag); if (cls) e.className = cls; if (text) e.textContent = text; parent.append(e); return e; };
  el.classList.add("nlbook-ledger");
  const bar = make("div", "bar", el), body = make("div", "body", el);
  const list = make("div", "list", body), card = make("div", "card", body);
  list.setAttribute("role", "listbox");
  list.setAttribute("aria-label", "Claims. Choose one with the mouse or the arrow keys to read its evidence.");
  card.setAttribute("role", "region");
  card.setAttribute("aria-live", "polite");
  card.setAttribute("aria-label", "Evidence of the chosen claim");
  let clicks = 0, hold = false;

  function pick(i) {
    hold = true; // the keyboard stays in the list
    model.set("chosen", [++clicks, i]);
    model.save_changes();
  }
  function show() {
    bar.replaceChildren();
    for (const [word, n, color, on] of model.get("counts")) {
      const part = make("span", on ? "" : "dim", bar, `${n} ${word}`);
      part.style.background = color;
      part.style.flexGrow = n;
    }
    const rows = model.get("rows"), at = model.get("at");
    list.replaceChildren();
    rows.forEach((row, i) => {
      const b = make("button", "", list);
      b.type = "button";
      b.setAttribute("role", "option");
      b.setAttribute("aria-selected", i === at);
      b.setAttribute("aria-label", `${row.source}, ${row.title}: ${row.verdict}`);
      b.tabIndex = i === at ? 0 : -1;
      const mark = make("span", "mark", b, row.symbol);
      mark.style.color = row.color;
      make("b", "", b, row.source);
      make("span", "", b, row.title);
      b.onclick = () => pick(i);
      b.onkeydown = (e) => {
        const to = { ArrowUp: i - 1, ArrowDown: i + 1, Home: 0, End: rows.length - 1 }[e.key];
        if (to === undefined || e.ctrlKey || e.metaKey || e.altKey) return;
        e.preventDefault(); e.stopPropagation(); // the notebook must not take them for its own
        if (to >= 0 && to < rows.length) pick(to);
      };
    });
    if (!rows.length) make("p", "", list, "No row has this verdict.");
    card.replaceChildren();
    const head = model.get("head");
    if (head.length) {
      make("div", "title", card, head[0]);
      make("div", "verdict", card, head[1]).style.color = head[2];
    }
    for (const [name, text] of model.get("card")) {
      const part = make("p", "", card);
      if (name) make("b", "", part, name);
      make(name === "Again" ? "code" : "span", "", part, text);
    }
    if (hold) list.querySelector('[aria-selected="true"]')?.focus();
    hold = false;
  }
  const names = ["counts", "rows", "at", "head", "card"];
  let due = false; // many traits change at once: one drawing
  const soon = () => { if (!due) { due = true; queueMicrotask(() => { due = false; show(); }); } };
  for (const n of names) model.on("change:" + n, soon);
  show();
  return () => { for (const n of names) model.off("change:" + n, soon); };
}
export default { render };
