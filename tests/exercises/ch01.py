"""Chapter 01: wrong answers that its checks must refuse, and right ones that they must accept."""
from __future__ import annotations

import torch


def hebb_loop(M, k, v, eta):
    new = M.clone()
    for i in range(len(v)):
        for j in range(len(k)):
            new[i, j] = new[i, j] + eta * v[i] * k[j]
    return new


def delta_loop(M, k, v, eta):
    read = [sum(M[i, j] * k[j] for j in range(len(k))) for i in range(len(v))]
    return torch.stack([M[i] + eta * (v[i] - read[i]) * k for i in range(len(v))])


def delta_by_autograd(M, k, v, eta):
    W = M.detach().requires_grad_()
    half = 0.5 * (W @ k - v).square().sum()
    return M - eta * torch.autograd.grad(half, W)[0]


MUTANTS = {
    "01-hebb": {
        "delta": lambda M, k, v, eta: M + eta * torch.outer(v - M @ k, k),
        "wrong sign": lambda M, k, v, eta: M - eta * torch.outer(v, k),
        "twice": lambda M, k, v, eta: M + 2 * eta * torch.outer(v, k),
        "rate squared": lambda M, k, v, eta: M + eta**2 * torch.outer(v, k),
        "key and value swapped": lambda M, k, v, eta: M + eta * torch.outer(k, v),
        "in place": lambda M, k, v, eta: M.add_(torch.outer(v, k), alpha=eta),
        "never writes": lambda M, k, v, eta: M,
        "forgets": lambda M, k, v, eta: eta * torch.outer(v, k),
        "float32": lambda M, k, v, eta: (M + eta * torch.outer(v, k)).float(),
    },
    "01-delta": {
        "hebb": lambda M, k, v, eta: M + eta * torch.outer(v, k),
        "erases, never writes": lambda M, k, v, eta: M @ (torch.eye(len(k), dtype=M.dtype) - eta * torch.outer(k, k)),
        "wrong sign": lambda M, k, v, eta: M + eta * torch.outer(M @ k - v, k),
        "gradient of the whole square": lambda M, k, v, eta: M + 2 * eta * torch.outer(v - M @ k, k),
        "oja": lambda M, k, v, eta: M + eta * (torch.outer(v, k) - torch.outer(v, v) @ M),
        "outer product swapped": lambda M, k, v, eta: M + eta * torch.outer(k, v - M @ k),
        "mean square": lambda M, k, v, eta: M + eta * torch.outer(v - M @ k, k) / len(v),
        "full step": lambda M, k, v, eta: M + torch.outer(v - M @ k, k),
    },
}

ACCEPTED = {
    "01-hebb": {
        "a loop": hebb_loop,
        "einsum": lambda M, k, v, eta: M + torch.einsum("i,j->ij", eta * v, k),
        "column times row": lambda M, k, v, eta: M + (eta * v)[:, None] * k[None, :],
    },
    "01-delta": {
        "a loop": delta_loop,
        "a gradient step": delta_by_autograd,
        "erase, then write": lambda M, k, v, eta: (M @ (torch.eye(len(k), dtype=M.dtype) - eta * torch.outer(k, k))
                                                   + eta * torch.outer(v, k)),
        "column times row": lambda M, k, v, eta: M + eta * (v - (M * k).sum(1))[:, None] * k,
    },
}
