"""Chapter 06: wrong answers that its checks must refuse, and right ones that they must accept."""

from __future__ import annotations

import torch


# ---- Titans
def titans_einsum(M, S, k, v, eta, alpha, mu):
    e = torch.einsum("ij,j->i", M, k) - v
    S = mu * S - eta * torch.einsum("i,j->ij", e, k)
    return alpha * M + S, S


def titans_autograd(M, S, k, v, eta, alpha, mu):
    W = M.detach().clone().requires_grad_()
    with torch.enable_grad():
        (g,) = torch.autograd.grad(0.5 * (W @ k - v).square().sum(), W)
    new = mu * S - eta * g
    return alpha * M + new, new


def titans_loop(M, S, k, v, eta, alpha, mu):
    new = torch.zeros_like(S)
    for i in range(M.shape[0]):
        for j in range(M.shape[1]):
            new[i, j] = mu * S[i, j] - eta * (M[i] @ k - v[i]) * k[j]
    return alpha * M + new, new


def grad(M, k, v):
    return torch.outer(M @ k - v, k)


# ---- DGD
def dgd_solve(W, x, grad_y, eta):
    A = torch.eye(len(x), dtype=W.dtype) + eta * torch.outer(x, x)
    return torch.linalg.solve(A.T, (W - eta * torch.outer(grad_y, x)).T).T


def dgd_right_factor(W, x, grad_y, eta):
    rate = eta / (1 + eta * x.square().sum())
    return W @ (torch.eye(len(x), dtype=W.dtype) - rate * torch.outer(x, x)) - rate * torch.outer(grad_y, x)


def dgd_column(W, x, grad_y, eta):
    x, g = x[:, None], grad_y[:, None]
    return W - eta / (1 + eta * (x * x).sum()) * (W @ x + g) @ x.T


# ---- values of its own
def self_by_matrix(M, k, v, eta, alpha):
    k, v = k[:, None], v[:, None]
    return alpha * M - 2 * eta * M @ k @ k.T + eta * M @ v @ k.T


def self_by_autograd(M, k, v, eta, alpha):
    W = M.detach().clone().requires_grad_()
    value = (M @ v).detach()
    with torch.enable_grad():
        (g,) = torch.autograd.grad(0.5 * (W @ k - value).square().sum(), W)
    return alpha * M - eta * torch.outer(M @ k, k) - eta * g


def self_by_error(M, k, v, eta, alpha):
    told, wanted = M @ k, M @ v
    return alpha * M + torch.outer(eta * wanted - 2 * eta * told, k)


def factor(k, eta, alpha):
    return alpha * torch.eye(len(k), dtype=k.dtype) - eta * torch.outer(k, k)


def transition_outer(k, v, eta, alpha):
    return alpha * torch.eye(len(k), dtype=k.dtype) + eta * torch.outer(v - 2 * k, k)


def transition_by_columns(k, v, eta, alpha):
    return torch.stack([alpha * e + eta * (v - 2 * k) * (k @ e) for e in torch.eye(len(k), dtype=k.dtype)], 1)


def transition_from_identity(k, v, eta, alpha):
    return self_by_matrix(torch.eye(len(k), dtype=k.dtype), k, v, eta, alpha)


# ---- the outer gradient
def outer_einsum(M, M_v, x, k, q, eta):
    error = M @ (k - M_v @ x)
    return M @ q - eta * error * (k @ q)


def outer_steps(M, M_v, x, k, q, eta):
    value = M @ M_v @ x
    new = M - eta * (M @ k - value)[:, None] * k[None, :]
    return new @ q


def outer_matrix(M, M_v, x, k, q, eta):
    T = torch.eye(len(k), dtype=M.dtype) - eta * torch.outer(k - M_v @ x, k)
    return M @ T @ q


def cut(M, M_v, x, k, q, eta, value=True, memory=False, start=False):
    v = M_v @ x
    target = (M @ v).detach() if value else M.detach() @ v if memory else M @ v.detach()
    M = M.detach() if start else M
    return (M - eta * torch.outer(M @ k - target, k)) @ q


