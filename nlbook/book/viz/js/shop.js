// The Clock Shop: three memories read one stream and share one error; they differ in their clocks only. Six glasses show
// which memory holds which fact. The numbers come from engine.js, the words and the picture are made here.
import { dot, endContext, learn, startLevels, times, zeros } from "./engine.js";

// ---- the language: facts that never change, facts of a document, facts that change under way
const KEYS = ["A", "B", "d", "e", "x", "y"], KIND = [0, 0, 1, 1, 2, 2], V = 8, PAIRS = 48, DOCUMENTS = 60;
const SLIP = 0.05, HAZARD = 0.35, K = KEYS.length;
const KINDS = ["never change", "new in each document", "change under way"];
// keys at right angles with no zero in them; values of length 1 whose sum is 0, so that the answer 0 says nothing
const key = KEYS.map((_, a) => KEYS.map((_, i) => (a === i ? 1 : 0) - 2 / K));
const value = [...Array(V).keys()].map((a) => [...Array(V).keys()].map((i) => Math.sqrt(V / (V - 1)) * ((a === i ? 1 : 0) - 1 / V)));

// ---- the clocks
const clock = (period, rate, keep, ends, on = true) => ({ period, rate, keep, ends, on });
const LANES = ["fast", "middle", "slow"];
const PRESETS = {
  three: { name: "three clocks", clocks: [clock(1, 0.6, 0.93, 1), clock(8, 0.2, 1, 1), clock(48, 0.025, 1, 0)] },
  one: { name: "one clock", clocks: [clock(1, 0.7, 1, 1), clock(8, 0, 1, 1, false), clock(48, 0, 1, 0, false)] },
  never: { name: "nobody forgets", clocks: [clock(1, 0.6, 1, 0), clock(8, 0.2, 1, 0), clock(48, 0.025, 1, 0)] },
  steps: { name: "same steps, no periods", clocks: [clock(1, 0.6, 0.93, 1), clock(1, 0.2, 1, 1), clock(1, 0.025, 1, 0)] },
  alike: { name: "all alike", clocks: [0, 1, 2].map(() => clock(1, 0.7 / 3, 1, 1)) },
};

// ---- chance: a number in [0, 1) that depends on (seed, pair, draw) alone, so that an order moves no later draw
function chance(seed, t, draw) {
  let h = Math.imul(seed + 1, 2654435761) ^ Math.imul(t * 32 + draw + 1, 2246822507);
  for (const m of [2246822507, 3266489909]) { h ^= h >>> 15; h = Math.imul(h, m); h ^= h >>> 13; }
  return (h >>> 0) / 4294967296;
}
const pick = (seed, t, draw, n) => Math.floor(chance(seed, t, draw) * n);

// ---- the shop: the facts, the memories, and the best reader (an exact Bayes filter a key, who is told the rules)
const guess = () => zeros(V).fill(1 / V);
function open(seed, clocks) {
  return {
    seed, t: 0, doc: 0, place: 0, last: -1, writes: 0, told: zeros(K).fill(false),
    facts: KEYS.map((_, i) => pick(seed, 0, 16 + i, V)), belief: KEYS.map(guess), memory: startLevels(clocks, V, K),
  };
}
function say(s, order) { // the next pair; order: { slip, again } of the person at the page
  const again = order.again && s.last >= 0;
  let k = again ? s.last : pick(s.seed, s.t, 0, K);
  if (order.slip && !s.told[k] && s.told.includes(true)) k = s.told.indexOf(true); // a slip shows where something is known
  const facts = s.facts.slice();
  if (KIND[k] === 2 && s.told[k] && !again && !order.slip && chance(s.seed, s.t, 1) < HAZARD) facts[k] = pick(s.seed, s.t, 2, V);
  let v = facts[k];
  if (order.slip) v = (v + 1 + pick(s.seed, s.t, 4, V - 1)) % V;
  else if (!again && chance(s.seed, s.t, 3) < SLIP) v = pick(s.seed, s.t, 4, V);
  return { k, v, facts, changed: facts[k] !== s.facts[k] };
}
function believe(belief, k, v) {
  const drift = KIND[k] === 2 ? HAZARD : 0, prior = belief.map((b) => (1 - drift) * b + drift / V);
  const joint = prior.map((p, i) => p * ((i === v ? 1 - SLIP : 0) + SLIP / V)), sum = joint.reduce((a, b) => a + b, 0);
  return { prior, after: joint.map((p) => p / sum) };
}
const mean = (p) => zeros(V).map((_, i) => p.reduce((a, w, v) => a + w * value[v][i], 0));
const miss = (y, v) => y.reduce((a, x, i) => a + (x - value[v][i]) ** 2, 0);

