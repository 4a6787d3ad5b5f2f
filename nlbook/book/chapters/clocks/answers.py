"""Chapter 05: wrong answers that its checks must refuse, and right ones that they must accept."""

from __future__ import annotations

import torch


def level(W0, X, Y, lr, period, *, gather=torch.sum, shift=0, stop=None, at_start=False):
    W, T = W0.clone(), len(X) if stop is None else min(stop, len(X))
    for end in range(period, T + 1, period):
        at = W0 if at_start else W
        g = torch.stack(
            [torch.outer(at @ X[i] - Y[i], X[i]) for i in range(end - period + shift, min(end + shift, len(X)))]
        )
        W = W - lr * gather(g, dim=0)
    return W


def level_by_buffer(W0, X, Y, lr, period):
    W, buffer = W0, torch.zeros_like(W0)
    for t in range(len(X)):
        buffer = buffer + torch.outer(W @ X[t] - Y[t], X[t])
        if (t + 1) % period == 0:
            W, buffer = W - lr * buffer, torch.zeros_like(W0)
    return W


def level_by_split(W0, X, Y, lr, period):
    full = len(X) // period * period
    W = W0
    for x, y in zip(X[:full].reshape(-1, period, X.shape[1]), Y[:full].reshape(-1, period, Y.shape[1])):
        W = W - lr * torch.einsum("to,ti->oi", x @ W.mT - y, x)
    return W


def level_by_moments(W0, X, Y, lr, period):
    W = W0
    for k in range(len(X) // period):
        x, y = X[k * period : (k + 1) * period], Y[k * period : (k + 1) * period]
        W = W @ (torch.eye(X.shape[1], dtype=X.dtype) - lr * x.T @ x) + lr * y.T @ x
    return W


def stream(inner):
    return lambda W0, X, Y, lr, period, cut: inner(W0, X, Y, lr, period)


def stream_by_lists(W0, X, Y, lr, period, cut):
    W, kept = W0, []
    for start in range(0, len(X), cut):
        kept += list(zip(X[start : start + cut], Y[start : start + cut]))
        while len(kept) >= period:
            chunk, kept = kept[:period], kept[period:]
            W = W - lr * sum(torch.outer(W @ x - y, x) for x, y in chunk)
    return W


def first_call_only(W0, X, Y, lr, period, cut):
    return level_by_buffer(W0, X[:cut], Y[:cut], lr, period)


def every_call_is_a_chunk(W0, X, Y, lr, period, cut):
    return level_by_split(W0, X, Y, lr, cut)


def kept_clock_lost_sum(W0, X, Y, lr, period, cut):
    W, clock = W0, 0
    for start in range(0, len(X), cut):
        waiting = torch.zeros_like(W)
        for x, y in zip(X[start : start + cut], Y[start : start + cut]):
            waiting, clock = waiting + torch.outer(W @ x - y, x), clock + 1
            if clock == period:
                W, waiting, clock = W - lr * waiting, torch.zeros_like(W), 0
    return W


def panel(weight, residual=1.0, chain=False):
    def answer(x, up, down, mix):
        h, total = x, residual * x
        for w, a, b in zip(weight(mix), up, down):
            add = w * (b @ torch.tanh(a @ (h if chain else x)))
            h, total = h + add, total + add
        return total

    return answer


def panel_einsum(x, up, down, mix):
    a = torch.tanh(torch.einsum("lhd,d->lh", up, x))
    return x + torch.einsum("l,ldh,lh->d", mix.softmax(0), down, a)


def panel_matmul(x, up, down, mix):
    each = (down @ torch.tanh(up @ x)[..., None])[..., 0]
    return x + mix.softmax(0) @ each


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


MUTANTS = {
    "05-level": {
        "shifted by one token": lambda *a: level(*a, shift=1),
        "frozen surprises": lambda *a: level(*a, at_start=True),
        "one chunk only": lambda W0, X, Y, lr, period: level(W0, X, Y, lr, period, stop=period),
        "ascends": lambda W0, X, Y, lr, period: level(W0, X, Y, -lr, period),
        "whole stream at once": lambda W0, X, Y, lr, period: level(W0, X, Y, lr, len(X)),
    },
    "05-partial": {
        "first call only": first_call_only,
        "every call is a chunk": every_call_is_a_chunk,
        "clock kept, sum lost": kept_clock_lost_sum,
        "every token": lambda W0, X, Y, lr, period, cut: level_by_buffer(W0, X, Y, lr, 1),
    },
    "05-headwise": {
        "raw mixture": panel(lambda m: m),
        "sigmoid": panel(torch.sigmoid),
    },
    "05-nested": {
        "mean": nest(mean=True),
        "ascends": nest(sign=-1),
    },
    "05-cost": {
        "sum of periods": 5440,
    },
    "05-notes": {
        "one": 1,
        "lane 1": 60,
        "none": 0,
    },
}

ACCEPTED = {
    "05-level": {"a buffer": level_by_buffer, "reshape": level_by_split, "moments": level_by_moments},
    "05-partial": {"lists": stream_by_lists, "one call": stream(level_by_buffer), "reshape": stream(level_by_split)},
    "05-headwise": {"einsum": panel_einsum, "matmul": panel_matmul, "a loop": panel(lambda m: m.exp() / m.exp().sum())},
    "05-nested": {"contexts": nested_by_contexts, "lerp": nested_lerp, "written out": nest()},
    "05-cost": {"exact": 43520, "in thousands": (43.5, "thousand"), "rounded": 43000},
    "05-notes": {"four": 4, "float": 4.0, "text": "4 notes"},
}