# ---- counting
def count_loop(bits, c):
    w, out = 1.0, []
    for b in bits:
        eta = 2 / (2 - c) if b else 0.0
        w = w * (1 - 2 * eta + eta * c)
        out.append(w)
    return torch.tensor(out, dtype=bits.dtype), 2 / (2 - c)


def parity_of(bits):
    return 1 - 2 * (bits.cumsum(0) % 2)


def rate(c):
    return 1 / (1 - c / 2)


def count_parity(bits, c):
    return parity_of(bits), rate(c)


def count_power(bits, c):
    return torch.tensor(-1.0, dtype=bits.dtype) ** bits.cumsum(0), torch.tensor(rate(c), dtype=bits.dtype)


MUTANTS = {
    "06-titans": {
        "state swapped": lambda M, S, k, v, eta, alpha, mu: titans_loop(M, S, k, v, eta, alpha, mu)[::-1],
    },
    "06-dgd": {
        "sign": lambda W, x, g, eta: W - eta / (1 + eta * x @ x) * torch.outer(W @ x - g, x),
    },
    "06-self": {
        "factor on the left": lambda M, k, v, eta, alpha: factor(k, eta, alpha) @ M - eta * torch.outer(M @ (k - v), k),
        "sign": lambda M, k, v, eta, alpha: M @ factor(k, eta, alpha) + eta * torch.outer(M @ (k - v), k),
        "key and value swapped": lambda M, k, v, eta, alpha: self_by_error(M, v, k, eta, alpha),
    },
    "06-transition": {
        "sign": lambda k, v, eta, alpha: alpha * torch.eye(len(k), dtype=k.dtype) - eta * torch.outer(v - 2 * k, k),
        "no forgetting": lambda k, v, eta, alpha: transition_outer(k, v, eta, 1.0),
        "swapped": lambda k, v, eta, alpha: transition_outer(v, k, eta, alpha),
    },
    "06-order": {
        "write first": [1, 5, 4, 3, 2],
        "answer last": [5, 3, 2, 1, 4],
        "value before v": [5, 4, 2, 3, 1],
        "answer without query": [4, 5, 3, 2, 1],
        "v last": [5, 4, 2, 1, 3],
    },
    "06-detach": {
        "as given": cut,
        "memory cut in the value": lambda *a: cut(*a, value=False, memory=True),
        "v cut": lambda *a: cut(*a, value=False),
        "start cut": lambda *a: cut(*a, value=False, memory=True, start=True),
    },
    "06-picture": {
        "nothing": 0.1,
        "ten": 10,
        "double": 2.2,
        "three": 3.0,
    },
    "06-count": {
        "never": lambda bits, c: (torch.ones_like(bits), rate(c)),
        "sign": lambda bits, c: (-parity_of(bits), rate(c)),
        "zero or one": lambda bits, c: (bits.cumsum(0) % 2, rate(c)),
        "no rate": lambda bits, c: parity_of(bits),
        "the rate of one erasure": lambda bits, c: (parity_of(bits), 2 / (1 - c)),
        "rate one": lambda bits, c: (parity_of(bits), 1.0),
    },
}

ACCEPTED = {
    "06-titans": {"einsum": titans_einsum, "autograd": titans_autograd, "a loop": titans_loop},
    "06-dgd": {"a solve": dgd_solve, "right factor": dgd_right_factor, "columns": dgd_column},
    "06-self": {"matrix": self_by_matrix, "autograd": self_by_autograd, "error": self_by_error},
    "06-transition": {
        "outer": transition_outer,
        "columns": transition_by_columns,
        "from the identity": transition_from_identity,
    },
    "06-order": {"query first": [5, 3, 2, 4, 1], "answer early": [5, 4, 3, 2, 1], "value first": [3, 2, 5, 4, 1]},
    "06-detach": {"einsum": outer_einsum, "steps": outer_steps, "matrix": outer_matrix},
    "06-picture": {"one digit": 1.3, "two digits": 1.3, "text": "1.30"},
    "06-count": {"a loop": count_loop, "parity": count_parity, "power": count_power},
}
