// The page itself: theme, chapter list on a phone, search, copying code, predictions that are remembered.
// Plain DOM: no library, no import, no request; works from a folder.
(function () {
  "use strict";
  const $ = (s, from = document) => from.querySelector(s), $$ = (s, from = document) => [...from.querySelectorAll(s)];
  const make = (tag, cls, parent, text) => { const e = document.createElement(tag); if (cls) e.className = cls; if (text) e.textContent = text; if (parent) parent.append(e); return e; };
  const store = { get(k) { try { return localStorage.getItem(k); } catch { return null; } }, set(k, v) { try { localStorage.setItem(k, v); } catch { /* a private window keeps nothing */ } } };
  const root = document.body.dataset.root || "", html = document.documentElement;

  // ---- theme: follows the system until the reader chooses
  const theme = $("button.theme"), dark = matchMedia("(prefers-color-scheme: dark)");
  function themed() {
    const now = html.dataset.theme || (dark.matches ? "dark" : "light");
    theme.setAttribute("aria-pressed", now === "dark");
    theme.setAttribute("aria-label", `Dark theme, ${now === "dark" ? "on" : "off"}`);
    theme.textContent = now === "dark" ? "Light" : "Dark";
    return now;
  }
  theme.onclick = () => { html.dataset.theme = themed() === "dark" ? "light" : "dark"; store.set("nlbook-theme", html.dataset.theme); themed(); };
  dark.addEventListener("change", themed);
  themed();

  // ---- the list of chapters on a narrow page
  const menu = $("button.menu"), list = $("#chapters");
  menu.onclick = () => { const open = html.classList.toggle("menu-open"); menu.setAttribute("aria-expanded", open); if (open) $("a", list)?.focus(); };
  list.addEventListener("keydown", (e) => { if (e.key === "Escape" && html.classList.contains("menu-open")) { menu.click(); menu.focus(); } });
  const here = $('[aria-current="page"]', list);
  if (here) list.scrollTop = here.offsetTop - list.clientHeight / 2;

  // ---- search: the index is a script of its own, read when it is first asked for
  let dialog, input, results, index, chosen = 0;
  function load() {
    if (window.nlbookIndex) return ready();
    const s = make("script");
    s.src = `${root}assets/search-index.js`;
    s.onload = ready;
    document.head.append(s);
  }
  function ready() {
    index = window.nlbookIndex.map((e) => ({ ...e, low: `${e.page} ${e.title} ${e.text}`.toLowerCase(), head: `${e.title}`.toLowerCase() }));
    look();
  }
  function score(entry, words) {
    let sum = 0;
    for (const w of words) {
      const at = entry.low.indexOf(w);
      if (at < 0) return 0;
      const begins = new RegExp(`(^|[^a-z0-9])${w.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")}`).test(entry.low);
      sum += 1 + 2 * begins + (entry.head.includes(w) ? 6 : 0) + Math.min(3, entry.low.split(w).length - 2) * 0.4;
    }
    return sum + (entry.weight || 0);
  }
  function snippet(entry, words) {
    const low = entry.text.toLowerCase(), at = Math.max(0, Math.min(...words.map((w) => low.indexOf(w)).filter((i) => i >= 0), entry.text.length) - 50);
    const cut = entry.text.slice(at < entry.text.length ? at : 0, (at < entry.text.length ? at : 0) + 170);
    const p = make("span", "snippet"), pattern = new RegExp(`(${words.map((w) => w.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join("|")})`, "ig");
    p.append(at > 0 ? "… " : "");
    cut.split(pattern).forEach((part, i) => p.append(i % 2 ? make("mark", "", null, part) : part));
    return p;
  }
  function look() {
    if (!index) return;
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    results.replaceChildren();
    chosen = 0;
    if (!words.length) { status.textContent = "Type a word: an idea, a method, an equation's number."; return; }
    const found = index.map((e) => [score(e, words), e]).filter(([s]) => s > 0).sort((a, b) => b[0] - a[0]);
    status.textContent = found.length ? `${found.length} place${found.length === 1 ? "" : "s"}` : "Nothing found.";
    for (const [, e] of found.slice(0, 20)) {
      const a = make("a", "", make("li", "", results));
      a.href = root + e.href;
      make("b", "", a, e.title);
      make("span", "where", a, e.page);
      a.append(snippet(e, words));
      a.onclick = () => dialog.close();
    }
    mark();
  }
  const mark = () => $$("a", results).forEach((a, i) => a.classList.toggle("chosen", i === chosen));
  let status;
  function open() {
    if (!dialog) {
      dialog = make("dialog", "search", document.body);
      dialog.setAttribute("aria-label", "Search the book");
      const label = make("label", "", dialog);
      make("span", "hidden", label, "Search the book");
      input = make("input", "", label);
      Object.assign(input, { type: "search", placeholder: "Search the book", autocomplete: "off", spellcheck: false });
      const close = make("button", "close", dialog, "Close");
      close.type = "button";
      close.onclick = () => dialog.close();
      status = make("p", "status", dialog);
      status.setAttribute("role", "status");
      results = make("ol", "", dialog);
      input.oninput = look;
      input.onkeydown = (e) => {
        const links = $$("a", results);
        if (e.key === "ArrowDown") chosen = Math.min(chosen + 1, links.length - 1);
        else if (e.key === "ArrowUp") chosen = Math.max(chosen - 1, 0);
        else if (e.key === "Enter" && links[chosen]) { links[chosen].click(); return; }
        else if (e.key === "Escape") dialog.close(); // a search field would only empty itself
        else return;
        e.preventDefault();
        mark();
        links[chosen]?.scrollIntoView({ block: "nearest" });
      };
      dialog.onclick = (e) => { if (e.target === dialog) dialog.close(); };
    }
    dialog.showModal();
    input.select();
    load();
    look();
  }
  $("button.find").onclick = open;
  addEventListener("keydown", (e) => {
    const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement?.tagName);
    if ((e.key === "/" && !typing && !e.ctrlKey && !e.metaKey && !e.altKey) || (e.key === "k" && (e.ctrlKey || e.metaKey))) { e.preventDefault(); open(); }
  });

  // ---- copying code
  for (const box of $$("div.code")) {
    const b = make("button", "copy", box, "Copy");
    b.type = "button";
    b.setAttribute("aria-label", "Copy this code");
    b.onclick = async () => {
      try { await navigator.clipboard.writeText($("code", box).textContent); b.textContent = "Copied"; } catch { getSelection().selectAllChildren($("code", box)); b.textContent = "Press Ctrl+C"; }
      setTimeout(() => { b.textContent = "Copy"; }, 1500);
    };
  }

  // ---- options that can be chosen: a radio button before the words of a list's item
  function option(li, name, chosen) {
    const label = make("label"), radio = make("input"), words = make("span");
    Object.assign(radio, { type: "radio", name, value: li.textContent, onchange: chosen });
    words.append(...li.childNodes);
    label.append(radio, words);
    li.replaceChildren(label);
    return radio;
  }

  // ---- questions: each option answers for itself
  for (const box of $$(".box.question")) {
    const list = $("ol", box), fold = $("details", box), whys = fold && $$("li", fold);
    if (!whys || whys.length !== $$(":scope > li", list).length) continue;
    const said = make("p", "said");
    said.setAttribute("role", "status");
    [...list.children].forEach((li, i) => option(li, box.getAttribute("aria-label"), () => { said.innerHTML = whys[i].innerHTML.replace(/^.*? — (?=<em>(right|not quite):)/s, ""); }));
    fold.replaceWith(said);
  }

  // ---- predictions: say first, then compare; kept in this browser only
  const said = (id) => `nlbook-predict-${id}`;
  for (const box of $$(".box.result")) { // folded until something is predicted
    const fold = box.closest("details") || make("details", "result");
    if (fold.isConnected) continue;
    box.replaceWith(fold);
    make("summary", "", fold, "Predict first, or open the result");
    fold.append(box);
  }
  function compare(id) {
    for (const box of $$(".box.result")) {
      if (box.getAttribute("aria-label") !== `Result of prediction ${id}`) continue;
      const value = store.get(said(id)), line = $(".said", box) || make("p", "said");
      line.textContent = value ? `You predicted: ${value}` : "You made no prediction here. It is worth going back for it.";
      if (!line.parentNode) box.prepend(line);
      if (value) box.closest("details").open = true;
    }
  }
  for (const box of $$(".box.predict")) {
    const id = box.getAttribute("aria-label").replace("Prediction ", ""), list = $("ol, ul", box);
    if (!list || !id) continue;
    const note = make("p", "note");
    const kept = (value) => { note.textContent = value ? "Noted. The answer comes below, beside yours." : "Choose before you read on."; };
    if (list.tagName === "OL") {
      for (const li of $$("li", list)) option(li, said(id), () => { store.set(said(id), li.textContent); kept(true); compare(id); }).checked = store.get(said(id)) === li.textContent;
    } else {
      const label = make("label", "number", null, "Your number: "), field = make("input", "", label);
      Object.assign(field, { type: "text", inputMode: "decimal", value: store.get(said(id)) || "", size: 8 });
      field.onchange = () => { store.set(said(id), field.value.trim()); kept(field.value.trim()); compare(id); };
      list.after(label);
    }
    kept(store.get(said(id)));
    box.append(note);
    compare(id);
  }

  // ---- the index of equations: a filter
  const filter = $("#filter");
  if (filter) {
    const entries = $$("article.equation"), only = $("#only"), count = $("#count");
    const low = entries.map((e) => e.textContent.toLowerCase());
    const run = () => {
      const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
      let n = 0;
      entries.forEach((e, i) => { const yes = words.every((w) => low[i].includes(w)) && (only.value === "" || e.dataset.status === only.value); e.hidden = !yes; n += yes; });
      count.textContent = `${n} of ${entries.length} equations`;
    };
    filter.oninput = only.onchange = run;
    run();
    addEventListener("hashchange", () => { const e = document.getElementById(location.hash.slice(1)); if (e?.closest("article")?.hidden) { filter.value = ""; only.value = ""; run(); e.scrollIntoView(); } });
  }

  // ---- where the reader is: the section in sight is marked in the contents
  const links = new Map($$(".contents a").map((a) => [a.getAttribute("href").slice(1), a]));
  if (links.size) {
    const heads = [...links.keys()].map((id) => document.getElementById(id)).filter(Boolean);
    const mark = () => {
      let now = heads[0];
      for (const h of heads) if (h.getBoundingClientRect().top < 140) now = h;
      for (const [id, a] of links) a.toggleAttribute("data-here", id === now.id);
    };
    addEventListener("scroll", () => requestAnimationFrame(mark), { passive: true });
    mark();
  }
})();
