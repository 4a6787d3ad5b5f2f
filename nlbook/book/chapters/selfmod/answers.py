"""Chapter 06: wrong answers that its checks must refuse, and right ones that they must accept."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from nlbook.book.chapters.selfmod.exercises import memory_errors, memory_read, memory_write, read_text


# ---- a reference
def refer_in_place(M, keys, words, eta):
    M = M.clone()
    for t in range(len(keys)):
        M += eta * (M @ words[t] - M @ keys[t])[:, None] * keys[t][None]
    return M


def refer_by_products(M, keys, words, eta):
    eye = torch.eye(M.shape[1], dtype=M.dtype)
    for k, word in zip(keys, words):
        M = M @ (eye + eta * torch.outer(word - k, k))
    return M


def refer_by_lists(M, keys, words, eta):
    rows = list(M)
    for k, word in zip(keys, words):
        rows = [row + eta * (row @ word - row @ k) * k for row in rows]
    return torch.stack(rows)


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


# ---- the build
def read_by_sums(W1, W2, x):
    z = torch.einsum("hd,d->h", W2, x)
    said = (W1 * (z * torch.sigmoid(z))).sum(-1)
    return said if said.shape != x.shape else said + x


def read_rows(W1, W2, x):
    said = (F.silu(x[None] @ W2.T) @ W1.T)[0]
    return said + (x if W1.shape[0] > 1 else 0)


def read_in_place(W1, W2, x):
    said = W1 @ F.silu(W2 @ x)
    if said.numel() == x.numel():
        said += x
    return said


def errors_by_jacobian(W1, W2, k, value):
    z = W2 @ k
    e1 = memory_read(W1, W2, k) - value
    slope = torch.func.vmap(torch.func.grad(F.silu))(z)
    return e1, slope * (e1 @ W1)


def errors_by_hand(W1, W2, k, value):
    z = W2 @ k
    s = 1 / (1 + torch.exp(-z))
    e1 = W1 @ (z * s) + (k if W1.shape[0] > 1 else 0) - value
    return e1, (W1.T @ e1) * (s + z * s * (1 - s))


def errors_by_loop(W1, W2, k, value):
    z, e1 = W2 @ k, memory_read(W1, W2, k) - value
    e2 = torch.zeros_like(z)
    for j in range(len(z)):
        s = torch.sigmoid(z[j])
        e2[j] = (W1[:, j] * e1).sum() * (s + z[j] * s * (1 - s))
    return e1, e2


def write_by_factor(W1, W2, k, value, eta, alpha):
    a = F.silu(W2 @ k)
    e1, e2 = memory_errors(W1, W2, k, value)
    out = []
    for W, n, e in ((W1, a, e1), (W2, k, e2)):
        rate = eta / (1 + eta * n.square().sum())
        factor = alpha * torch.eye(len(n), dtype=n.dtype) - rate * torch.outer(n, n)
        out.append(W @ factor - rate * torch.outer(e, n))
    return tuple(out)


def write_by_autograd(W1, W2, k, value, eta, alpha):
    with torch.enable_grad():
        A, B = (W.detach().clone().requires_grad_() for W in (W1, W2))
        loss = 0.5 * (memory_read(A, B, k) - value).square().sum()
        g1, g2 = torch.autograd.grad(loss, (A, B))
    a = F.silu(W2 @ k)
    r1, r2 = eta / (1 + eta * a @ a), eta / (1 + eta * k @ k)
    return alpha * W1 - r1 * (torch.outer(W1 @ a, a) + g1), alpha * W2 - r2 * (torch.outer(W2 @ k, k) + g2)


def write_in_place(W1, W2, k, value, eta, alpha):
    a = F.silu(W2 @ k)
    e1, e2 = memory_errors(W1, W2, k, value)
    N1, N2 = alpha * W1, alpha * W2
    N1 -= eta / (1 + eta * a @ a) * torch.outer(W1 @ a + e1, a)
    N2 -= eta / (1 + eta * k @ k) * torch.outer(W2 @ k + e2, k)
    return N1, N2


def unit(z):
    return z / z.square().sum().sqrt()


def token_by_loop(M, W_q, b_eta, b_alpha, x):
    k, v = unit(memory_read(*M["k"], x)), unit(memory_read(*M["v"], x))
    eta = torch.sigmoid(memory_read(*M["eta"], x) + b_eta)[0]
    alpha = torch.sigmoid(memory_read(*M["alpha"], x) + b_alpha)[0]
    new = {}
    for name, (W1, W2) in M.items():
        new[name] = write_by_factor(W1, W2, k, memory_read(W1, W2, v), eta, alpha)
    return memory_read(*new["mem"], unit(W_q @ x)), new


def token_values_first(M, W_q, b_eta, b_alpha, x):
    said = {n: memory_read(*W, x) for n, W in M.items() if n != "mem"}
    k, v = unit(said["k"]), unit(said["v"])
    eta, alpha = torch.sigmoid(said["eta"][0] + b_eta), torch.sigmoid(said["alpha"][0] + b_alpha)
    values = {n: memory_read(*W, v) for n, W in M.items()}
    M = {n: memory_write(*M[n], k, values[n], eta, alpha) for n in M}
    return memory_read(*M["mem"], unit(W_q @ x)), M


def token_copy(M, W_q, b_eta, b_alpha, x):
    M = dict(M)
    k, v = unit(memory_read(*M["k"], x)), unit(memory_read(*M["v"], x))
    eta, alpha = (torch.sigmoid(memory_read(*M[n], x)[0] + b) for n, b in (("eta", b_eta), ("alpha", b_alpha)))
    for n in list(M):
        M[n] = memory_write(*M[n], k, memory_read(*M[n], v), eta, alpha)
    return memory_read(*M["mem"], unit(W_q @ x)), M


MUTANTS = {
    "06-refer": {
        "key and word swapped": lambda M, keys, words, eta: read_text(M, words, keys, eta),
        "last token only": lambda M, keys, words, eta: read_text(M, keys[-1:], words[-1:], eta),
        "last token lost": lambda M, keys, words, eta: read_text(M, keys[:-1], words[:-1], eta),
        "transposed": lambda M, keys, words, eta: read_text(M, keys, words, eta).T,
        "nothing read": lambda M, keys, words, eta: M.clone(),
        "backwards": lambda M, keys, words, eta: read_text(M, keys.flip(0), words.flip(0), eta),
    },
    "06-self": {
        "factor on the left": lambda M, k, v, eta, alpha: factor(k, eta, alpha) @ M - eta * torch.outer(M @ (k - v), k),
        "sign": lambda M, k, v, eta, alpha: M @ factor(k, eta, alpha) + eta * torch.outer(M @ (k - v), k),
        "key and value swapped": lambda M, k, v, eta, alpha: self_by_error(M, v, k, eta, alpha),
    },
    "06-detach": {
        "as given": cut,
        "memory cut in the value": lambda *a: cut(*a, value=False, memory=True),
        "v cut": lambda *a: cut(*a, value=False),
        "start cut": lambda *a: cut(*a, value=False, memory=True, start=True),
    },
    "06-read": {
        "twice x": lambda W1, W2, x: memory_read(W1, W2, x) + x,
        "minus": lambda W1, W2, x: memory_read(-W1, W2, x),
        "relu": lambda W1, W2, x: W1 @ F.relu(W2 @ x) + (x if len(W1) == len(x) else 0),
        "silu of x": lambda W1, W2, x: memory_read(W1, W2, F.silu(x)),
    },
    "06-errors": {
        "swapped": lambda *a: memory_errors(*a)[::-1],
        "W1 not turned": lambda W1, W2, k, value: (
            e := memory_read(W1, W2, k) - value,
            (W1[: len(W2), : len(e)] if W1.shape == W1.T.shape else W1.T).reshape(len(W2), len(e)) @ e,
        ),
        "second one negative": lambda *a: (memory_errors(*a)[0], -memory_errors(*a)[1]),
        "value forgotten": lambda W1, W2, k, value: memory_errors(W1, W2, k, 0 * value),
    },
    "06-write": {
        "uphill": lambda W1, W2, k, value, eta, alpha: memory_write(W1, W2, k, value, -eta, alpha),
        "first layer only": lambda W1, W2, *a: (memory_write(W1, W2, *a)[0], W2),
        "second layer only": lambda W1, W2, *a: (W1, memory_write(W1, W2, *a)[1]),
        "nothing forgotten": lambda W1, W2, k, value, eta, alpha: memory_write(W1, W2, k, value, eta, 0 * alpha + 1),
        "swapped": lambda *a: memory_write(*a)[::-1],
    },
    "06-token": {
        "no biases": lambda M, W_q, b_eta, b_alpha, x: token_by_loop(M, W_q, 0 * b_eta, 0 * b_alpha, x),
        "gates swapped": lambda M, W_q, b_eta, b_alpha, x: token_by_loop(M, W_q, b_alpha, b_eta, x),
        "nothing written": lambda M, W_q, b_eta, b_alpha, x: (memory_read(*M["mem"], unit(W_q @ x)), M),
        "asked with the key": lambda M, W_q, b_eta, b_alpha, x: (
            memory_read(*token_by_loop(M, W_q, b_eta, b_alpha, x)[1]["mem"], unit(memory_read(*M["k"], x))),
            token_by_loop(M, W_q, b_eta, b_alpha, x)[1],
        ),
        "key and value swapped": lambda M, W_q, b_eta, b_alpha, x: token_by_loop(
            {**M, "k": M["v"], "v": M["k"]}, W_q, b_eta, b_alpha, x
        ),
    },
}

ACCEPTED = {
    "06-refer": {"in place": refer_in_place, "products": refer_by_products, "lists": refer_by_lists},
    "06-self": {"matrix": self_by_matrix, "autograd": self_by_autograd, "error": self_by_error},
    "06-detach": {"einsum": outer_einsum, "steps": outer_steps, "matrix": outer_matrix},
    "06-read": {"sums": read_by_sums, "rows": read_rows, "in place": read_in_place},
    "06-errors": {"jacobian": errors_by_jacobian, "by hand": errors_by_hand, "a loop": errors_by_loop},
    "06-write": {"factor": write_by_factor, "autograd": write_by_autograd, "in place": write_in_place},
    "06-token": {"a loop": token_by_loop, "values first": token_values_first, "a copy": token_copy},
}
