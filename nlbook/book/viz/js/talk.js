// Talk to Hope: type pairs, see what the reader expects, hold a memory and see what is lost. The reader is the trained
// Hope of the book, computed in the page by engine.js.
import { Hope, softmax } from "./engine.js";

const HINT = "Type pairs such as A3 d5 x1, and | to end the document. A key alone asks.";
const PARTS = {
  M: "the memory that answers", M_k: "makes the keys", M_v: "makes the values", M_eta: "makes the write rate", M_alpha: "makes the retention",
};

// ---- numbers: the weights come as half precision in base64, row by row
function decode(packed) {
  const raw = atob(packed.data), bytes = Uint8Array.from(raw, (c) => c.charCodeAt(0)), halves = new Uint16Array(bytes.buffer);
  const value = (h) => {
    const sign = h >> 15 ? -1 : 1, exponent = (h >> 10) & 31, part = h & 1023;
    return sign * (exponent ? 2 ** (exponent - 15) * (1 + part / 1024) : 2 ** -14 * (part / 1024));
  };
  const weights = {};
  let at = 0;
  const take = (shape) => (shape.length ? Array.from({ length: shape[0] }, () => take(shape.slice(1))) : value(halves[at++]));
  for (const [name, shape] of packed.shapes) weights[name] = take(shape);
  return weights;
}
const names = (spec) => [...spec.keys, ...Array.from({ length: spec.values }, (_, i) => String(i + 1)), "|"];
const readText = (spec, text) => [...text].flatMap((c) => { const t = names(spec).indexOf(c); return t < 0 ? [] : [t]; });

// The best reader: an exact Bayes filter a key, who is told which facts live how long.
function best(spec, tokens) {
  const V = spec.values, K = spec.keys.length, flat = () => Array(V).fill(1 / V), belief = Array.from({ length: K }, flat), used = Array(K).fill(false);
  let key = -1;
  for (const t of tokens) {
    if (t === K + V) { belief.forEach((_, k) => { if (k > 1) { belief[k] = flat(); used[k] = false; } }); key = -1; continue; }
    if (t < K) { key = t; continue; }
    if (key < 0) continue;
    const drift = key > 3 && used[key] ? spec.hazard : 0, joint = belief[key].map((p, v) => ((1 - drift) * p + drift / V) * ((v === t - K ? 1 - spec.slip : 0) + spec.slip / V));
    const sum = joint.reduce((a, b) => a + b, 0);
    belief[key] = joint.map((p) => p / sum); used[key] = true; key = -1;
  }
  if (key < 0) return null;
  const drift = key > 3 && used[key] ? spec.hazard : 0;
  return belief[key].map((p) => (1 - spec.slip) * ((1 - drift) * p + drift / V) + spec.slip / V);
}

// What was read so far: { tokens, steps: [{ expected, nats, moved }], next } with the parts in `held` not learning.
function conversation(spec, weights, held) {
  const reader = new Hope(weights, spec.sizes, held), talk = { tokens: [], steps: [], next: null };
  const parts = () => {
    const moved = {};
    reader.blocks.forEach((b) => {
      b.heads.forEach((h) => Object.entries(h.parts).forEach(([n, m]) => { moved[n] = (moved[n] || 0) + m.moved; }));
      b.levels.forEach((l, i) => { moved[`level ${i}`] = (moved[`level ${i}`] || 0) + l.moved; });
    });
    return Object.fromEntries(Object.entries(moved).map(([n, m]) => [n, Math.sqrt(m)]));
  };
  talk.say = (token) => {
    const expected = talk.next, logits = reader.read(token);
    talk.tokens.push(token);
    talk.steps.push({ expected, nats: expected ? -Math.log(expected[token]) : 0, moved: parts() });
    talk.next = softmax(logits);
  };
  return talk;
}
export const model = { decode, names, readText, best, conversation };

