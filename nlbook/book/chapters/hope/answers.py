"""Chapter 07: wrong answers that its checks must refuse, and right ones that they must accept."""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy, silu

from nlbook.book.chapters.hope import exercises as e
from nlbook.hope import plain
from nlbook.numerics import rms


# ---- write
def write_by_autograd(W, S, k, value, eta, alpha, residual=True):
    at = [w.detach().requires_grad_() for w in S]
    loss = 0.5 * (e.read(at, k, residual) - value).square().sum()
    slopes = torch.autograd.grad(loss, at)
    inputs = silu(S[1] @ k), k
    rates = [eta / (1 + eta * n @ n) for n in inputs]
    return tuple(
        w @ (alpha * torch.eye(len(n), dtype=w.dtype) - r * torch.outer(n, n)) - r * g
        for w, n, r, g in zip(W, inputs, rates, slopes)
    )


def write_in_steps(W, S, k, value, eta, alpha, residual=True):
    z = S[1] @ k
    s = 1 / (1 + torch.exp(-z))
    a = z * s
    error = S[0] @ a - value + (k if residual else 0)
    back = (error @ S[0]) * (s + a * (1 - s))
    rate1, rate2 = eta / (1 + eta * a.dot(a)), eta / (1 + eta * k.dot(k))
    W1 = W[0] * alpha - rate1 * (W[0] @ a)[:, None] * a - rate1 * error[:, None] * a
    W2 = W[1] * alpha - rate2 * (W[1] @ k)[:, None] * k - rate2 * back[:, None] * k
    return W1, W2


def write_erasing_first(W, S, k, value, eta, alpha, residual=True):
    z = S[1] @ k
    a, s = silu(z), torch.sigmoid(z)
    error = e.read(S, k, residual) - value
    errors = error, (S[0].T @ error) * s * (1 + z * (1 - s))
    out = []
    for w, n, grown in zip(W, (a, k), errors):
        step = eta / (1 + eta * n.square().sum())
        kept = alpha * w - step * torch.outer(w @ n, n)
        out.append(kept - step * torch.outer(grown, n))
    return out


# ---- five memories
def five_by_comprehension(W, S, past, taps, W_q, b, x):
    raw = [W_q @ x, e.read(S["k"], x), e.read(S["v"], x)]
    past = torch.stack([torch.stack([*old[1:], new]) for old, new in zip(past, raw)])
    q, k, v = (torch.nn.functional.normalize(silu((t * p).sum(0)), dim=0) for t, p in zip(taps, past))
    eta, alpha = (torch.sigmoid(S[n][0] @ silu(S[n][1] @ x) + b[n])[0] for n in ("eta", "alpha"))
    big = {"mem", "k", "v"}
    W = {n: e.write(W[n], S[n], k, e.read(S[n], v, n in big), eta, alpha, n in big) for n in W}
    return e.read(W["mem"], q), W, past


def five_one_by_one(W, S, past, taps, W_q, b, x):
    past = torch.cat([past, torch.stack([W_q @ x, e.read(S["k"], x), e.read(S["v"], x)])[:, None]], 1)[:, 1:]
    mixed = silu(torch.einsum("rtd,rtd->rd", taps, past))
    q, k, v = mixed / mixed.norm(dim=1, keepdim=True)
    eta = torch.sigmoid(e.read(S["eta"], x, False) + b["eta"])[0]
    alpha = torch.sigmoid(e.read(S["alpha"], x, False) + b["alpha"])[0]
    new = dict(W)
    for n in ("mem", "k", "v"):
        new[n] = e.write(W[n], S[n], k, e.read(S[n], v), eta, alpha)
    for n in ("eta", "alpha"):
        new[n] = e.write(W[n], S[n], k, e.read(S[n], v, False), eta, alpha, False)
    W1, W2 = new["mem"]
    return q + W1 @ silu(W2 @ q), new, past


