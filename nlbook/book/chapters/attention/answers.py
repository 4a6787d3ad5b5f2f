"""Chapter 03: wrong answers that its checks must refuse, and right ones that they must accept."""

from __future__ import annotations

import torch

from nlbook.book.chapters.attention.exercises import phi


def fit_by_lstsq(q, K, V, temperature):
    root = torch.exp(K @ q / temperature).sqrt()[:, None]
    return (torch.linalg.pinv(root) @ (root * V))[0]


def fit_loop(q, K, V, temperature):
    top, bottom = 0, 0
    for k, v in zip(K, V):
        s = torch.exp(k @ q / temperature)
        top, bottom = top + s * v, bottom + s
    return top / bottom


def scores(Q, K):
    return Q @ K.T / K.shape[1] ** 0.5


def upper(n, diagonal):
    return torch.triu(torch.ones(n, n, dtype=torch.bool), diagonal)


def attend_loop(Q, K, V):
    return torch.stack([torch.softmax(K[: t + 1] @ Q[t] / K.shape[1] ** 0.5, 0) @ V[: t + 1] for t in range(len(Q))])


def attend_exp(Q, K, V):
    weights = torch.tril(scores(Q, K).exp())
    return weights / weights.sum(1, keepdim=True) @ V


def linear_loop(Q, K, V):
    S, z, y = 0, 0, []
    for q, k, v in zip(Q, K, V):
        S, z = S + torch.outer(v, k), z + k
        y.append(S @ q / (z @ q))
    return torch.stack(y)


def linear_cumsum(Q, K, V):
    S = (V[:, :, None] * K[:, None, :]).cumsum(0)
    return torch.einsum("tvd,td->tv", S, Q) / (K.cumsum(0) * Q).sum(1, keepdim=True)


def linear_ones(Q, K, V):
    both = torch.tril(Q @ K.T) @ torch.cat([V, torch.ones_like(V[:, :1])], 1)
    return both[:, :-1] / both[:, -1:]


def hot_centred_keys(q, K, V, temperature):
    return V.mean(0) + V.T @ (K - K.mean(0)) @ q / (len(K) * temperature)


def hot_loop(q, K, V, temperature):
    n, mean = len(K), sum(V) / len(V)
    return mean + sum((k @ q) * (v - mean) for k, v in zip(K, V)) / (n * temperature)


def hot_covariance(q, K, V, temperature):
    x = K @ q / temperature
    return V.mean(0) + (x[:, None] * V).mean(0) - x.mean() * V.mean(0)


def token_fresh(S, z, q, k, v):
    S = torch.stack([row + value * k for row, value in zip(S, v)])
    z = z + k
    return (S * q).sum(1) / (z * q).sum(), S, z


def token_in_place(S, z, q, k, v):
    S, z = S.clone(), z.clone()
    S += v[:, None] * k
    z += k
    return S @ q / z.dot(q), S, z


def token_joined(S, z, q, k, v):
    both = torch.cat([S, z[None]]) + torch.outer(torch.cat([v, torch.ones_like(v[:1])]), k)
    y = both @ q
    return y[:-1] / y[-1], both[:-1], both[-1]


def layer_cumsum(X, W_q, W_k, W_v, S, z):
    Q, K, V = phi(X @ W_q.T), phi(X @ W_k.T), X @ W_v.T
    S = S + (V[:, :, None] * K[:, None, :]).cumsum(0)
    z = z + K.cumsum(0)
    return torch.einsum("tvd,td->tv", S, Q) / (z * Q).sum(1, keepdim=True), S[-1], z[-1]


def layer_masked(X, W_q, W_k, W_v, S, z):
    Q, K, V = phi(X @ W_q.T), phi(X @ W_k.T), X @ W_v.T
    weights = torch.tril(Q @ K.T)
    return (weights @ V + Q @ S.T) / (weights.sum(1) + Q @ z)[:, None], S + V.T @ K, z + K.sum(0)


def layer_rows(X, W_q, W_k, W_v, S, z):
    Y = torch.zeros(len(X), len(W_v), dtype=X.dtype)
    for t, (q, k, v) in enumerate(zip(phi(X @ W_q.T), phi(X @ W_k.T), X @ W_v.T)):
        Y[t], S, z = token_joined(S, z, q, k, v)
    return Y, S, z


