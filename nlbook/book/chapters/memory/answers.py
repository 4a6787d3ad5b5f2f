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
    "01-shared": {
        "erases only": lambda M, k, v, eta: M - eta * torch.outer(M @ k, k),
        "erases after writing": lambda M, k, v, eta: (W := M + eta * torch.outer(v, k)) - eta * torch.outer(W @ k, k),
        "full erase": lambda M, k, v, eta: M - torch.outer(M @ k, k) + eta * torch.outer(v, k),
        "adds instead of erasing": lambda M, k, v, eta: M + eta * torch.outer(M @ k, k) + eta * torch.outer(v, k),
        "one error for all values": lambda M, k, v, eta: M + eta * (v - M @ k).sum() * torch.ones(len(v), 1) * k,
    },
    "01-half-life": {
        "keep 0.99": 69,
        "one": 1,
    },
    "01-overlaps": {
        "values only": lambda K, V: V.clone(),
        "normalised": lambda K, V: (K @ K.T) / len(K) @ V,
        "squared overlaps": lambda K, V: (K @ K.T) ** 2 @ V,
    },
    "01-hebb": {
        "wrong sign": lambda M, k, v, eta: M - eta * torch.outer(v, k),
        "twice": lambda M, k, v, eta: M + 2 * eta * torch.outer(v, k),
        "rate squared": lambda M, k, v, eta: M + eta**2 * torch.outer(v, k),
        "key and value swapped": lambda M, k, v, eta: M + eta * torch.outer(k, v),
        "in place": lambda M, k, v, eta: M.add_(torch.outer(v, k), alpha=eta),
        "never writes": lambda M, k, v, eta: M,
        "float32": lambda M, k, v, eta: (M + eta * torch.outer(v, k)).float(),
    },
    "01-delta": {
        "wrong sign": lambda M, k, v, eta: M + eta * torch.outer(M @ k - v, k),
        "gradient of the whole square": lambda M, k, v, eta: M + 2 * eta * torch.outer(v - M @ k, k),
        "oja": lambda M, k, v, eta: M + eta * (torch.outer(v, k) - torch.outer(v, v) @ M),
        "outer product swapped": lambda M, k, v, eta: M + eta * torch.outer(k, v - M @ k),
        "mean square": lambda M, k, v, eta: M + eta * torch.outer(v - M @ k, k) / len(v),
    },
}

ACCEPTED = {
    "01-shared": {
        "the error form": lambda M, k, v, eta: M + eta * torch.outer(v - M @ k, k),
        "a loop": delta_loop,
        "a gradient step": delta_by_autograd,
    },
    "01-half-life": {"exact": 44.01, "rounded": 44, "0.69 d": 0.693 * 64},
    "01-overlaps": {
        "through the memory": lambda K, V: K @ (V.T @ K).T,
        "einsum": lambda K, V: torch.einsum("id,jd,jv->iv", K, K, V),
        "a loop": lambda K, V: torch.stack(
            [sum(((k @ kj) * v for kj, v in zip(K, V)), torch.zeros_like(V[0])) for k in K]
        ),
    },
    "01-hebb": {
        "a loop": hebb_loop,
        "einsum": lambda M, k, v, eta: M + torch.einsum("i,j->ij", eta * v, k),
        "column times row": lambda M, k, v, eta: M + (eta * v)[:, None] * k[None, :],
    },
    "01-delta": {
        "a loop": delta_loop,
        "a gradient step": delta_by_autograd,
        "erase, then write": lambda M, k, v, eta: (
            M @ (torch.eye(len(k), dtype=M.dtype) - eta * torch.outer(k, k)) + eta * torch.outer(v, k)
        ),
        "column times row": lambda M, k, v, eta: M + eta * (v - (M * k).sum(1))[:, None] * k,
    },
}
