"""Chapter F: wrong answers that its checks must refuse, and right ones that they must accept."""

from __future__ import annotations

import torch


def gap_loop(a, lr, period):
    w = 1.0
    for _ in range(period):
        w -= lr * a * w
    return w - (1.0 - lr * sum(a for _ in range(period)))


def gap_binomial(a, lr, period):
    from math import comb

    return sum(comb(period, k) * (-lr * a) ** k for k in range(2, period + 1))


def gap_tensor(a, lr, period):
    s = torch.tensor(1 - lr * a, dtype=torch.float64)
    return float(s.pow(period)) - 1 + period * lr * a


def border_by_norm(keys):
    return float(2 / torch.linalg.matrix_norm(keys, 2) ** 2)


def border_by_loop(keys):
    S = sum(torch.outer(k, k) for k in keys)
    return 2 / float(torch.linalg.eigvalsh(S).max())


def border_by_gram(keys):
    return 2 / float(torch.linalg.eigvalsh(keys @ keys.T).max())


def forgetting_loop(R):
    n = len(R)
    return sum(max(float(R[i, j]) for i in range(n - 1)) - float(R[n - 1, j]) for j in range(n - 1)) / (n - 1)


def forgetting_library(R):
    from nlbook.book.data.continual import forgetting

    return float(forgetting(R))


def forgetting_amax(R):
    old = R[:, :-1]
    return (torch.amax(old[:-1], 0) - old[-1]).mean().item()


def each(fn):
    return lambda lr, periods, reduce: [fn(lr, c, reduce) for c in periods]


def steps_loop(lr, periods, reduce):
    out = []
    for c in periods:
        out.append(lr if reduce == "sum" else lr * (1 / c))
    return out


MUTANTS = {
    "F-gap": {
        "no curvature": lambda a, lr, p: (1 - lr) ** p - (1 - p * lr),
        "small steps only": lambda a, lr, p: (1 - lr * a) ** p,
        "one step short": lambda a, lr, p: (1 - lr * a) ** (p - 1) - (1 - p * lr * a),
    },
    "F-border": {
        "singular value": lambda k: float(2 / torch.linalg.matrix_norm(k, 2)),
        "constant": lambda k: 2.0,
    },
    "F-steps": {
        "multiplied": each(lambda lr, c, r: lr if r == "sum" else lr * c),
        "root": each(lambda lr, c, r: lr if r == "sum" else lr / c**0.5),
        "sum multiplied": lambda lr, periods, reduce: [lr * c if reduce == "sum" else lr for c in periods],
    },
    "F-forgetting": {
        "sum": lambda R: forgetting_loop(R) * (len(R) - 1),
        "rows": lambda R: float((R[:-1, :-1].max(1).values - R[:-1, -1]).mean()) + 0.01,
    },
    "F-picture": {
        "knows nothing": 1.0,
        "knows B": 2.0,
        "half": 0.5,
    },
}

ACCEPTED = {
    "F-gap": {"a loop": gap_loop, "binomial": gap_binomial, "tensor": gap_tensor},
    "F-border": {"norm": border_by_norm, "loop": border_by_loop, "gram": border_by_gram},
    "F-steps": {
        "a loop": steps_loop,
        "comprehension": each(lambda lr, c, r: lr / (c if r == "mean" else 1)),
        "table": lambda lr, periods, reduce: [lr * {"sum": 1, "mean": 1 / c}[reduce] for c in periods],
    },
    "F-picture": {"the label": 0.17, "three digits": 0.167, "text": "0.17"},
    "F-forgetting": {"a loop": forgetting_loop, "library": forgetting_library, "amax": forgetting_amax},
}