def five_rolled(W, S, past, taps, W_q, b, x):
    past = past.roll(-1, 1)
    past[:, -1] = torch.stack([W_q @ x, e.read(S["k"], x), e.read(S["v"], x)])
    q, k, v = e.unit(silu((taps * past).sum(1)))
    gate = {n: torch.sigmoid(e.read(S[n], x, False).squeeze() + b[n]) for n in e.GATES}
    new = {}
    for n, w in W.items():
        new[n] = e.write(w, S[n], k, e.read(S[n], v, n not in e.GATES), gate["eta"], gate["alpha"], n not in e.GATES)
    return e.read(new["mem"], q), new, past


# ---- levels
def slopes_by_backward(up, down, share, n, rest, head, token):
    up, down = ([w.clone().requires_grad_() for w in ws] for ws in (up, down))
    logits = head @ rms(rest + e.say(up, down, share, n))
    cross_entropy(logits[None], torch.tensor([token])).backward()
    return [w.grad for w in up], [w.grad for w in down]


def slopes_by_hand(up, down, share, n, rest, head, token):
    y = rest + e.say(up, down, share, n)
    r = rms(y)
    error = (torch.softmax(head @ r, 0) - torch.eye(len(head), dtype=y.dtype)[token]) @ head
    error = (y.square().mean() + 1e-6).rsqrt() * (error - r * (error * r).mean())
    found = []
    for U, D, p in zip(up, down, share):
        z = U @ n
        s = torch.sigmoid(z)
        found.append((torch.outer(p * (D.T @ error) * s * (1 + z * (1 - s)), n), torch.outer(p * error, silu(z))))
    return [u for u, _ in found], [d for _, d in found]


def slopes_by_func(up, down, share, n, rest, head, token):
    def loss(both):
        logits = head @ rms(rest + e.say(*both, share, n))
        return logits.logsumexp(0) - logits[token]

    return torch.func.grad(loss)((list(up), list(down)))


def tick_by_total(w, waiting, slope, rate, period, ends):
    if len(waiting) + 1 < period and not ends:
        return w, [*waiting, slope]
    return w - rate * torch.stack([*waiting, slope]).sum(0), []


def tick_in_steps(w, waiting, slope, rate, period, ends):
    waiting = list(waiting)
    waiting.append(slope)
    if len(waiting) % period == 0 or ends:
        for g in waiting:
            w = w - rate * g
        waiting = []
    return w, waiting


def tick_by_slice(w, waiting, slope, rate, period, ends):
    heard = [*waiting, slope]
    move = heard if ends or len(heard) >= period else []
    return (w - rate * sum(move) if move else w), heard[len(move) :]


# ---- block, model, lives
def block_in_steps(w, s, x, chunk):
    new = dict(s)
    new["n"] = rms(x)
    o, new["W"], new["past"] = e.self_modify(s["W"], s["S"], s["past"], w["taps"], w["W_q"], w["b"], new["n"])
    gate = w["W_g"] @ new["n"]
    new["h"] = x + w["W_o"] @ (gate * torch.sigmoid(gate) * rms(o))
    new["seen"] += 1
    if not new["seen"] % chunk:
        new["S"] = new["W"]
    return new["h"] + e.say(s["up"], s["down"], w["share"], new["n"]), new


def block_by_sum(w, s, x, chunk):
    n = x / (x.square().mean() + 1e-6).sqrt()
    o, W, past = e.self_modify(s["W"], s["S"], s["past"], w["taps"], w["W_q"], w["b"], n)
    h = x + torch.einsum("oi,i->o", w["W_o"], rms(o) * silu(w["W_g"] @ n))
    levels = zip(s["up"], s["down"], w["share"])
    y = h + torch.stack([p * (D @ silu(U @ n)) for U, D, p in levels]).sum(0)
    seen = s["seen"] + 1
    return y, s | {"W": W, "S": s["S"] if seen % chunk else W, "past": past, "seen": seen, "n": n, "h": h}


