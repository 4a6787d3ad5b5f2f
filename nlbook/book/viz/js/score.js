// The score of updates: one lane a level, a note at each write. A note falls, the weights that it changes light up, and
// the strip of what the level gives back follows. Without a trace the levels are computed here by engine.js; with one,
// a run of the reader's own is played while it is recorded. The playhead is the only time.
import { learn, matrix, startLevels, zeros } from "./engine.js";

// ---- the stream: six English words, said in French and then in German
const ENGLISH = ["sun", "moon", "sea", "tree", "bird", "fire"], D = ENGLISH.length, LENGTH = 144, SWITCH = 60, SHOWN = 120;
const SAID = ["soleil", "lune", "mer", "arbre", "oiseau", "feu", "Sonne", "Mond", "Meer", "Baum", "Vogel", "Feuer"];
const one = (n, i) => zeros(n).map((_, j) => Number(i === j));
function stream() { // each six words in an order of their own, the same for everybody
  const pairs = [];
  let h = 7;
  const chance = () => (h = (Math.imul(h, 1664525) + 1013904223) >>> 0);
  while (pairs.length < LENGTH) {
    const order = ENGLISH.map((_, k) => [chance(), k]).sort((a, b) => a[0] - b[0]);
    for (const [, k] of order) pairs.push({ k, v: k + (pairs.length < SWITCH ? 0 : D) });
  }
  return pairs;
}

// ---- lanes: { name, words, period, updates (the tokens it wrote after), weights and recall (before the first and after each write) }
const recall = (M, pairs) => pairs.map(({ k, v }) => Math.max(0, M[v][k]) / (Math.hypot(...M.map((row) => row[k])) || 1));
function level(pairs, C) { // gathers the errors of C tokens and then writes once (eq. 71)
  const clock = [{ rate: D / (D + C), period: C }], updates = [];
  let state = startLevels(clock, 2 * D, D);
  const weights = [state.levels[0].M];
  pairs.forEach(({ k, v }, i) => {
    const step = learn(state, clock, one(D, k), one(2 * D, v));
    state = step.state;
    if (step.moved[0]) { updates.push(i + 1); weights.push(state.levels[0].M); }
  });
  return { name: `level C = ${C}`, words: C === 1 ? "every token" : `every ${C} tokens`, period: C, updates, weights, recall: weights.map((M) => recall(M, pairs)) };
}
function attention(pairs) { // a sharp look-up in the cache: the mean of all that was said of this word
  const cache = matrix(2 * D, D), seen = [recall(cache, pairs)];
  for (const { k, v } of pairs) { cache[v][k] += 1; seen.push(recall(cache, pairs)); }
  return { name: "attention", words: "a cache, no weights", period: 0, updates: pairs.map((_, i) => i + 1), recall: seen };
}
function frozen(pairs) {
  const M = SAID.map((_, v) => one(D, v));
  return { name: "frozen weights", words: "never, learned before", period: Infinity, updates: [], weights: [M], recall: [recall(M, pairs)] };
}
function run(periods) {
  const pairs = stream();
  return { pairs, unit: "token", length: LENGTH, lanes: [attention(pairs), ...[...periods].sort((a, b) => a - b).map((C) => level(pairs, C)), frozen(pairs)] };
}
const written = (lane, t) => lane.updates.filter((u) => u <= t).length;
// how well a lane gives back the French and the German tokens after token t (cosine, means)
const knows = (lane, t) => [[0, SWITCH], [SWITCH, t]].map(([a, b]) => lane.recall[written(lane, t)].slice(a, b).reduce((s, x) => s + x, 0) / Math.max(1, b - a));
export const model = { run, knows, written, LENGTH, SWITCH, SHOWN };

