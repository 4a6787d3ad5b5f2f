"""Chapter 05: wrong answers that its checks must refuse, and right ones that they must accept."""

from __future__ import annotations

import torch


def level(W0, X, Y, lr, period, *, shift=0, stop=None, at_start=False):
    out = []
    for x, y in zip(X, Y):
        W, T = W0.clone(), len(x) if stop is None else min(stop, len(x))
        for end in range(period, T + 1, period):
            at = W0 if at_start else W
            rows = range(end - period + shift, min(end + shift, len(x)))
            W = W - lr * sum(torch.outer(at @ x[i] - y[i], x[i]) for i in rows)
        out.append(W)
    return torch.stack(out)


def level_by_buffer(W0, X, Y, lr, period):
    W = W0.repeat(len(X), 1, 1)
    buffer = torch.zeros_like(W)
    for t in range(X.shape[1]):
        buffer = buffer + ((W @ X[:, t, :, None])[..., 0] - Y[:, t])[..., None] * X[:, t, None]
        if (t + 1) % period == 0:
            W, buffer = W - lr * buffer, torch.zeros_like(W)
    return W


def level_by_moments(W0, X, Y, lr, period):
    W = W0.expand(len(X), *W0.shape)
    for k in range(X.shape[1] // period):
        x, y = X[:, k * period : (k + 1) * period], Y[:, k * period : (k + 1) * period]
        W = W @ (torch.eye(X.shape[2], dtype=X.dtype) - lr * x.mT @ x) + lr * y.mT @ x
    return W


def forward_by_levels(x, W):
    h = x.clone()
    for i in range(0, len(W), 2):
        h = h + torch.einsum("dh,h->d", W[i + 1], torch.tanh(torch.einsum("hd,d->h", W[i], h)))
    return h


def forward_recursive(x, W):
    return x if not W else forward_recursive(x + torch.mv(W[1], torch.mv(W[0], x).tanh()), W[2:])


def forward_in_place(x, W):
    h = x.clone()
    for up, down in zip(W[0::2], W[1::2]):
        h += down @ (up @ h).tanh()
    return h


def by_formulas(x, target, W, waiting, t, periods, lr):
    """Backpropagation by hand."""
    h, tape = x, []
    for up, down in zip(W[::2], W[1::2]):
        a = torch.tanh(up @ h)
        tape.append((h, a))
        h = h + down @ a
    e, grads = h - target, []
    for (before, a), up, down in zip(tape[::-1], W[-2::-2], W[::-2]):
        dz = (down.T @ e) * (1 - a * a)
        grads = [torch.outer(dz, before), torch.outer(e, a), *grads]
        e = e + up.T @ dz
    waiting = [a + b for a, b in zip(waiting, grads)]
    due = [t % periods[i // 2] == 0 for i in range(len(W))]
    new = [w - lr * g / periods[i // 2] if d else w for i, (w, g, d) in enumerate(zip(W, waiting, due))]
    return h, new, [0 * g if d else g for g, d in zip(waiting, due)]


def by_backward(x, target, W, waiting, t, periods, lr, *, sign=1, skip=False, chain=True):
    W = [w.clone().requires_grad_() for w in W]
    y = forward_by_levels(x, W) if chain else x + sum(d @ torch.tanh(u @ x) for u, d in zip(W[::2], W[1::2]))
    (0.5 * ((y - target) ** 2).sum()).backward()
    new, left = [], []
    for i, w in enumerate(W):
        g = waiting[i] + w.grad
        if skip and i >= 2:
            g = waiting[i]
        move = t % periods[i // 2] == 0
        new.append((w - sign * lr * g / periods[i // 2]).detach() if move else w.detach())
        left.append(torch.zeros_like(g) if move else g)
    return y.detach(), new, left


def by_levels(x, target, W, waiting, t, periods, lr):
    y, new, left = by_formulas(x, target, W, waiting, t, [10**9] * len(periods), lr)
    for level, C in enumerate(periods):
        if t % C == 0:
            for i in (2 * level, 2 * level + 1):
                new[i], left[i] = new[i] - left[i] * (lr / C), torch.zeros_like(left[i])
    return y, new, left


def nest(restart=True, order="learn first", clear=True, mean=False, sign=1):
    def answer(start, grads, lr, fast, slow, rho):
        w, waiting, clock = start, torch.zeros_like(start), 0
        for t in range(1, len(grads) + 1):
            waiting, clock = waiting + grads[t - 1], clock + 1
            if clock == fast:
                w, waiting, clock = w - sign * lr * waiting / (fast if mean else 1), torch.zeros_like(start), 0
            if t % slow == 0:
                moved = (1 - rho) * start + rho * w
                w = (moved if order == "learn first" else start) if restart else w
                start = moved
                if clear:
                    waiting, clock = torch.zeros_like(start), 0
        return w

    return answer


def nested_by_contexts(start, grads, lr, fast, slow, rho):
    def adapt(part):
        return start - lr * part[: len(part) // fast * fast].sum(0)

    full = len(grads) // slow
    for k in range(full):
        start = start + rho * (adapt(grads[k * slow : (k + 1) * slow]) - start)
    return adapt(grads[full * slow :])


def nested_lerp(start, grads, lr, fast, slow, rho):
    w, since = start.clone(), []
    for t, g in enumerate(grads):
        since.append(g)
        if len(since) == fast:
            w, since = w - lr * torch.stack(since).sum(0), []
        if (t + 1) % slow == 0:
            start = torch.lerp(start, w, rho)
            w, since = start, []
    return w


def left(told, fast, slow, *, after=False, sign=1, first_only=False):
    s = told.new_zeros(())
    for d in range(len(told)):
        f, total = told.new_zeros(()), told.new_zeros(())
        for t in range(told.shape[1]):
            error = told[d, t] - f - s
            f = f + fast * error
            if after:
                error = told[d, t] - f - s
            if t == 0 or not first_only:
                total = total + error
        s = s + sign * slow * total
    return s


def left_by_totals(told, fast, slow):
    """What f learned in a document is `fast` times the sum of the errors."""
    s = torch.zeros((), dtype=told.dtype)
    for document in told:
        f = torch.zeros((), dtype=told.dtype)
        for v in document:
            f = (1 - fast) * f + fast * (v - s)
        s = s + slow * f / fast
    return s


def left_by_additive(told, fast, slow):
    from nlbook.cms.additive import Clock, additive

    documents, tokens = told.shape
    k = torch.ones(documents * tokens, 1, dtype=told.dtype)
    begins = torch.arange(documents * tokens) % tokens == 0
    _, (_, s) = additive([Clock(fast, ends=1), Clock(slow, period=tokens)], k, told.reshape(-1, 1), begins)
    return s[0, 0]


def each(fn):
    return lambda lr, periods, reduce: [fn(lr, c, reduce) for c in periods]


def steps_loop(lr, periods, reduce):
    out = []
    for c in periods:
        out.append(lr if reduce == "sum" else lr * (1 / c))
    return out


MUTANTS = {
    "05-level": {
        "shifted by one token": lambda *a: level(*a, shift=1),
        "frozen surprises": lambda *a: level(*a, at_start=True),
        "one chunk only": lambda W0, X, Y, lr, period: level(W0, X, Y, lr, period, stop=period),
        "ascends": lambda W0, X, Y, lr, period: level(W0, X, Y, -lr, period),
        "whole stream at once": lambda W0, X, Y, lr, period: level(W0, X, Y, lr, X.shape[1]),
    },
    "05-forward": {
        "no tanh": lambda x, W: x + sum(d @ (u @ x) for u, d in zip(W[::2], W[1::2])),
        "first level only": lambda x, W: x + W[1] @ torch.tanh(W[0] @ x),
    },
    "05-step": {
        "ascends": lambda *a: by_backward(*a, sign=-1),
        "slow levels gather nothing": lambda *a: by_backward(*a, skip=True),
        "side by side": lambda *a: by_backward(*a, chain=False),
    },
    "05-nested": {
        "mean": nest(mean=True),
        "ascends": nest(sign=-1),
    },
    "05-cost": {
        "sum of periods": 5440,
    },
    "05-share": {
        "nothing": 0.0,
        "everything": 1.0,
    },
    "05-left": {
        "error after the write": lambda *a: left(*a, after=True),
        "away from it": lambda *a: left(*a, sign=-1),
        "first token only": lambda *a: left(*a, first_only=True),
    },
    "05-steps": {
        "root": each(lambda lr, c, r: lr if r == "sum" else lr / c**0.5),
        "mean multiplied": each(lambda lr, c, r: lr if r == "sum" else lr * c),
    },
}

ACCEPTED = {
    "05-level": {"a loop": level, "a buffer": level_by_buffer, "moments": level_by_moments},
    "05-forward": {"einsum": forward_by_levels, "recursive": forward_recursive, "in place": forward_in_place},
    "05-step": {"formulas": by_formulas, "backward": by_backward, "level by level": by_levels},
    "05-nested": {"contexts": nested_by_contexts, "lerp": nested_lerp, "written out": nest()},
    "05-cost": {"exact": 43520, "in thousands": (43.5, "thousand"), "rounded": 43000},
    "05-share": {"exact": 0.16, "text": "0.16", "a fraction": "4/25"},
    "05-left": {"a loop": left, "totals": left_by_totals, "the library": left_by_additive},
    "05-steps": {
        "a loop": steps_loop,
        "comprehension": each(lambda lr, c, r: lr / (c if r == "mean" else 1)),
        "table": lambda lr, periods, reduce: [lr * {"sum": 1, "mean": 1 / c}[reduce] for c in periods],
    },
}
