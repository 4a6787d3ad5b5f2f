// The score of updates in motion: a lane a level, a note at each write, the strip of what the lane's memory gives back,
// and its weights. Canvas and DOM only: no library, no import, no network. Space plays, arrows step, Home and End jump.
const LANE = 62, TOP = 24, LEFT = 176, RIGHT = 62, AXIS = 34;

function render({ model, el }) {
  const media = window.matchMedia("(prefers-reduced-motion: reduce)"), calm = () => media.matches;
  const make = (tag, parent, text) => { const e = document.createElement(tag); if (text) e.textContent = text; parent.append(e); return e; };
  el.classList.add("nlbook-score");
  el.tabIndex = 0;
  el.setAttribute("role", "group");
  el.setAttribute("aria-label", "Score of updates. Space plays and pauses, arrow keys step, Home and End jump.");
  const bar = make("div", el);
  bar.className = "nlbook-bar";
  const play = make("button", bar), back = make("button", bar, "Back"), step = make("button", bar, "Step");
  for (const b of [play, back, step]) b.type = "button";
  const slider = make("input", bar);
  Object.assign(slider, { type: "range", min: 0, step: 1 });
  slider.setAttribute("aria-label", "token");
  const speed = make("select", bar);
  speed.setAttribute("aria-label", "tokens per second");
  for (const s of [4, 16, 64]) make("option", speed, `${s} per second`).value = s;
  speed.value = calm() ? 4 : 16;
  const now = make("span", bar);
  now.className = "nlbook-now";
  const canvas = make("canvas", el), ctx = canvas.getContext("2d");
  canvas.setAttribute("role", "img");
  const said = make("div", el);
  said.className = "nlbook-said";
  said.setAttribute("aria-live", "polite");

  let lanes, blob, T, pos = 0, playing = false, last = 0, raf = 0, sent = -1, sentAt = 0, width = 0;
  el.nlbookFrames = 0; // read by the browser test

  function load() {
    lanes = model.get("lanes");
    const raw = model.get("blob");
    blob = new Uint8Array(raw.buffer, raw.byteOffset, raw.byteLength);
    T = model.get("length");
    slider.max = T;
    pos = Math.min(model.get("position"), T);
    size(true);
  }
  function size(force) {
    const w = Math.max(420, Math.min(920, el.clientWidth || 700)), h = TOP + lanes.length * LANE + AXIS;
    if (w === width && force !== true) return;
    width = w;
    const dpr = window.devicePixelRatio || 1;
    Object.assign(canvas.style, { width: w + "px", height: h + "px" });
    Object.assign(canvas, { width: w * dpr, height: h * dpr });
    ctx.setTransform(dpr, 0, 0, dpr, 0, 0);
    kick();
  }
  function written(lane, t) { // how many of its writes lie at or before token t
    let a = 0, b = lane.updates.length;
    while (a < b) { const m = (a + b) >> 1; if (lane.updates[m] <= t) a = m + 1; else b = m; }
    return a;
  }
  function words(t) {
    const wrote = lanes.filter((l) => !l.weightless && l.updates.includes(t)).map((l) => l.name);
    const unit = model.get("unit");
    if (t === 0) return `Before the first ${unit}: nothing is written yet.`;
    return `${unit[0].toUpperCase() + unit.slice(1)} ${t}: ` + (wrote.length ? wrote.join(", ") + (wrote.length > 1 ? " write." : " writes.") : "no level writes.");
  }
  function draw() {
    const t = Math.floor(pos), W = width - LEFT - RIGHT, x = (s) => LEFT + ((s - 0.5) / T) * W, bottom = TOP + lanes.length * LANE;
    const font = (px, bold) => { ctx.font = `${bold ? "bold " : ""}${px}px sans-serif`; };
    ctx.globalAlpha = 1;
    ctx.fillStyle = "#fff"; ctx.fillRect(0, 0, width, bottom + AXIS);
    ctx.textBaseline = "middle";
    const sw = model.get("switch");
    font(12);
    if (sw) {
      ctx.fillStyle = "#333"; ctx.textAlign = "center";
      ctx.fillText("task A", (x(1) + x(sw)) / 2, 11); ctx.fillText("task B", (x(sw) + x(T + 1)) / 2, 11);
      ctx.strokeStyle = "#333"; ctx.setLineDash([2, 3]); ctx.beginPath(); ctx.moveTo(x(sw), 16); ctx.lineTo(x(sw), bottom); ctx.stroke(); ctx.setLineDash([]);
    }
    if (lanes.some((l) => l.weights !== undefined)) { ctx.fillStyle = "#333"; ctx.textAlign = "center"; ctx.fillText("weights", width - RIGHT / 2, 11); }
    lanes.forEach((lane, i) => {
      const y = TOP + i * LANE, line = y + 20, k = written(lane, t), n = lane.updates.length;
      const lastUp = k ? lane.updates[k - 1] : 0, fresh = k && !calm() && !lane.weightless ? Math.max(0, 1 - (pos - lastUp) / Math.max(2, T / 60)) : 0;
      ctx.textAlign = "right"; ctx.fillStyle = lane.color; font(13, true); ctx.fillText(lane.name, LEFT - 8, y + 13);
      ctx.fillStyle = "#333"; font(11.5); ctx.fillText(lane.words, LEFT - 8, y + 30);
      if (n) ctx.fillText(`${k} note${k === 1 ? "" : "s"}` + (lane.weightless || !k ? "" : `, last at ${lastUp}`), LEFT - 8, y + 46);
      ctx.strokeStyle = "#e4e4e4"; ctx.lineWidth = 1; ctx.beginPath(); ctx.moveTo(x(0.5), line); ctx.lineTo(x(T + 0.5), line); ctx.stroke();
      const gap = n > 1 ? (W / T) * ((lane.updates[n - 1] - lane.updates[0]) / (n - 1)) : 99;
      lane.updates.forEach((u, j) => { // a round note where there is room, else a stroke; faint when it is still to come
        ctx.globalAlpha = j < k ? 1 : 0.22; ctx.fillStyle = lane.color;
        const big = j === k - 1 ? fresh : 0;
        if (gap > 8) { ctx.beginPath(); ctx.arc(x(u), line, 4.5 + 3.5 * big, 0, 7); ctx.fill(); }
        else ctx.fillRect(x(u) - 0.6, line - 7 - 3 * big, Math.max(1, Math.min(2, gap - 1)), 14 + 6 * big);
      });
      ctx.globalAlpha = 1;
      const top = y + 34, high = 14;
      if (lane.recall !== undefined) {
        const row = lane.recall + k * T;
        ctx.fillStyle = lane.color;
        for (let s = 1; s <= t; s++) { ctx.globalAlpha = blob[row + s - 1] / 255; ctx.fillRect(x(s - 0.5), top, W / T + 0.3, high); }
        ctx.globalAlpha = 1; ctx.strokeStyle = "#d0d0d0"; ctx.strokeRect(x(0.5), top, W, high);
      } else if (lane.signal) {
        const known = lane.signal.filter((v) => v !== null), lo = Math.min(...known), span = Math.max(...known) - lo || 1;
        ctx.strokeStyle = lane.color; ctx.lineWidth = 1.5; ctx.beginPath();
        let pen = false;
        for (let s = 0; s <= t && s < lane.signal.length; s++) {
          if (lane.signal[s] === null) continue;
          const yy = top + high - ((lane.signal[s] - lo) / span) * high;
          if (pen) ctx.lineTo(x(s), yy); else ctx.moveTo(x(s), yy);
          pen = true;
        }
        ctx.stroke();
      }
      if (lane.weights !== undefined) {
        const rows = lane.rows, cols = lane.columns, cell = 44 / Math.max(rows, cols), from = lane.weights + k * rows * cols, x0 = width - RIGHT + 9;
        for (let r = 0; r < rows; r++) for (let c = 0; c < cols; c++) {
          const v = (blob[from + r * cols + c] - 128) / 127, fade = Math.round(255 * (1 - Math.min(1, Math.abs(v))));
          ctx.fillStyle = v > 0 ? `rgb(${170 + Math.round(85 * (fade / 255))},${fade},${fade})` : `rgb(${fade},${Math.round(70 + 185 * (fade / 255))},${Math.round(160 + 95 * (fade / 255))})`;
          ctx.fillRect(x0 + c * cell, y + 6 + r * cell, cell + 0.3, cell + 0.3);
        }
        ctx.strokeStyle = fresh > 0 ? lane.color : "#d0d0d0"; ctx.lineWidth = fresh > 0 ? 3 : 1; ctx.strokeRect(x0 - 1, y + 5, 46, 46); ctx.lineWidth = 1;
      }
    });
    ctx.fillStyle = "#333"; ctx.textAlign = "center"; font(11.5);
    const every = [1, 5, 10, 25, 50, 100, 250, 500, 1000].find((e) => T / e <= 10) || 5000;
    for (let s = 0; s <= T; s += every) { ctx.fillRect(x(s), bottom, 1, 4); ctx.fillText(s, x(s), bottom + 12); }
    ctx.fillText(model.get("unit") + (lanes[0].recall !== undefined ? "   (strip: what the lane's memory gives back now; full colour: exactly)" : ""), LEFT + W / 2, bottom + 26);
    const xn = x(Math.min(pos, T) + 0.5);
    ctx.strokeStyle = "#000"; ctx.lineWidth = 1.5; ctx.beginPath(); ctx.moveTo(xn, 18); ctx.lineTo(xn, bottom); ctx.stroke(); ctx.lineWidth = 1;
    slider.value = t;
    now.textContent = `${model.get("unit")} ${t} of ${T}`;
    if (!playing && said.textContent !== words(t)) { // a screen reader is told where it stands, not every frame
      said.textContent = words(t);
      canvas.setAttribute("aria-label", `${words(t)} ${model.get("alt")}`);
    }
    el.nlbookFrames++;
  }
  function share(time, force) { // tell Python where we are, at most 10 times a second
    const t = Math.floor(pos);
    if (t !== sent && (force || time - sentAt > 100)) { sent = t; sentAt = time; model.set("position", t); model.save_changes(); }
  }
  function frame(time) {
    raf = 0;
    if (playing) {
      const dt = last ? Math.min(0.25, (time - last) / 1000) : 0;
      last = time;
      pos = Math.min(T, pos + dt * Number(speed.value));
      if (pos >= T) setPlaying(false);
      else share(time);
    }
    const shown = pos;
    if (calm()) pos = Math.floor(pos); // no motion between two tokens
    draw();
    pos = shown;
    if (playing) kick();
  }
  function kick() { if (!raf) raf = requestAnimationFrame(frame); }
  function setPlaying(on) {
    if (on && pos >= T) pos = 0;
    playing = on; last = 0;
    play.textContent = on ? "Pause" : "Play";
    if (model.get("playing") !== on) { model.set("playing", on); model.save_changes(); }
    if (!on) share(performance.now(), true);
    kick();
  }
  function go(t) {
    if (playing) setPlaying(false);
    pos = Math.max(0, Math.min(T, t));
    share(performance.now(), true);
    kick();
  }
  play.onclick = () => setPlaying(!playing);
  back.onclick = () => go(Math.ceil(pos) - 1);
  step.onclick = () => go(Math.floor(pos) + 1);
  slider.oninput = () => go(Number(slider.value));
  el.addEventListener("keydown", (e) => {
    const keys = { " ": () => setPlaying(!playing), ArrowRight: () => go(Math.floor(pos) + 1), ArrowLeft: () => go(Math.ceil(pos) - 1), Home: () => go(0), End: () => go(T) };
    if (e.target !== el || !keys[e.key] || e.ctrlKey || e.metaKey || e.altKey) return; // buttons and sliders keep their own keys
    keys[e.key]();
    e.preventDefault(); e.stopPropagation(); // the notebook must not take them for its own
  });
  const onData = () => load();
  const onPosition = () => { const t = model.get("position"); if (t !== Math.floor(pos) && !playing) { pos = t; sent = t; kick(); } };
  const onPlaying = () => { if (model.get("playing") !== playing) setPlaying(model.get("playing")); };
  model.on("change:version", onData); model.on("change:position", onPosition); model.on("change:playing", onPlaying);
  load();
  setPlaying(model.get("playing"));
  const watch = new ResizeObserver(() => size());
  watch.observe(el);
  return () => {
    cancelAnimationFrame(raf); watch.disconnect();
    model.off("change:version", onData); model.off("change:position", onPosition); model.off("change:playing", onPlaying);
  };
}
export default { render };