// ---- words
const short = (xs, n) => xs.slice(0, n).join(", ") + (xs.length > n ? ` and ${xs.length - n} more` : "");
function told(data, lane, j) { // one note: what it read, erased and wrote
  const t = lane.updates[j], head = `${lane.name[0].toUpperCase()}${lane.name.slice(1)} writes after ${data.unit} ${t}.`;
  if (!data.pairs) {
    const change = lane.change[j], size = lane.state[j];
    return `${head} ${change === null ? "" : `It moved by ${change.toPrecision(3)}${size ? `, ${(100 * change / size).toPrecision(2)} % of its size` : ""}. `}${lane.why[j] ? `Why: ${lane.why[j]}.` : ""}`;
  }
  const read = data.pairs.slice(t - (lane.period || 1), t), count = ENGLISH.map((word, k) => [word, read.filter((p) => p.k === k).length]).filter(([, n]) => n);
  if (!lane.period) return `${head} ${ENGLISH[read[0].k]} → ${SAID[read[0].v]} joins the cache, which now holds ${t} pairs. Nothing is erased.`;
  const [before, after] = [lane.weights[j], lane.weights[j + 1]], cells = [];
  after.forEach((row, v) => row.forEach((x, k) => { if (Math.abs(x - before[v][k]) > 0.02) cells.push({ d: x - before[v][k], said: `${ENGLISH[k]} → ${SAID[v]} (${before[v][k].toFixed(2)} to ${x.toFixed(2)})` }); }));
  const down = cells.filter((c) => c.d < 0).sort((a, b) => a.d - b.d).map((c) => c.said), up = cells.filter((c) => c.d > 0).sort((a, b) => b.d - a.d).map((c) => c.said);
  const what = lane.period === 1 ? `It read ${ENGLISH[read[0].k]} → ${SAID[read[0].v]}.` : `It read ${read.length} pairs (${short(count.map(([w, n]) => `${w} ${n}×`), 6)}).`;
  if (!cells.length) return `${head} ${what} It knew that already, so nothing changes.`;
  return `${head} ${what} ${down.length ? `Erased: ${short(down, 2)}.` : "Nothing was erased."} ${up.length ? `Written: ${short(up, 2)}.` : ""}`;
}
function standing(data, t) { // where the playhead stands, with the note of the slowest level that writes there
  const wrote = data.lanes.filter((l) => l.period && l.updates.includes(t)), last = wrote.at(-1);
  if (t === 0) return `Before the first ${data.unit}: nothing is written yet.`;
  const pair = data.pairs ? `${ENGLISH[data.pairs[t - 1].k]} is “${SAID[data.pairs[t - 1].v]}”. ` : "";
  return `${data.unit[0].toUpperCase()}${data.unit.slice(1)} ${t}: ${pair}${last ? told(data, last, last.updates.indexOf(t)) : "No level writes."}`;
}

// ---- the page
const QUESTION = "Which levels still speak French? Press Play: what does the next note of the slowest level take away?";
const ABOUT = {
  own: (periods) => `Attention keeps every pair, frozen weights learned French before the stream began. Between them ${periods.length === 1 ? "is one level" : `are ${periods.length} levels`}: each reads every pair, and writes once in its period.`,
  transformer: () => "A Transformer in use has the two ends only: a cache that takes in every pair, and weights that are never written.",
};