def block_saying_first(w, s, x, chunk):
    n = rms(x)
    said = e.say(s["up"], s["down"], w["share"], n)
    o, W, past = e.self_modify(s["W"], s["S"], s["past"], w["taps"], w["W_q"], w["b"], n)
    h = x + (rms(o) * silu(n @ w["W_g"].T)) @ w["W_o"].T
    state = dict(s, W=W, past=past, n=n, h=h, seen=s["seen"] + 1)
    state["S"] = W if state["seen"] % chunk == 0 else s["S"]
    return h + said, state


def hope_of_the_library(weights, tokens, periods, chunk=16, boundary=None):
    return plain.hope(weights, tokens, periods, chunk, boundary)


def hope_in_passes(weights, tokens, periods, chunk=16, boundary=None):
    head, blocks = weights["embedding"], e.unpack(weights)
    states, y, logits = [e.begin(w) for w in blocks], None, []
    for token in tokens.tolist():
        if y is not None:
            states = [e.learn(w, s, y, head, token, periods, token == boundary) for w, s in zip(blocks, states)]
        if token == boundary:
            states = [e.begin(w, s) for w, s in zip(blocks, states)]
        y, through = head[token], []
        for w, s in zip(blocks, states):
            y, s = e.block(w, s, y, chunk)
            through.append(s)
        states = through
        logits.append(head @ rms(y))
    return torch.stack(logits)


def hope_learning_ahead(weights, tokens, periods, chunk=16, boundary=None):
    head, blocks = weights["embedding"], e.unpack(weights)
    states, logits = [e.begin(w) for w in blocks], []
    for token, after in zip(tokens.tolist(), [*tokens[1:].tolist(), None]):
        x = head[token]
        for i, w in enumerate(blocks):
            x, states[i] = e.block(w, states[i], x, chunk)
        for i, w in enumerate(blocks):
            if after is not None:
                states[i] = e.learn(w, states[i], x, head, after, periods, after == boundary)
                states[i] = e.begin(w, states[i]) if after == boundary else states[i]
        logits.append(rms(x) @ head.T)
    return torch.stack(logits)


def lives_by_sums(streams):
    return [(sum(d), sum(map(sum, s[: i + 1]))) for s in streams for i, d in enumerate(s)]


def lives_in_a_function(streams):
    def one(documents):
        level = 0
        for document in documents:
            level += sum(document)
            yield sum(document), level

    return [pair for documents in streams for pair in one(documents)]


def lives_by_dict(streams):
    told = []
    for documents in streams:
        state = {"level": 0}
        for document in documents:
            state["mixer"] = 0
            for x in document:
                state = {name: value + x for name, value in state.items()}
            told.append((state["mixer"], state["level"]))
    return told


MUTANTS = {
    "07-loss": {"minus": lambda *x: tuple([-g for g in gs] for gs in e.slopes(*x))},
    "07-lives": {
        "the other way round": lambda s: [(b, a) for a, b in e.lives(s)],
        "one too many": lambda s: [(a + 1, b) for a, b in e.lives(s)],
        "without the first": lambda s: [(a, b - s[0][0][0]) for a, b in e.lives(s)],
    },
    "07-picture": {"nothing": 0.0, "chance": 0.125, "of the document": 0.91, "of A alone": 0.54},
}
ACCEPTED = {
    "07-write": {"autograd": write_by_autograd, "in steps": write_in_steps, "erasing first": write_erasing_first},
    "07-five": {"comprehension": five_by_comprehension, "one by one": five_one_by_one, "rolled": five_rolled},
    "07-loss": {"backward": slopes_by_backward, "by hand": slopes_by_hand, "torch.func": slopes_by_func},
    "07-clock": {"total": tick_by_total, "in steps": tick_in_steps, "slices": tick_by_slice},
    "07-block": {"in steps": block_in_steps, "by sum": block_by_sum, "saying first": block_saying_first},
    "07-hope": {
        "the library's": hope_of_the_library,
        "in passes": hope_in_passes,
        "learning ahead": hope_learning_ahead,
    },
    "07-lives": {"sums": lives_by_sums, "a function": lives_in_a_function, "a dict": lives_by_dict},
    "07-picture": {"read off": 0.63, "another digit": 0.627, "a little less": 0.62},
}
