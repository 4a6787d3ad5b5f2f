// Memories that are small enough to be computed in the page. Plain state in, plain state out: no page, no clock.
// The same rules as the Python library, and tested equal to it: `additive` of nlbook.cms, `hope` of nlbook.hope.plain.

// ---- arithmetic: a matrix is an array of rows
export const dot = (a, b) => { let s = 0; for (let i = 0; i < a.length; i++) s += a[i] * b[i]; return s; };
export const zeros = (n) => new Array(n).fill(0);
export const matrix = (rows, columns) => Array.from({ length: rows }, () => zeros(columns));
export const times = (M, x) => M.map((row) => dot(row, x));
export const plus = (a, b) => a.map((x, i) => x + b[i]);
export const softmax = (z) => { const top = Math.max(...z), e = z.map((x) => Math.exp(x - top)), s = e.reduce((a, b) => a + b, 0); return e.map((x) => x / s); };

// ---- levels that add up (nlbook.cms.additive): y = sum of M_l k; every level gathers g k^T and moves once a period.
// A clock: { rate, period, ends, keep, on }. ends: contexts after which the level starts again from zero (0: never).
export const startLevels = (clocks, dv, dk) => ({ contexts: 0, levels: clocks.map(() => ({ M: matrix(dv, dk), waiting: matrix(dv, dk), age: 0 })) });

export function endContext(state, clocks) {
  const contexts = state.contexts + 1;
  const levels = state.levels.map((l, i) => (clocks[i].ends && contexts % clocks[i].ends === 0 ? { M: l.M.map((r) => r.map(() => 0)), waiting: l.M.map((r) => r.map(() => 0)), age: 0 } : l));
  return { contexts, levels };
}

// Read k, then learn v: { state, y, parts (what each level says), moved (did it move), gone (the change of its matrix) }.
export function learn(state, clocks, k, v, loss = "squared") {
  const parts = state.levels.map((l, i) => (clocks[i].on === false ? zeros(v.length) : times(l.M, k)));
  const y = parts.reduce(plus), said = loss === "softmax" ? softmax(y) : y, g = said.map((x, i) => x - v[i]);
  const moved = [], gone = [];
  const levels = state.levels.map((l, i) => {
    const { rate, period = 1, keep = 1, on = true } = clocks[i];
    moved.push(false); gone.push(null);
    if (!on) return l;
    const waiting = l.waiting.map((row, r) => row.map((x, c) => x + g[r] * k[c]));
    const faded = keep < 1 ? l.M.map((row) => row.map((x) => keep * x)) : l.M;
    if (l.age + 1 < period) return { M: faded, waiting, age: l.age + 1 };
    const M = faded.map((row, r) => row.map((x, c) => x - rate * waiting[r][c]));
    moved[i] = true;
    gone[i] = M.map((row, r) => row.map((x, c) => x - l.M[r][c]));
    return { M, waiting: matrix(v.length, k.length), age: 0 };
  });
  return { state: { ...state, levels }, y, parts, moved, gone };
}

// ---- Hope, token by token (nlbook.hope.plain): weights is its state_dict as nested arrays, sizes { periods, chunk, boundary }
const silu = (z) => z.map((x) => x / (1 + Math.exp(-x)));
const slope = (z) => z.map((x) => { const s = 1 / (1 + Math.exp(-x)); return s * (1 + x * (1 - s)); });
const sigmoid = (x) => 1 / (1 + Math.exp(-x));
const scaled = (x, s) => x.map((v) => v * s);
const rms = (x) => scaled(x, 1 / Math.sqrt(dot(x, x) / x.length + 1e-6));
const unit = (x) => scaled(x, 1 / Math.sqrt(dot(x, x) + 1e-12));
const back = (M, e) => M[0].map((_, c) => M.reduce((s, row, r) => s + row[c] * e[r], 0)); // M^T e
function rmsBack(e, x) { const n = rms(x), s = dot(e, n) / n.length; return scaled(e.map((v, i) => v - n[i] * s), 1 / Math.sqrt(dot(x, x) / x.length + 1e-6)); }

class Memory {
  constructor(W1, W2, chunk, residual) { Object.assign(this, { now: [W1, W2], start: [W1, W2], chunk, residual, seen: 0, moved: 0 }); }
  read(x, [W1, W2] = this.start) { const said = times(W1, silu(times(W2, x))); return this.residual ? plus(said, x) : said; }
  write(k, value, eta, alpha) {
    const z = times(this.start[1], k), a = silu(z), error = this.read(k).map((y, i) => y - value[i]);
    const inner = back(this.start[0], error).map((e, i) => e * slope(z)[i]);
    this.moved = 0;
    this.now = [[a, error], [k, inner]].map(([n, e], j) => {
      const W = this.now[j], rate = eta / (1 + eta * dot(n, n)), said = times(W, n);
      return W.map((row, r) => row.map((w, c) => {
        const next = alpha * w - rate * (said[r] + e[r]) * n[c];
        this.moved += (next - w) ** 2;
        return next;
      }));
    });
    this.seen += 1;
    if (this.seen % this.chunk === 0) this.start = this.now;
  }
}