export function mount(root, { periods = [1, 16, 64], trace = "" } = {}) {
  const still = matchMedia("(prefers-reduced-motion: reduce)"), presets = { own: periods, transformer: [] };
  const ui = { pos: 0, playing: false, first: true, since: 0, last: 0, preset: "own", asked: false };
  let data = trace ? { lanes: [], length: 1, unit: "token" } : run(periods), spots = [], due = 0;

  root.classList.add("nlbook-live", "nlbook-score");
  root.innerHTML = `
    ${trace ? "" : `<div class="row" role="group" aria-label="Levels"><button type="button" data-preset="own">levels between</button><button type="button" data-preset="transformer">a Transformer</button></div><p class="about"></p>`}
    <canvas class="roll" role="img" tabindex="0"></canvas><i class="probe" hidden></i>
    <div class="row"><button type="button" class="play">Play</button><button type="button" class="back">Back</button><button type="button" class="step">Step</button>
      <input class="scrub" type="range" min="0" step="1" aria-label="playhead"><output class="where"></output></div>
    <p class="said" aria-live="polite"></p>
    <p class="fine">${trace ? "A note is a write: the larger, the more it moved. The line and the bar at the right are the size of what the lane holds. Point at a note." : "A note is a write. Strip below it: the pairs that the lane's weights give back now; full colour: exactly. Squares: the weights, a row a word, French left, German right; those that have just changed are framed. Point at a note to see what it read and erased."}</p>`;
  const $ = (q) => root.querySelector(q), roll = $(".roll"), scrub = $(".scrub"), pen = roll.getContext("2d");
  const calm = () => still.matches, rate = () => (trace ? Math.max(1, data.length / 12) : Math.min(14, 3 * Math.exp(Math.max(0, ui.since - 4) * 0.35))); // tokens a second
  const speak = (text) => { if ($(".said").textContent !== text) $(".said").textContent = text; };

  // ---- time
  function go(t) { ui.first = false; ui.playing = false; ui.pos = Math.max(0, Math.min(data.length, t)); show(); }
  function play(on) {
    if (on && ui.pos >= data.length) { ui.pos = 0; ui.since = 0; }
    ui.playing = on; ui.last = 0;
    show();
  }
  function show() { if (!due) due = requestAnimationFrame(frame); }
  function frame(now) {
    due = 0;
    if (!root.isConnected) return;
    if (ui.playing) {
      const dt = Math.min(0.1, (now - (ui.last || now)) / 1000), stop = ui.first && !trace ? SHOWN : data.length;
      ui.last = now; ui.since += dt;
      ui.pos = Math.min(stop, ui.pos + dt * rate());
      if (ui.pos === stop) { ui.asked = ui.first && !trace; ui.playing = ui.first = false; }
    }
    draw();
    if (ui.playing) show();
  }

  // ---- the picture
  function draw() {
    const pos = calm() ? Math.floor(ui.pos) : ui.pos; // no motion between two tokens
    const w = roll.clientWidth, narrow = w < 600, left = narrow ? 0 : 156, cell = narrow ? 5 : 8, right = trace ? 26 : 2 * D * cell + 16;
    const head = trace ? 12 : 44, tall = narrow ? 78 : 64, h = head + data.lanes.length * tall + 24, T = data.length, W = w - left - right, dpr = devicePixelRatio || 1;
    const t = Math.floor(pos + 1e-9), x = (s) => left + (s / T) * W, css = getComputedStyle(root), ink = css.color, probe = $(".probe");
    const colour = (name) => { probe.style.color = `var(--${name})`; return getComputedStyle(probe).color; }, learns = data.lanes.filter((l) => l.period && l.period !== Infinity && l.period < 1e300);
    const shade = (l) => { const i = learns.indexOf(l); return i < 0 ? colour(l.period ? "frozen" : "attention") : colour(`level${learns.length > 3 ? Math.min(6, i + 1) : [1, 3, 5][i]}`); };
    const type = (size, bold) => { pen.font = `${bold ? 600 : 400} ${size}px ${css.fontFamily}`; }, say = (text, at, y, align = "left") => { pen.textAlign = align; pen.fillText(text, at, y); };
    roll.style.height = `${h}px`;
    if (roll.width !== Math.round(w * dpr) || roll.height !== Math.round(h * dpr)) Object.assign(roll, { width: Math.round(w * dpr), height: Math.round(h * dpr) });
    pen.setTransform(dpr, 0, 0, dpr, 0, 0);
    pen.clearRect(0, 0, w, h);
    pen.textBaseline = "alphabetic"; pen.fillStyle = ink; spots = [];
    type(13);
    if (data.pairs) {
      say("in French", x(SWITCH / 2), 14, "center"); say("in German", x((SWITCH + T) / 2), 14, "center");
      type(11);
      ["French", "German"].forEach((name, i) => say(narrow ? name.slice(0, 2) : name, w - (9 - 6 * i) * cell, 36, "center"));
    }
    data.lanes.forEach((lane, i) => {
      const y = head + i * tall, line = y + (narrow ? 36 : 22), k = written(lane, t), n = lane.updates.length, last = k ? lane.updates[k - 1] : 0, tint = shade(lane);
      const age = (pos - last) / rate(), fresh = !k ? 0 : ui.playing ? (calm() ? 0 : Math.max(0, 1 - age / 0.7)) : Number(last === t);
      pen.fillStyle = tint; type(13, true); say(lane.name, 0, y + 14);
      const wide = pen.measureText(lane.name).width;
      pen.fillStyle = ink; type(12);
      const notes = n || lane.period !== Infinity ? `${k} note${k === 1 ? "" : "s"}` : "";
      if (narrow) say(`${lane.words}${notes && `, ${notes}`}`, wide + 8, y + 14); else { say(lane.words, 0, y + 31); say(notes, 0, y + 48); }
      pen.globalAlpha = 0.18; pen.fillRect(left, line, W, 1);
      const gap = n > 1 ? (W / T) * (lane.updates[n - 1] - lane.updates[0]) / (n - 1) : 99, fall = 0.45 * rate();
      pen.fillStyle = tint;
      lane.updates.forEach((u, j) => { // round where there is room, else a stroke; faint while it is still to come, falling just before
        const ahead = u - pos, falls = ui.playing && !calm() && ahead > 0 && ahead < fall, big = j === k - 1 ? fresh : 0;
        const at = falls ? line - (line - (narrow ? y + 20 : data.pairs ? 38 : y)) * (ahead / fall) : line, r = lane.change ? Math.max(2.5, Math.min(9, 3 * Math.sqrt(lane.weight[j]))) : 4.5;
        pen.globalAlpha = j < k || falls ? 1 : 0.22;
        if (gap > 7 || falls) { pen.beginPath(); pen.arc(x(u), at, r + 3 * big, 0, 7); pen.fill(); } else pen.fillRect(x(u) - 0.6, line - 6 - 3 * big, Math.max(1, Math.min(2, gap - 1)), 12 + 6 * big);
        spots.push({ x: x(u), y: line, lane, j });
      });
      pen.globalAlpha = 1;
      const top = line + 12, high = 16;
      if (lane.recall) {
        lane.recall[k].slice(0, t).forEach((r, s) => { const from = Math.round(x(s)); pen.globalAlpha = r; pen.fillRect(from, top, Math.round(x(s + 1)) - from, high); });
        pen.globalAlpha = fresh ? 1 : 0.3; pen.strokeStyle = fresh ? tint : ink; pen.lineWidth = 1 + fresh; pen.strokeRect(x(0) + 0.5, top - 0.5, W - 1, high + 1);
      } else if (lane.state && n) {
        const hi = Math.max(...lane.state), lo = Math.min(...lane.state), up = (s) => top + high - ((s - lo) / (hi - lo || 1)) * high;
        pen.strokeStyle = tint; pen.lineWidth = 1.5; pen.beginPath();
        lane.updates.slice(0, k).forEach((u, j) => { if (j) pen.lineTo(x(u), up(lane.state[j - 1])); pen[j ? "lineTo" : "moveTo"](x(u), up(lane.state[j])); });
        pen.stroke();
        if (k) { pen.globalAlpha = 0.45 + 0.55 * fresh; const size = (30 * lane.state[k - 1]) / (hi || 1); pen.fillRect(w - 16, y + 46 - size, 14, size); }
      }
      pen.globalAlpha = 1; pen.lineWidth = 1;
      if (lane.weights) {
        const x0 = w - 2 * D * cell, y0 = y + (narrow ? 26 : 6), before = k ? lane.weights[k - 1] : null;
        lane.weights[k].forEach((row, v) => row.forEach((m, c) => {
          const at = [x0 + v * cell, y0 + c * cell];
          pen.globalAlpha = 0.08; pen.fillStyle = ink; pen.fillRect(...at, cell - 1, cell - 1);
          pen.globalAlpha = Math.min(1, Math.abs(m)); pen.fillStyle = m < 0 ? ink : tint; pen.fillRect(...at, cell - 1, cell - 1);
          if (fresh && before && Math.abs(m - before[v][c]) > 0.02) { pen.globalAlpha = fresh; pen.strokeStyle = ink; pen.strokeRect(at[0] - 0.5, at[1] - 0.5, cell, cell); }
        }));
        pen.globalAlpha = 0.5; pen.fillStyle = ink; pen.fillRect(x0 + D * cell - 1, y0 - 2, 1, D * cell + 3);
      }
      pen.globalAlpha = 1; pen.fillStyle = pen.strokeStyle = ink;
      const from = narrow ? line - 12 : i ? y - 10 : y - 6, to = narrow ? top + high + 5 : y + tall - 10; // no line through a word
      const upright = (s, dash, width) => { pen.setLineDash(dash); pen.lineWidth = width; pen.beginPath(); pen.moveTo(x(s), from); pen.lineTo(x(s), to); pen.stroke(); pen.setLineDash([]); };
      if (data.pairs) upright(SWITCH, [2, 3], 1);
      upright(pos, [], 1.5);
      pen.lineWidth = 1;
    });
    const foot = h - 24, every = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000].find((e) => T / e <= (narrow ? 5 : 10)) || 10000;
    type(12);
    for (let s = 0; s <= T; s += every) { pen.fillRect(x(s), foot, 1, 4); say(s, x(s), foot + 17, s || left ? "center" : "left"); }
    if (data.pairs && t) { // the pair that is being read, at the playhead
      const { k, v } = data.pairs[t - 1], text = `${ENGLISH[k]} → ${SAID[v]}`;
      type(14, true);
      const half = pen.measureText(text).width / 2;
      say(text, Math.max(left + half, Math.min(left + W - half, x(pos))), 34, "center");
    }
    scrub.max = T; scrub.value = t;
    $(".where").textContent = `${data.unit} ${t} of ${T}`;
    $(".play").textContent = ui.playing ? "Pause" : "Play";
    root.querySelectorAll("[data-preset]").forEach((b) => b.setAttribute("aria-pressed", String(b.dataset.preset === ui.preset)));
    if (!trace) $(".about").textContent = ABOUT[ui.preset](periods);
    if (!ui.playing) { // who listens is told where it stands, not every frame
      speak(ui.asked && t === SHOWN ? QUESTION : standing(data, t));
      roll.setAttribute("aria-label", `Score of updates, ${data.unit} ${t} of ${T}, ${data.lanes.length} lanes, a note at each write: ${data.lanes.map((l) => `${l.name} ${written(l, t)}`).join(", ")}.`);
    }
    else { // the last note of a lane that writes seldom
      const seldom = data.lanes.filter((l) => l.updates.length < T / 4 && written(l, t)), last = seldom.reduce((a, l) => (!a || l.updates[written(l, t) - 1] >= a.updates[written(a, t) - 1] ? l : a), null);
      speak(last ? told(data, last, written(last, t) - 1) : data.pairs ? "Six words are said, first in French. Each level that writes learns them." : "");
    }
    root.nlbookFrames = (root.nlbookFrames || 0) + 1; // read by the browser test
  }

  // ---- a run of the reader's own: its data come in a script of their own, again and again while it is recorded
  function take() {
    const found = trace && window.nlbookTraces?.[trace], follows = !ui.first && ui.pos >= data.length;
    if (!found) return;
    const lanes = found.lanes.map((l) => {
      const moved = l.updates.map((_, j) => (l.change[j] || 0) / (l.state[j] || 1)), usual = [...moved].sort((a, b) => a - b)[moved.length >> 1] || 1;
      return { ...l, period: l.period ?? Infinity, weight: moved.map((m) => (2 * m) / usual) };
    });
    data = { ...found, lanes };
    if ((found.live && ui.first) || follows) { ui.first = false; ui.pos = data.length; } // who has moved the playhead is left there
    show();
  }

  // ---- hands
  $(".play").onclick = () => { ui.first = false; play(!ui.playing); };
  $(".back").onclick = () => go(Math.ceil(ui.pos) - 1);
  $(".step").onclick = () => go(Math.floor(ui.pos) + 1);
  scrub.oninput = () => go(Number(scrub.value));
  root.querySelectorAll("[data-preset]").forEach((b) => { b.onclick = () => { ui.preset = b.dataset.preset; data = run(presets[ui.preset]); show(); }; });
  roll.onkeydown = (ev) => {
    const to = { ArrowRight: Math.floor(ui.pos) + 1, ArrowLeft: Math.ceil(ui.pos) - 1, Home: 0, End: data.length }[ev.key];
    if (ev.key === " ") { ui.first = false; play(!ui.playing); } else if (to !== undefined && !ev.ctrlKey && !ev.metaKey && !ev.altKey) go(to); else return;
    ev.preventDefault(); ev.stopPropagation(); // the notebook must not take them for its own
  };
  roll.onpointerdown = roll.onpointermove = (ev) => {
    const box = roll.getBoundingClientRect(), at = [ev.clientX - box.left, ev.clientY - box.top], far = (s) => Math.hypot(s.x - at[0], (s.y - at[1]) / 2);
    const near = spots.reduce((a, s) => (!a || far(s) < far(a) ? s : a), null);
    if (near && far(near) < 12) { ui.asked = false; speak(told(data, near.lane, near.j)); }
  };
  const size = new ResizeObserver(show), seen = new IntersectionObserver(([at]) => {
    if (at.isIntersecting && ui.first && !ui.playing && !calm() && (!trace || data.lanes.length)) play(true);
    else if (!at.isIntersecting && ui.playing) play(false);
  }, { threshold: 0.3 });
  addEventListener("nlbook-trace", take);
  take();
  if (calm() && !trace) { ui.first = false; ui.asked = true; ui.pos = SHOWN; }
  size.observe(roll); seen.observe(root);
  show();
}
