"""Chapter 02: wrong answers that its checks must refuse, and right ones that they must accept."""

from __future__ import annotations

import torch


def softmax_by_hand(y, label):
    e = (y - y.max()).exp()
    p = e / e.sum()
    return torch.stack([p[i] - (1.0 if i == label else 0.0) for i in range(len(y))])


def surprise_by_autograd(y, label):
    z = y.detach().requires_grad_()
    return torch.autograd.grad(torch.nn.functional.cross_entropy(z[None], torch.tensor([label])), z)[0]


def dual_loop(W0, keys, surprises, lr, q):
    y = W0 @ q
    for x, s in zip(keys, surprises):
        y = y - lr * (x @ q) * s
    return y


def train_by_autograd(W0, X, Y, lr):
    W = W0.clone()
    for x, y in zip(X, Y):
        Z = W.detach().requires_grad_()
        W = W - lr * torch.autograd.grad(0.5 * (Z @ x - y).square().sum(), Z)[0]
    return W


def train_by_delta(W0, X, Y, lr):
    W = W0.clone()
    for x, y in zip(X, Y):
        W = W - lr * torch.outer(W @ x, x) + lr * torch.outer(y, x)
    return W


def local_by_autograd(W2, delta2, z1):
    z = z1.detach().requires_grad_()
    return torch.autograd.grad((W2.detach() @ torch.tanh(z)) @ delta2.detach(), z)[0]


def train(step):
    def loop(W0, X, Y, lr):
        W = W0.clone()
        for x, y in zip(X, Y):
            W = W - lr * step(W, x, y)
        return W

    return loop


MUTANTS = {
    "02-surprise": {
        "one hot": lambda y, label: -torch.eye(len(y), dtype=y.dtype)[label],
        "sigmoid": lambda y, label: torch.sigmoid(y) - torch.eye(len(y), dtype=y.dtype)[label],
        "twice": lambda y, label: 2 * (torch.softmax(y, -1) - torch.eye(len(y), dtype=y.dtype)[label]),
    },
    "02-dual": {
        "start only": lambda W0, keys, surprises, lr, q: W0 @ q,
        "last step missing": lambda W0, keys, surprises, lr, q: W0 @ q - lr * (keys[:-1] @ q) @ surprises[:-1],
    },
    "02-frozen": {
        "hebbian": train(lambda W, x, y: -torch.outer(y, x)),
        "erase only": train(lambda W, x, y: torch.outer(W @ x, x)),
        "ascends": train(lambda W, x, y: -torch.outer(W @ x - y, x)),
        "whole square": train(lambda W, x, y: 2 * torch.outer(W @ x - y, x)),
        "first pair only": lambda W0, X, Y, lr: train_by_delta(W0, X[:1], Y[:1], lr),
    },
    "02-local": {
        "slope twice": lambda W2, delta2, z1: (1 - torch.tanh(z1) ** 2) ** 2 * (W2.T @ delta2),
        "sign": lambda W2, delta2, z1: -(1 - torch.tanh(z1) ** 2) * (W2.T @ delta2),
    },
    "02-half": {
        "third": 0.33,
        "two": 2,
    },
    "02-picture": {"before training": 100.0, "negative": -100.0, "a bit off": 50.0, "minus a bit": -50.0, "far": 1e6},
}

ACCEPTED = {
    "02-surprise": {
        "by hand": softmax_by_hand,
        "autograd": surprise_by_autograd,
        "one hot": lambda y, label: torch.softmax(y, -1) - torch.eye(len(y), dtype=y.dtype)[label],
    },
    "02-dual": {
        "a loop": dual_loop,
        "einsum": lambda W0, keys, surprises, lr, q: W0 @ q - lr * torch.einsum("ti,i,to->o", keys, q, surprises),
        "matrix": lambda W0, keys, surprises, lr, q: W0 @ q - lr * (surprises.T @ (keys @ q)),
    },
    "02-frozen": {
        "autograd": train_by_autograd,
        "erase and write": train_by_delta,
        "a loop": train(lambda W, x, y: torch.outer(W @ x - y, x)),
    },
    "02-local": {
        "autograd": local_by_autograd,
        "cosh": lambda W2, delta2, z1: (W2.T @ delta2) / torch.cosh(z1) ** 2,
        "row": lambda W2, delta2, z1: (delta2 @ W2) * (1 - z1.tanh().square()),
    },
    "02-picture": {"the label": 0.62, "rounded": 0.6, "three digits": 0.622},
    "02-half": {"half": 0.5, "fraction": "1/2", "percent": "50 %"},
}
