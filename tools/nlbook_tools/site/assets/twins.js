// Pictures that move without a kernel: frames drawn in advance, and the notebook widgets' own scripts over plain data.
// Plain DOM: no library, no import, no request; works from a folder.
(function () {
  "use strict";
  const views = window.nlbookViews || {}, all = window.nlbookTwins || {};

  // What a widget's script expects of its model, without a kernel: get, set, on, off, save_changes.
  class Model {
    constructor(data, saved) { this.data = data; this.calls = {}; this.saved = saved; }
    get(name) { return this.data[name]; }
    set(name, value) { if (this.data[name] !== value) { this.data[name] = value; this.fire(name); } }
    fire(name) { for (const f of this.calls["change:" + name] || []) f(); }
    on(event, f) { (this.calls[event] ||= []).push(f); }
    off(event, f) { this.calls[event] = (this.calls[event] || []).filter((g) => g !== f); }
    save_changes() { if (this.saved) this.saved(this); }
    take(values) { Object.assign(this.data, values); for (const name of Object.keys(values)) this.fire(name); }
  }
  function bytes(text) { // base64 -> what a widget gets from Python
    const raw = atob(text), a = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i++) a[i] = raw.charCodeAt(i);
    return new DataView(a.buffer);
  }
  const unpack = (values) => Object.fromEntries(Object.entries(values).map(([k, v]) => [k, v && v.base64 !== undefined ? bytes(v.base64) : v]));

  function say(fig, state, description) { // the state string and the long description below the picture
    fig.querySelector(".state code").textContent = `viz.load("${state}")`;
    if (description !== undefined) fig.querySelector(".describe p").textContent = description;
    for (const b of fig.querySelectorAll("[data-state]")) b.setAttribute("aria-pressed", b.dataset.state === state);
  }

  function frames(fig, data) {
    const img = fig.querySelector("img"), controls = [...fig.querySelectorAll("[data-param]")], root = fig.dataset.root;
    const at = Object.fromEntries(Object.entries(data.places).map(([k, s]) => [s, k.split(",").map(Number)]));
    const place = (c) => (c.type === "checkbox" ? Number(c.checked) : Number(c.value));
    let turn = 0;
    function told(c) {
      if (c.type !== "range") return;
      const word = JSON.parse(c.dataset.values)[c.value];
      c.nextElementSibling.textContent = word;
      c.setAttribute("aria-valuetext", word);
    }
    async function show(state) {
      const found = data.frames[state], mine = ++turn;
      if (!found) return;
      const next = new Image();
      next.src = root + found[0];
      await next.decode().catch(() => {}); // decoded before it is shown: nothing flickers
      if (mine !== turn) return; // a newer one was asked for meanwhile
      img.src = next.src;
      img.alt = found[1];
      say(fig, state, found[2]);
    }
    for (const c of controls) c.addEventListener("input", () => { controls.forEach(told); show(data.places[controls.map(place).join(",")]); });
    for (const b of fig.querySelectorAll("[data-state]")) {
      b.onclick = () => {
        const places = at[b.dataset.state];
        if (places) controls.forEach((c, i) => { if (c.type === "checkbox") c.checked = Boolean(places[i]); else c.value = places[i]; told(c); });
        show(b.dataset.state);
      };
    }
    if (matchMedia("(hover: hover)").matches) { // the neighbours of what is shown are fetched before they are asked for
      fig.addEventListener("pointerenter", () => { for (const f of Object.values(data.frames).slice(0, 60)) new Image().src = root + f[0]; }, { once: true });
    }
  }

  function stage(fig) { // where a widget's script draws; the still picture makes room for it
    const box = fig.querySelector(".stage"), el = document.createElement("div");
    box.removeAttribute("tabindex");
    box.classList.add("live");
    box.replaceChildren(el);
    return el;
  }
  function marks(fig, go) {
    for (const b of fig.querySelectorAll("[data-state]")) b.onclick = () => go(b.dataset.state);
  }

  function grid(fig, data) {
    const start = unpack(data.models[data.start]);
    function go(r, c) {
      const run = data.runs[`${r},${c}`];
      if (!run) return;
      model.take({ at: [r, c], alt: run[1], png: bytes(run[0].base64) });
      say(fig, run[2], run[3]);
    }
    const model = new Model(start, (m) => { const [, r, c] = m.get("chosen"); go(r, c); });
    const first = data.runs[start.at.join(",")];
    if (first) model.data.png = bytes(first[0].base64);
    views.grid.render({ model, el: stage(fig) });
    marks(fig, (state) => go(...data.at[state]));
  }

  // The level detective: the same judgement as nlbook.levels gives, from the pairs that Definition 2 orders.
  function judge(system, lanes) { // lanes: name -> 1 (slow) ... 5 (fast), 0 in the tray
    const used = [...new Set(Object.values(lanes).filter(Boolean))].sort((a, b) => a - b), level = (n) => used.indexOf(lanes[n]) + 1;
    const wrong = [];
    for (const [a, b, why] of [...system.pairs].sort((p, q) => system.names.indexOf(p[0]) - system.names.indexOf(q[0]))) {
      if (!lanes[a] || !lanes[b]) continue;
      if (level(a) < level(b)) wrong.push({ kind: "arrow", slow: b, fast: a, text: `${a} > ${b} is violated: ${why}, so ${a} belongs in a faster level than ${b}; got ${a} in level ${level(a)}, ${b} in level ${level(b)}` });
      else if (level(a) === level(b)) wrong.push({ kind: "together", slow: b, fast: a, text: `${a} > ${b} is violated: ${why}, so they are not of one level; got both in level ${level(a)}` });
    }
    const tray = system.names.filter((n) => !lanes[n]);
    if (!wrong.length && !tray.length) {
      for (const i of used) for (const n of system.names) if (lanes[n] === i && level(n) !== system.levels[n]) {
        wrong.push({ kind: "tie", slow: n, fast: n, text: `${n}: got level ${level(n)}, expected level ${system.levels[n]}: no arrow is broken, but by the tie rule a component sits in the outermost level that is admissible` });
      }
    }
    const s = (n) => (n === 1 ? "" : "s"), arrows = wrong.filter((v) => v.kind !== "tie");
    const said = arrows.length ? `${wrong.length} arrow${s(wrong.length)} broken.` : wrong.length ? "No arrow is broken, but a part sits deeper than it has to." : "";
    const left = tray.length ? `${tray.length} part${s(tray.length)} still in the tray.` : "";
    const solved = !wrong.length && !tray.length;
    const most = 3, more = wrong.length - most;
    return {
      labels: [1, 2, 3, 4, 5].map((i) => (used.includes(i) ? `level ${used.indexOf(i) + 1}` : "empty lane")),
      verdict: solved ? `Solved: ${used.length} levels, no arrow broken.${system.next && ` Go on with ${system.next}.`}` : [said, left].filter(Boolean).join(" "),
      messages: wrong.slice(0, most).map((v) => v.text).concat(more > 0 ? [`... and ${more} more.`] : []),
      arrows: arrows.map((v) => [v.slow, v.fast]), trouble: new Set(wrong.flatMap((v) => [v.slow, v.fast])), solved,
    };
  }

  function detective(fig, data) {
    let system = nameOf(data.start);
    function nameOf(state) { const m = /system=(\w+)/.exec(state); return m ? m[1] : "layer"; }
    function moved(m) {
      const lanes = m.get("chosen").slice(1), parts = m.get("parts");
      const { trouble, ...verdict } = judge(data.systems[system], Object.fromEntries(parts.map((p, i) => [p.name, lanes[i]])));
      m.take({ ...verdict, parts: parts.map((p, i) => ({ ...p, lane: lanes[i], trouble: trouble.has(p.name) })) });
      const said = (system === "layer" ? [] : [`system=${system}`]).concat(lanes.some(Boolean) || system !== "layer" ? [`lanes=${lanes.join(",")}`] : []);
      say(fig, said.length ? `detective:${said.join(";")}` : "detective", `${m.get("verdict")} ${m.get("messages").join(" ")}`);
    }
    const model = new Model(unpack(data.models[data.start]), moved);
    views.detective.render({ model, el: stage(fig) });
    marks(fig, (state) => {
      const { description, ...values } = unpack(data.models[state]);
      system = nameOf(state);
      model.take(values);
      say(fig, state, description);
    });
  }

  function ledger(fig, data) { // which rows are listed is a state; which of them is chosen, a card
    let state = data.start;
    const model = new Model(unpack(data.models[state]), (m) => {
      const at = m.get("chosen")[1], id = data.rows[state][at];
      if (!id) return;
      m.take({ at, ...data.cards[id] });
      const show = /show=(\w+)/.exec(state);
      say(fig, `ledger:${show ? `show=${show[1]},` : ""}row=${id}`, data.cards[id].card.map((part) => part.join(": ")).join(" "));
    });
    views.ledger.render({ model, el: stage(fig) });
    marks(fig, (next) => {
      const { description, ...values } = unpack(data.models[next]);
      state = next;
      model.take(values);
      say(fig, next, description);
    });
  }

  window.nlbookJudge = judge; // read by the tests
  const kinds = { frames, grid, detective, ledger };
  for (const fig of document.querySelectorAll("figure[data-twin]")) {
    const data = all[fig.dataset.twin];
    if (!data) continue;
    fig.querySelector(".twin-controls").hidden = false;
    kinds[data.kind](fig, data);
  }
})();
