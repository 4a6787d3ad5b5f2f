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