// ---- the page
export function mount(root, spec) {
  const weights = decode(spec.packed), word = names(spec), K = spec.keys.length, V = spec.values;
  const levels = spec.sizes.periods.map((_, i) => `level ${i}`), parts = [...Object.keys(PARTS), ...levels];
  let held = new Set(), talk;
  root.classList.add("nlbook-live", "nlbook-talk");
  root.innerHTML = `
    <div class="row ask" role="group" aria-label="Say something">${word.map((w, t) => `<button type="button" data-token="${t}"${w === "|" ? ' class="end"' : ""}>${w === "|" ? "End the document" : w}</button>`).join("")}</div>
    <div class="row"><input class="line" type="text" autocomplete="off" spellcheck="false" aria-label="Text to read" placeholder="A3 d5 x1 | A"><button type="button" class="example">Read me a stream</button><button type="button" class="anew">Start anew</button></div>
    <div class="read" role="log" aria-label="What was read"></div>
    <div class="stage"><figure><figcaption class="asked"></figcaption><div class="bars" role="img">${Array.from({ length: V }, (_, v) => `<div class="bar"><i></i><b></b><span>${v + 1}</span></div>`).join("")}</div></figure>
      <div class="lanes"><b>How far each part moved at this word</b>${parts.map((p) => `<div class="lane" data-part="${p}"><button type="button" aria-pressed="false" title="${PARTS[p] || `an MLP that moves once in ${spec.sizes.periods[Number(p.slice(6))]} tokens`}">hold</button><span>${p.startsWith("level") ? "level" : p}</span><i></i></div>`).join("")}</div></div>
    <p class="said" aria-live="polite"></p>
    <p class="fine">${HINT} Dashed: the best reader, who is told the rules. The stronger a value is shaded, the more it surprised. Point at a word, or hold a part still and see what is lost.</p>`;
  const $ = (q) => root.querySelector(q), $$ = (q) => [...root.querySelectorAll(q)];

  function restart(tokens) { talk = conversation(spec, weights, held); tokens.forEach(talk.say); draw(); }
  function say(tokens) { tokens.forEach(talk.say); draw(); }
  const likely = (p) => { const said = p.slice(K, K + V), v = said.indexOf(Math.max(...said)); return { t: K + v, words: `${v + 1} at ${Math.round(100 * said[v])} %` }; };
  function explain(i) { // one word of the text: what was read, what was surprising, what moved
    const s = talk.steps[i], t = talk.tokens[i], order = Object.entries(s.moved).filter(([, m]) => m >= 0.01).sort((a, b) => b[1] - a[1]);
    if (t === K + V) return "The document ends. The memories of the mixer start again; the levels take what they have gathered and live on.";
    const most = order.length ? `Moved most: ${order.slice(0, 2).map(([n, m]) => `${n} (${m.toFixed(2)})`).join(", then ")}.` : "Hardly anything moved.";
    const next = i + 1 < talk.steps.length ? talk.steps[i + 1].expected : talk.next;
    if (t < K || !s.expected) return `${word[t]}, a key: there the reader reads ${likely(next).words}. ${most}`;
    const p = s.expected[t], read = likely(s.expected);
    return `${word[t]}: the reader had read ${read.words}${read.t === t ? "" : `, and gave ${word[t]} ${Math.round(100 * p)} %`}, so it ${p > 0.5 ? "knew" : p > 0.2 ? "half knew" : "was surprised"} (${s.nats.toFixed(2)} nats). ${most}`;
  }
  function point(i) { // one word is pointed at, typed or focused: its sentence, and how far it moved each part
    const at = i < 0 ? talk.tokens.length - 1 : i, top = Math.max(1e-9, ...talk.steps.slice(-40).flatMap((s) => Object.values(s.moved)));
    if (at >= 0) $(".said").textContent = explain(at);
    $$("[data-at]").forEach((b) => b.classList.toggle("at", Number(b.dataset.at) === at));
    $$(".lane").forEach((lane) => { lane.querySelector("i").style.width = `${100 * Math.sqrt(Math.min(1, (at < 0 ? 0 : talk.steps[at].moved[lane.dataset.part] || 0) / top))}%`; });
  }
  function draw() {
    const last = talk.tokens.length - 1, asks = talk.tokens[last] < K;
    $(".read").innerHTML = talk.tokens.map((t, i) => `<button type="button" data-at="${i}" class="${t === K + V ? "end" : t < K ? "key" : "value"}" style="--much:${t >= K && t < K + V && talk.steps[i].expected ? Math.min(1, talk.steps[i].nats / 3).toFixed(2) : 0}">${word[t]}</button>`).join("");
    const p = talk.next ? talk.next.slice(K, K + V) : Array(V).fill(0), ideal = best(spec, talk.tokens);
    $$(".bar").forEach((bar, v) => {
      bar.querySelector("i").style.height = `${100 * (asks ? p[v] : 0)}%`;
      bar.querySelector("b").style.bottom = `calc(20px + (100% - 20px) * ${ideal ? ideal[v] : 0})`;
      bar.querySelector("b").hidden = !ideal;
    });
    $(".asked").textContent = asks ? `What is ${word[talk.tokens[last]]}?` : "Say a key to ask.";
    $(".bars").setAttribute("aria-label", asks ? p.map((x, v) => `${v + 1}: ${Math.round(100 * x)} %`).join(", ") : "no question");
    $$(".lane").forEach((lane) => {
      const on = held.has(lane.dataset.part), button = lane.querySelector("button");
      button.setAttribute("aria-pressed", String(on));
      button.textContent = on ? "held" : "hold";
    });
    point(-1);
    const box = $(".read");
    box.scrollTop = box.scrollHeight;
  }
  $$("[data-token]").forEach((b) => { b.onclick = () => say([Number(b.dataset.token)]); });
  $(".line").oninput = (ev) => { const found = readText(spec, ev.data || ev.target.value); ev.target.value = ""; if (found.length) say(found); };
  $(".anew").onclick = () => restart([]);
  $(".example").onclick = () => restart(readText(spec, spec.example));
  $$(".lane button").forEach((b) => {
    b.onclick = () => {
      const name = b.closest(".lane").dataset.part;
      held = new Set(held);
      if (!held.delete(name)) held.add(name);
      restart(talk.tokens);
    };
  });
  const words = (ev) => { const b = ev.target.closest("[data-at]"); if (b) point(Number(b.dataset.at)); };
  for (const how of ["click", "pointerover", "focusin"]) $(".read").addEventListener(how, words);
  $(".read").onpointerleave = () => point(-1);
  restart(readText(spec, spec.example));
}
