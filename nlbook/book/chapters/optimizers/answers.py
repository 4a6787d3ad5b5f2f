"""Chapter A: wrong answers that its checks must refuse, and right ones that they must accept."""

from __future__ import annotations

import math

import torch


def inner_by_autograd(m, grad, eta, keep):
    z = m.detach().requires_grad_()
    loss = (z * grad.detach()).sum() + (1 - keep) / (2 * eta) * (z * z).sum()
    return torch.autograd.grad(loss, z)[0]


def horizon_by_log(beta, share):
    return math.ceil(math.log(1 - share) / math.log(beta) - 1e-9)


def horizon_by_sum(beta, share):
    total, n = 0.0, 0
    while total < share - 1e-13:
        total += (1 - beta) * beta**n
        n += 1
    return n


def horizon_by_tensor(beta, share):
    n = torch.arange(1, 5000, dtype=torch.float64)
    return int(n[1 - beta**n >= share][0])


def brake_by_branch(m, g, lr, keep, erase):
    hold = keep - erase * float(g @ g)
    return (hold * m if hold > 0 else torch.zeros_like(m)) - lr * g


def cubic(start, step=lambda O: 1.5 * O - 0.5 * O @ O.T @ O):
    def run(G, steps):
        O = start(G)
        for _ in range(steps):
            O = step(O)
        return O

    return run


def polar_by_svd_values(G, steps):
    U, s, Vh = torch.linalg.svd(G, full_matrices=False)
    s = s / G.norm()
    for _ in range(steps):
        s = 1.5 * s - 0.5 * s**3
    return (U * s) @ Vh


def unit(G):
    return G / G.norm()


MUTANTS = {
    "A-inner": {
        "sign": lambda m, grad, eta, keep: -grad - (1 - keep) / eta * m,
        "no rate": lambda m, grad, eta, keep: grad + (1 - keep) * m,
    },
    "A-horizon": {
        "one too many": lambda beta, share: horizon_by_sum(beta, share) + 1,
        "always half": lambda beta, share: horizon_by_sum(beta, 0.5),
        "not whole": lambda beta, share: math.log(1 - share) / math.log(beta),
    },
    "A-picture": {
        "fast half": 7,
        "slow alone": 440,
        "far": 4603,
    },
    "A-brake": {
        "length, not square": lambda m, g, lr, keep, erase: (keep - erase * g.norm()).clamp(min=0) * m - lr * g,
        "heavy ball": lambda m, g, lr, keep, erase: keep * m - lr * g,
        "uphill": lambda m, g, lr, keep, erase: (keep - erase * (g @ g)).clamp(min=0) * m + lr * g,
    },
    "A-polar": {
        "no division": cubic(lambda G: G),
        "printed step": cubic(unit, lambda O: O - 0.25 * (4 * O @ O.T @ O - 4 * O)),
        "quintic": cubic(unit, lambda O: 3.4445 * O - 4.7750 * O @ O.T @ O + 2.0315 * O @ O.T @ O @ O.T @ O),
        "sign": cubic(unit, lambda O: 1.5 * O + 0.5 * O @ O.T @ O),
    },
}

ACCEPTED = {
    "A-inner": {
        "by autograd": inner_by_autograd,
        "one fraction": lambda m, grad, eta, keep: (eta * grad + (1 - keep) * m) / eta,
        "from the step": lambda m, grad, eta, keep: (m - (keep * m - eta * grad)) / eta,
    },
    "A-horizon": {"by logarithm": horizon_by_log, "by summing": horizon_by_sum, "by table": horizon_by_tensor},
    "A-picture": {"as read": 333, "rounded": 330, "a little more": 340},
    "A-brake": {
        "a branch": brake_by_branch,
        "relu": lambda m, g, lr, keep, erase: torch.relu(keep - erase * g.square().sum()) * m - lr * g,
        "max": lambda m, g, lr, keep, erase: max(0.0, keep - erase * float((g * g).sum())) * m - lr * g,
    },
    "A-polar": {
        "on the singular values": polar_by_svd_values,
        "from the right": cubic(unit, lambda O: O @ (1.5 * torch.eye(O.shape[1], dtype=O.dtype) - 0.5 * O.T @ O)),
        "as descent": cubic(unit, lambda O: O - 0.5 * (O @ O.T @ O - O)),
    },
}