class Titans { // one head: five memories make key, value, rate, retention and answer, and all learn
  constructor(p, head, chunk, held) {
    const memory = (name, j, residual = true) => new Memory(p[`initial.${name}_W1`][head][j], p[`initial.${name}_W2`][head][j], chunk, residual);
    this.parts = { M: memory("mem", 0), M_k: memory("proj", 0), M_v: memory("proj", 1), M_eta: memory("gate", 0, false), M_alpha: memory("gate", 1, false) };
    const width = p.taps[head][0][0].length;
    Object.assign(this, { held, taps: p.taps[head], bias: [p.b_eta[head], p.b_alpha[head]], W_q: p.W_q.slice(head * width, (head + 1) * width) });
    this.rows = this.taps.map((t) => t.map(() => zeros(width)));
  }
  token(x, own) {
    const { M, M_k, M_v, M_eta, M_alpha } = this.parts, made = [times(this.W_q, x), M_k.read(own), M_v.read(own)];
    this.rows = this.rows.map((past, i) => [...past.slice(1), made[i]]);
    const [q, k, v] = this.rows.map((past, i) => unit(silu(past.reduce((sum, row, j) => sum.map((s, c) => s + this.taps[i][j][c] * row[c]), zeros(past[0].length)))));
    this.eta = sigmoid(M_eta.read(own)[0] + this.bias[0]); this.alpha = sigmoid(M_alpha.read(own)[0] + this.bias[1]);
    for (const [name, each] of Object.entries(this.parts)) if (!this.held.has(name)) each.write(k, each.read(v), this.eta, this.alpha); else each.moved = 0;
    return M.read(q, M.now);
  }
}

class Level { // one MLP of the continuum memory system: it moves once in `period` tokens, by what they said
  constructor(p, i, period) {
    Object.assign(this, { up: p[`mlp.up.${i}`], down: p[`mlp.down.${i}`], rate: Math.exp(p["mlp.log_lr"][i]), share: softmax(p["mlp.mix"])[i] });
    Object.assign(this, { gate: p.gate[i], bias: p.gate_bias[i], period, moved: 0 });
    this.empty();
  }
  empty() { this.sums = [matrix(this.up.length, this.up[0].length), matrix(this.down.length, this.down[0].length)]; this.seen = 0; }
  read(n) { return scaled(times(this.down, silu(times(this.up, n))), this.share); }
  learn(n, h, wrong) {
    const z = times(this.up, n), a = silu(z), error = scaled(wrong, this.share), inner = back(this.down, error).map((e, i) => e * slope(z)[i]);
    const weight = 2 * sigmoid(dot(this.gate, rms(h)) + this.bias);
    this.sums = [[inner, n], [error, a]].map(([e, x], j) => this.sums[j].map((row, r) => row.map((s, c) => s + weight * e[r] * x[c])));
    this.seen += 1;
    if (this.seen === this.period) this.move();
  }
  move() {
    const next = [this.up, this.down].map((W, j) => W.map((row, r) => row.map((w, c) => w - this.rate * this.sums[j][r][c])));
    this.moved = this.sums.reduce((s, M) => s + M.reduce((a, row) => a + dot(row, row), 0), 0) * this.rate ** 2;
    [this.up, this.down] = next;
    this.empty();
  }
}

// A reader: read(token) gives the logits of the next one. held: names of parts that do not learn ("M" ... "level 0").
export class Hope {
  constructor(weights, { periods, chunk, boundary = null }, held = new Set()) {
    Object.assign(this, { embedding: weights.embedding, boundary, held, count: 0 });
    this.blocks = [];
    for (let i = 0; `blocks.${i}.W_g` in weights; i++) {
      const part = (name) => Object.fromEntries(Object.entries(weights).filter(([k]) => k.startsWith(name)).map(([k, w]) => [k.slice(name.length), w]));
      const mixer = part(`blocks.${i}.mixer.`), own = part(`blocks.${i}.`);
      const block = { W_g: weights[`blocks.${i}.W_g`], W_o: weights[`blocks.${i}.W_o`], levels: periods.map((c, j) => new Level(own, j, c)) };
      block.begin = () => { block.heads = mixer.taps.map((_, h) => new Titans(mixer, h, chunk, held)); for (const l of block.levels) l.move(); };
      block.begin();
      this.blocks.push(block);
    }
  }
  read(token) {
    for (const block of this.blocks) {
      for (const l of block.levels) l.moved = 0;
      if (this.count) this.learn(block, token);
      if (token === this.boundary) block.begin();
    }
    let x = this.embedding[token];
    for (const block of this.blocks) {
      const n = rms(x), width = n.length / block.heads.length;
      const o = rms(block.heads.flatMap((head, i) => head.token(n, n.slice(i * width, (i + 1) * width)))), gate = silu(times(block.W_g, n));
      const h = plus(x, times(block.W_o, o.map((v, i) => v * gate[i])));
      x = block.levels.reduce((sum, l) => plus(sum, l.read(n)), h);
      block.waiting = { n, h };
    }
    this.said = x;
    this.count += 1;
    return times(this.embedding, rms(x));
  }
  learn(block, token) { // the token that came is the answer to the one before; the last block's error goes to all
    const { n, h } = block.waiting, y = this.said, surprise = softmax(times(this.embedding, rms(y)));
    surprise[token] -= 1;
    const error = rmsBack(back(this.embedding, surprise), y);
    block.levels.forEach((l, i) => { if (!this.held.has(`level ${i}`)) l.learn(n, h, error); });
  }
}