MUTANTS = {
    "03-fit": {
        "linear weights": lambda q, K, V, temperature: (K @ q) @ V / (K @ q).sum(),
        "temperature squared": lambda q, K, V, temperature: torch.softmax(K @ q / temperature**2, 0) @ V,
        "farthest": lambda q, K, V, temperature: torch.softmax(-K @ q / temperature, 0) @ V,
        "nearest": lambda q, K, V, temperature: V[(K @ q).argmax()],
    },
    "03-hot": {
        "mean": lambda q, K, V, temperature: V.mean(0) + 0 * q.sum(),
        "temperature squared": lambda q, K, V, temperature: hot_loop(q, K, V, temperature**2),
        "second order": lambda q, K, V, temperature: (1 + (x := K @ q / temperature) + x * x / 2) @ V / len(K),
        "wrong way": lambda q, K, V, temperature: hot_loop(-q, K, V, temperature),
        "cold": lambda q, K, V, temperature: hot_loop(q, K, V, 1 / temperature),
    },
    "03-token": {
        "overwrites": lambda S, z, q, k, v: (torch.outer(v, k) @ q / (k @ q), torch.outer(v, k), k),
        "keeps z": lambda S, z, q, k, v: ((S + torch.outer(v, k)) @ q / (z @ q), S + torch.outer(v, k), z),
        "asks with k": lambda S, z, q, k, v: token_joined(S, z, k, k, v),
        "old state returned": lambda S, z, q, k, v: (token_joined(S, z, q, k, v)[0], S, z),
        "counts": lambda S, z, q, k, v: (*token_joined(S, z, q, k, v)[:2], z + 1),
    },
    "03-layer": {
        "last answer": lambda X, W_q, W_k, W_v, S, z: (
            layer_rows(X, W_q, W_k, W_v, S, z)[0][-1:].expand(len(X), -1),
            *layer_rows(X, W_q, W_k, W_v, S, z)[1:],
        ),
        "keys asked": lambda X, W_q, W_k, W_v, S, z: layer_rows(X, W_k, W_k, W_v, S, z),
        "relu": lambda X, W_q, W_k, W_v, S, z: layer_rows(X.relu(), W_q, W_k, W_v, S, z),
        "state of the start": lambda X, W_q, W_k, W_v, S, z: (layer_rows(X, W_q, W_k, W_v, S, z)[0], S, z),
        "backwards": lambda X, W_q, W_k, W_v, S, z: layer_rows(X.flip(0), W_q, W_k, W_v, S, z),
    },
    "03-mask": {
        "no mask": lambda Q, K, V: torch.softmax(scores(Q, K), -1) @ V,
        "zero scores": lambda Q, K, V: torch.softmax(torch.tril(scores(Q, K)), -1) @ V,
        "normalised over queries": lambda Q, K, V: (
            torch.nan_to_num(torch.softmax(scores(Q, K).masked_fill(upper(len(K), 1), -torch.inf), 0)) @ V
        ),
    },
    "03-linear": {
        "features squared": lambda Q, K, V: linear_ones(Q * Q, K * K, V),
        "divided by t": lambda Q, K, V: torch.tril(Q @ K.T) @ V / torch.arange(1, len(K) + 1, dtype=V.dtype)[:, None],
        "strict": lambda Q, K, V: torch.nan_to_num(
            torch.tril(w := Q @ K.T, -1) @ V / torch.tril(w, -1).sum(1, keepdim=True)
        ),
    },
    "03-cache": {
        "bytes": 2**32,
    },
}

ACCEPTED = {
    "03-fit": {
        "a loop": fit_loop,
        "least squares": fit_by_lstsq,
        "softmax": lambda q, K, V, temperature: torch.softmax(K @ q / temperature, 0) @ V,
    },
    "03-hot": {"keys centred instead": hot_centred_keys, "a loop": hot_loop, "as a covariance": hot_covariance},
    "03-token": {"row by row": token_fresh, "in place on a copy": token_in_place, "one matrix": token_joined},
    "03-layer": {"running sums": layer_cumsum, "all at once": layer_masked, "a table of answers": layer_rows},
    "03-mask": {
        "a loop": attend_loop,
        "exponentials": attend_exp,
        "torch": lambda Q, K, V: torch.nn.functional.scaled_dot_product_attention(Q, K, V, is_causal=True),
    },
    "03-linear": {"a loop": linear_loop, "cumulative sums": linear_cumsum, "a column of ones": linear_ones},
    "03-cache": {"exact": 2**31, "rounded": 2.1e9, "in words": "2.15 billion"},
}