function pair(s, clocks, order = {}) { // one pair: { state, event }; an order may also end the document after it
  const { k, v, facts, changed } = say(s, order), truth = facts[k];
  const { state: memory, y, parts, moved, gone } = learn(s.memory, clocks, key[k], value[v]);
  const { prior, after } = believe(s.belief[k], k, v), wrote = moved.filter(Boolean).length;
  const event = {
    k, v, truth, changed, slip: v !== truth, again: Boolean(order.again), untold: !s.told[k], doc: s.doc, moved, ended: false,
    size: gone.map((M) => (M ? Math.sqrt(M.reduce((a, r) => a + dot(r, r), 0)) : 0)),
    held: parts.map((p) => dot(p, value[truth])), error: miss(y, truth), best: miss(mean(prior), truth),
  };
  let state = {
    ...s, t: s.t + 1, place: s.place + 1, last: k, facts, memory, writes: s.writes + wrote,
    told: s.told.map((x, i) => x || i === k), belief: s.belief.map((b, i) => (i === k ? after : b)),
  };
  if (order.end || state.place === PAIRS) {
    event.ended = true;
    event.full = glasses(state, clocks);
    state = {
      ...state, doc: s.doc + 1, place: 0, memory: endContext(memory, clocks),
      facts: facts.map((f, i) => (KIND[i] ? pick(s.seed, state.t, 24 + i, V) : f)),
      told: state.told.map((x, i) => x && !KIND[i]), belief: state.belief.map((b, i) => (KIND[i] ? guess() : b)),
    };
  }
  return { state, event };
}
function glasses(s, clocks) { // per key: what each memory holds of the true answer, and the strongest wrong answer
  return key.map((k, i) => {
    const parts = s.memory.levels.map((l, j) => (clocks[j].on ? times(l.M, k) : zeros(V)));
    const scores = value.map((v) => parts.reduce((a, p) => a + dot(p, v), 0)), truth = s.facts[i];
    const wrong = scores.reduce((a, x, v) => (v !== truth && x > scores[a] ? v : a), truth ? 0 : 1);
    return {
      k: i, truth, told: s.told[i], held: parts.map((p) => dot(p, value[truth])), total: scores[truth],
      wrong: scores[wrong], says: scores[truth] >= scores[wrong] ? truth : wrong, loud: Math.max(...scores),
      best: ((s.belief[i][truth] - 1 / V) * V) / (V - 1),
    };
  });
}
function summary(clocks, seed, { documents = DOCUMENTS, from = 30 } = {}) { // the numbers behind the picture
  let s = open(seed, clocks);
  const events = [];
  while (s.doc < documents) { const r = pair(s, clocks); s = r.state; events.push(r.event); }
  const late = events.filter((e) => e.doc >= from), avg = (xs) => xs.reduce((a, b) => a + b, 0) / xs.length;
  const of = (kind, f, es = late) => avg(es.filter((e) => KIND[e.k] === kind).map(f));
  const ends = late.filter((e) => e.ended).flatMap((e) => e.full);
  return {
    holds: [0, 1, 2].map((kind) => LANES.map((_, l) => avg(ends.filter((g) => KIND[g.k] === kind).map((g) => g.held[l])))),
    error: [0, 1, 2].map((kind) => of(kind, (e) => e.error)), best: [0, 1, 2].map((kind) => of(kind, (e) => e.best)),
    all: avg(late.map((e) => e.error)), untold: of(1, (e) => e.error, late.filter((e) => e.untold)), writes: s.writes / s.t,
  };
}
export const model = { KEYS, KIND, V, PAIRS, DOCUMENTS, LANES, PRESETS, key, value, open, pair, glasses, summary };

