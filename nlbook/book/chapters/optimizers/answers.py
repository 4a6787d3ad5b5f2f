"""Appendix A: wrong answers that its checks must refuse, and right ones that they must accept."""

from __future__ import annotations

import torch


def multiplier_by_lstsq(v, w, target):
    """Each element as a regression of sqrt(w) target on sqrt(w) v."""
    root = w.sqrt()
    return torch.stack(
        [(root * v[:, i]) @ (root * target[i]) / (root * v[:, i]).square().sum() for i in range(v.shape[1])]
    )


def multiplier_by_newton(v, w, target):
    m = torch.zeros_like(target)
    slope = (w[:, None] * v * (m * v - target)).sum(0)
    return m - slope / (w[:, None] * v * v).sum(0)


def adam_by_torch(p, v, M, H, t, lr, beta1, beta2):
    q = torch.zeros_like(p).copy_(p).requires_grad_()
    optimizer = torch.optim.Adam([q], lr=lr, betas=(beta1, beta2))
    state = {"step": torch.tensor(float(t - 1)), "exp_avg": -M.clone(), "exp_avg_sq": H.clone()}
    optimizer.state[q] = state
    q.grad = -v
    optimizer.step()
    return q.detach(), -state["exp_avg"], state["exp_avg_sq"]


def adam_by_lerp(p, v, M, H, t, lr, beta1, beta2):
    M, H = M.lerp(v, 1 - beta1), H.lerp(v * v, 1 - beta2)
    return p + lr / (1 - beta1**t) * M / ((H / (1 - beta2**t)) ** 0.5 + 1e-8), M, H


def adam_by_shares(p, v, M, H, t, lr, beta1, beta2):
    M, H = M + (1 - beta1) * (v - M), H + (1 - beta2) * (v**2 - H)
    read = M / (1 - beta1**t)
    size = torch.sqrt(H / (1 - beta2**t))
    return p + lr * read / (size + 1e-8), M, H


def brake_by_branch(m, v, lr, keep, erase):
    hold = keep - erase * float(v @ v)
    return (hold * m if hold > 0 else torch.zeros_like(m)) + lr * v


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
    "A-picture": {
        "fast half": 7,
        "slow alone": 440,
        "far": 4603,
    },
    "A-brake": {
        "length, not square": lambda m, v, lr, keep, erase: (keep - erase * v.norm()).clamp(min=0) * m + lr * v,
        "uphill": lambda m, v, lr, keep, erase: (keep - erase * (v @ v)).clamp(min=0) * m - lr * v,
    },
    "A-polar": {
        "no division": cubic(lambda G: G),
        "printed step": cubic(unit, lambda O: O - 0.25 * (4 * O @ O.T @ O - 4 * O)),
        "quintic": cubic(unit, lambda O: 3.4445 * O - 4.7750 * O @ O.T @ O + 2.0315 * O @ O.T @ O @ O.T @ O),
        "sign": cubic(unit, lambda O: 1.5 * O + 0.5 * O @ O.T @ O),
    },
}

ACCEPTED = {
    "A-adam": {
        "one expression": lambda v, w, target: target * (w[:, None] * v).sum(0) / (w[:, None] * v * v).sum(0),
        "as regressions": multiplier_by_lstsq,
        "one Newton step": multiplier_by_newton,
    },
    "A-build": {"torch": adam_by_torch, "lerp": adam_by_lerp, "by shares": adam_by_shares},
    "A-picture": {"as read": 333, "rounded": 330, "a little more": 340},
    "A-brake": {
        "a branch": brake_by_branch,
        "relu": lambda m, v, lr, keep, erase: torch.relu(keep - erase * v.square().sum()) * m + lr * v,
        "max": lambda m, v, lr, keep, erase: max(0.0, keep - erase * float((v * v).sum())) * m + lr * v,
    },
    "A-polar": {
        "on the singular values": polar_by_svd_values,
        "from the right": cubic(unit, lambda O: O @ (1.5 * torch.eye(O.shape[1], dtype=O.dtype) - 0.5 * O.T @ O)),
        "as descent": cubic(unit, lambda O: O - 0.5 * (O @ O.T @ O - O)),
    },
}