// ---- words
const digit = (v) => String(v + 1), list = (xs) => (xs.length < 2 ? xs.join("") : `${xs.slice(0, -1).join(", ")} and ${xs.at(-1)}`);
const number = (x) => (Math.abs(x) < 0.005 ? "0.00" : x.toFixed(2).replace("-", "−"));
const ABOUT = {
  three: "Three clocks. The fast memory writes at every pair and fades. The middle one writes once in 8 pairs. The slow one writes once in 48, in small steps, and it alone keeps what it has when a document ends.",
  one: "One clock. It writes at every pair and is emptied when the document ends, so what it knew of A and B goes the same way.",
  never: "Nobody forgets: nothing fades and nothing is emptied. Then the three memories hold the same mixture, and together they are one memory whose step is the sum of theirs.",
  steps: "The same steps without periods: all three write at every pair. The glasses hardly change, the counter does. So the step sorts the facts, and the period saves writes.",
  alike: "All alike: the same period, step and end. Memories that cannot differ hold equal parts of everything, and answer as one clock does.",
  own: "Clocks of your own, on the same stream.",
};
function told(event, before, after, clocks) { // one sentence on what has just happened
  const name = KEYS[event.k], now = after[event.k], total = before[event.k].held.reduce((a, b) => a + b, 0);
  if (event.ended) {
    const emptied = LANES.filter((_, l) => clocks[l].on && clocks[l].ends), stay = after.filter((g) => !KIND[g.k] && g.total > 0.5);
    const claims = after.filter((g) => KIND[g.k] && g.wrong > 0.5), names = (gs) => list(gs.map((g) => KEYS[g.k]));
    const head = emptied.length ? `the ${list(emptied)} ${emptied.length > 1 ? "memories are" : "memory is"} emptied` : "nothing is emptied";
    const rest = stay.length ? `${names(stay)} still answer${stay.length > 1 ? "" : "s"}.` : "Nothing is known any more.";
    return `The document ends and ${head}. ${claims.length ? `${names(claims)} go on claiming the old document's facts.` : rest}`;
  }
  if (event.again) return `Said again: ${name} is ${digit(event.truth)}. The answer now holds ${number(now.total)} of it.`;
  if (event.slip) return `A slip of the pen: ${name} is ${digit(event.truth)}, but ${digit(event.v)} was said. Each memory believes it by its own step.`;
  if (event.moved[2] && clocks[2].period > 1) return `The slow clock ticks, once in ${clocks[2].period} pairs. It writes down what all three together had got wrong since.`;
  if (event.changed) return `${name} has changed and is now ${digit(event.truth)}. The memories had ${number(total)} of the new answer.`;
  if (event.untold && total < 0.3) return `${name} is ${digit(event.v)}. Nobody knew, and nobody claimed anything.`;
  return `${name} is ${digit(event.v)}. The memories had ${number(total)} of it: ${LANES.map((l, i) => `${l} ${number(before[event.k].held[i])}`).join(", ")}.`;
}

// ---- the page
const PERIODS = [1, 2, 4, 8, 16, 24, 48, 96, 192], TOP = 1.15, SHOWN = 29 * PAIRS + 42, TOTAL = PAIRS * DOCUMENTS;

export function mount(root, { preset = "three", seed = 1 } = {}) {
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const ui = { preset, seed, clocks: [], orders: {}, t: 0, playing: false, first: true, since: 0, owed: 0, spoken: 0 };
  let trace; // every moment that has been reached: { states, events, errors: [mine, best] a kind, running }

  root.classList.add("nlbook-live", "nlbook-shop");
  const glass = (i) => `<div class="glass" data-key="${i}"><div class="vessel"><i class="one"></i><i class="wrong"></i>${LANES.map((l) => `<b class="${l}"></b>`).join("")}<i class="best"></i></div><strong>${KEYS[i]}</strong><span class="is"></span><span class="says"></span></div>`;
  root.innerHTML = `
    <div class="row" role="group" aria-label="Clocks">${Object.entries(PRESETS).map(([id, p]) => `<button type="button" data-preset="${id}">${p.name}</button>`).join("")}</div>
    <p class="about"></p>
    <canvas class="roll" role="img" tabindex="0"></canvas>
    <div class="row"><button type="button" class="play">Play</button>
      <button type="button" data-order="end">End the document</button><button type="button" data-order="slip">A slip of the pen now</button><button type="button" data-order="again">Say it again</button>
      <input class="scrub" type="range" min="0" max="${TOTAL}" step="1" aria-label="pair of the stream"><output class="where"></output></div>
    <p class="said" aria-live="polite"></p>
    <div class="stage"><div class="glasses" role="img">${[0, 1, 2].map((kind) => `<div class="kind"><div>${KEYS.map((_, i) => (KIND[i] === kind ? glass(i) : "")).join("")}</div><em>${KINDS[kind]}</em></div>`).join("")}</div>
      <table><caption>Error over the last ten documents: 0 is right, 1 knows nothing</caption><thead><tr><th></th><th>memories</th><th>best reader</th></tr></thead>
      <tbody>${[0, 1, 2].map((kind) => `<tr><th>${KEYS.filter((_, i) => KIND[i] === kind).join(" ")}</th><td></td><td></td></tr>`).join("")}<tr><th>all</th><td></td><td></td></tr></tbody>
      <tfoot><tr><th>writes a pair</th><td class="writes" colspan="2"></td></tr><tr><th>numbers moved</th><td class="moved" colspan="2"></td></tr></tfoot></table></div>
    <details><summary>Set the clocks yourself</summary><div class="lanes">${LANES.map((name, l) => `<fieldset data-lane="${l}"><legend class="${name}">${name}</legend>
      <label>period <input type="range" data-set="period" min="0" max="${PERIODS.length - 1}"><output></output></label>
      <label>step <input type="range" data-set="rate" min="0" max="1" step="0.005"><output></output></label>
      <label>keep <input type="range" data-set="keep" min="0.8" max="1" step="0.005"><output></output></label>
      <label><input type="checkbox" data-set="ends"> emptied with the document</label><label><input type="checkbox" data-set="on"> on</label></fieldset>`).join("")}</div>
      <button type="button" class="other">Another stream</button></details>
    <p class="fine">Filled: what each memory holds of the true answer. Dashed line: the best reader, who is told the rules. Hatched: the strongest wrong answer. The error of every pair is computed for every memory, whatever its period; a period saves writes.
      Three clocks are not better everywhere. Over five streams they err more than one clock that is emptied on d and e (0.24 against 0.18), less on A and B (0.04 against 0.19) and over all (0.32 against 0.36). A fast and a slow clock alone, well set, do as well (0.31).</p>`;
  const $ = (q) => root.querySelector(q), $$ = (q) => [...root.querySelectorAll(q)], roll = $(".roll"), vessels = $$(".glass");

  // ---- time
  function renew(clocks) { ui.clocks = clocks; trace = { states: [open(ui.seed, clocks)], events: [] }; reach(ui.t); }
  function reach(t) {
    for (let i = trace.events.length; i < t; i++) {
      const { state, event } = pair(trace.states[i], ui.clocks, ui.orders[i]);
      trace.states.push(state); trace.events.push(event);
    }
  }
  function go(t) { ui.t = Math.max(0, Math.min(TOTAL, t)); reach(ui.t); draw(); }
  function play(on) { ui.playing = on && ui.t < TOTAL; ui.last = 0; if (ui.playing) requestAnimationFrame(tick); draw(); }
  const pace = () => Math.min(60, 3 * Math.exp(Math.max(0, ui.since - 3) * 0.4)); // pairs a second: slow enough to read at first
  function tick(now) {
    if (!ui.playing || !root.isConnected) return;
    const dt = Math.min(0.1, (now - (ui.last || now)) / 1000), stop = ui.first ? SHOWN : TOTAL;
    ui.last = now; ui.since += dt; ui.owed += dt * pace();
    const n = Math.floor(ui.owed);
    ui.owed -= n;
    if (n) go(Math.min(stop, ui.t + n));
    if (ui.t === stop) { ui.first = false; play(false); speak("Nobody told the memories which key is which. Now end the document: which glasses will stay full?"); }
    else requestAnimationFrame(tick);
  }
  function order(what) {
    ui.first = false;
    play(false);
    const at = what === "end" ? ui.t - 1 : ui.t; // a document ends after the pair that was said last
    if (at < 0 || at >= TOTAL) return;
    ui.orders[at] = { ...(what === "end" ? ui.orders[at] : {}), [what]: true };
    trace.states.length = at + 1; trace.events.length = at;
    go(at + 1);
  }
  function choose(id) { ui.preset = id; renew(PRESETS[id].clocks.map((c) => ({ ...c }))); draw(); }

  // ---- the picture
  const speak = (text) => { $(".said").textContent = text; };
  function draw() {
    const s = trace.states[ui.t], event = trace.events[ui.t - 1], view = glasses(s, ui.clocks);
    const height = (x) => `${(100 * Math.max(0, Math.min(TOP, x))) / TOP}%`;
    view.forEach((g, i) => {
      const el = vessels[i];
      let floor = 0;
      for (const l of [2, 1, 0]) {
        const b = el.querySelector(`.${LANES[l]}`), up = Math.max(0, g.held[l]);
        b.style.bottom = height(floor); b.style.height = height(Math.min(up, TOP - floor));
        floor += up;
      }
      el.querySelector(".best").style.bottom = height(g.best);
      el.querySelector(".wrong").style.height = height(g.wrong < 0.12 ? 0 : g.wrong);
      el.querySelector(".is").textContent = g.told ? `is ${digit(g.truth)}` : "is ?";
      el.querySelector(".says").textContent = g.loud < 0.3 ? "silent" : `says ${digit(g.says)}`;
      el.classList.toggle("wrongly", g.loud >= 0.3 && g.says !== g.truth);
      el.classList.toggle("now", Boolean(event) && event.k === i);
    });
    $(".glasses").setAttribute("aria-label", view.map((g) => `${KEYS[g.k]}: ${LANES.map((l, j) => `${l} ${number(g.held[j])}`).join(", ")}`).join("; "));
    const late = trace.events.slice(Math.max(0, ui.t - 10 * PAIRS), ui.t), avg = (xs) => (xs.length ? number(xs.reduce((a, b) => a + b, 0) / xs.length) : "–");
    $$("tbody tr").forEach((tr, kind) => {
      const mine = late.filter((e) => kind === 3 || KIND[e.k] === kind), [a, b] = tr.querySelectorAll("td");
      a.textContent = avg(mine.map((e) => e.error)); b.textContent = avg(mine.map((e) => e.best));
    });
    const rate = ui.clocks.reduce((a, c) => a + (c.on ? 1 / c.period : 0), 0);
    $(".writes").textContent = `${number(rate)} of 3`;
    $(".moved").textContent = (s.writes * K * V).toLocaleString("en");
    $(".scrub").value = ui.t;
    $(".where").textContent = `document ${s.doc + 1}, pair ${s.place}`;
    $(".play").textContent = ui.playing ? "Pause" : "Play";
    $(".about").textContent = ABOUT[ui.preset];
    $$("[data-preset]").forEach((b) => b.setAttribute("aria-pressed", String(b.dataset.preset === ui.preset)));
    $$("[data-set]").forEach((input) => {
      const name = input.dataset.set, x = ui.clocks[input.closest("[data-lane]").dataset.lane][name], out = input.parentNode.querySelector("output");
      if (input.type === "checkbox") input.checked = Boolean(x);
      else { input.value = name === "period" ? PERIODS.indexOf(x) : x; out.textContent = name === "period" ? x : x.toFixed(3); }
    });
    const rare = event && (event.ended || event.slip || event.moved[2] || event.changed || event.untold);
    if (event && (!ui.playing || (pace() < 5 ? true : rare && performance.now() - ui.spoken > 2500))) {
      speak(told(event, glasses(trace.states[ui.t - 1], ui.clocks), view, ui.clocks));
      ui.spoken = performance.now();
    }
    score();
  }
  function score() { // the roll: one lane a memory, a note at each write; the newest pair at the right
    const w = roll.clientWidth, narrow = w < 520, left = narrow ? 0 : 172, cells = narrow ? 20 : 40, cell = (w - left) / cells;
    const lane = narrow ? 44 : 36, top = 44, h = top + 3 * lane, dpr = devicePixelRatio || 1, css = getComputedStyle(root), c = roll.getContext("2d");
    roll.style.height = `${h}px`;
    Object.assign(roll, { width: w * dpr, height: h * dpr });
    c.setTransform(dpr, 0, 0, dpr, 0, 0);
    const ink = css.getPropertyValue("color"), colour = (l) => getComputedStyle($(`legend.${LANES[l]}`)).color, font = (size, bold) => { c.font = `${bold ? 600 : 400} ${size}px ${css.fontFamily}`; };
    LANES.forEach((name, l) => {
      const y = top + l * lane, k = ui.clocks[l];
      c.globalAlpha = 0.12; c.fillStyle = ink; c.fillRect(left, y + lane - 6, w - left, 1); c.globalAlpha = 1;
      c.textAlign = "left"; c.textBaseline = "alphabetic"; c.fillStyle = k.on ? colour(l) : ink; font(13, true);
      c.fillText(k.on ? `${name}, every ${k.period === 1 ? "pair" : `${k.period} pairs`}` : `${name}: off`, 0, y + (narrow ? 12 : 22));
    });
    for (let i = Math.max(0, ui.t - cells); i < ui.t; i++) {
      const e = trace.events[i], x = left + (i - ui.t + cells) * cell + cell / 2;
      c.globalAlpha = 0.35 + 0.65 * (1 - (ui.t - 1 - i) / cells);
      c.fillStyle = ink; c.textAlign = "center"; font(15, true); c.fillText(KEYS[e.k], x, 16);
      font(14); c.fillText(digit(e.v), x, 34);
      if (e.slip) { c.strokeStyle = ink; c.beginPath(); c.arc(x, 29, 9, 0, 7); c.stroke(); }
      LANES.forEach((_, l) => {
        if (!e.moved[l]) return;
        const r = Math.max(2, Math.min(lane / 2 - 8, 11 * Math.sqrt(e.size[l])));
        c.fillStyle = colour(l); c.beginPath(); c.arc(x, top + l * lane + lane / 2 + (narrow ? 4 : 0), r, 0, 7); c.fill();
      });
      if (e.ended) { c.strokeStyle = ink; c.setLineDash([3, 3]); c.beginPath(); c.moveTo(x + cell / 2, 2); c.lineTo(x + cell / 2, h); c.stroke(); c.setLineDash([]); }
    }
    c.globalAlpha = 1;
    roll.setAttribute("aria-label", `Pair ${ui.t} of the stream; three lanes, a note at each write: ${LANES.map((l, j) => `${l} every ${ui.clocks[j].period}`).join(", ")}.`);
  }

  // ---- hands
  $(".play").onclick = () => { ui.first = false; play(!ui.playing); };
  $(".scrub").oninput = (ev) => { ui.first = false; ui.playing = false; go(Number(ev.target.value)); };
  $(".other").onclick = () => { ui.seed += 1; ui.orders = {}; renew(ui.clocks); draw(); };
  $$("[data-preset]").forEach((b) => { b.onclick = () => choose(b.dataset.preset); });
  $$("[data-order]").forEach((b) => { b.onclick = () => order(b.dataset.order); });
  $$("[data-set]").forEach((input) => {
    input.oninput = () => {
      const clocks = ui.clocks.map((k) => ({ ...k })), name = input.dataset.set, x = input.type === "checkbox" ? input.checked : Number(input.value);
      clocks[input.closest("[data-lane]").dataset.lane][name] = name === "period" ? PERIODS[x] : name === "ends" ? Number(x) : x;
      ui.preset = "own";
      renew(clocks); draw();
    };
  });
  roll.onkeydown = (ev) => {
    const by = { ArrowRight: 1, ArrowLeft: -1, PageDown: PAIRS, PageUp: -PAIRS }[ev.key];
    if (ev.key === " ") { ui.first = false; play(!ui.playing); } else if (by) { ui.first = false; ui.playing = false; go(ui.t + by); } else return;
    ev.preventDefault();
  };
  const wide = new ResizeObserver(() => trace && score()), seen = new IntersectionObserver(([at]) => {
    if (at.isIntersecting && ui.first && !ui.playing) play(true);
    else if (!at.isIntersecting && ui.playing) play(false);
  }, { threshold: 0.3 });
  renew(PRESETS[preset].clocks.map((c) => ({ ...c })));
  wide.observe(roll);
  if (calm) { ui.first = false; go(SHOWN); speak("Nobody told the memories which key is which. Now end the document: which glasses will stay full?"); } else { draw(); seen.observe(root); }
  return () => { play(false); wide.disconnect(); seen.disconnect(); };
}
