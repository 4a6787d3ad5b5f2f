"""Chapter 02: wrong answers that its checks must refuse, and right ones that they must accept."""

from __future__ import annotations

import math

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


def sgd_by_autograd(W0, X, labels, lr):
    W, written = W0.detach(), []
    for x, label in zip(X, labels):
        y = (W @ x).requires_grad_()
        written.append(torch.autograd.grad(torch.nn.functional.cross_entropy(y[None], label[None]), y)[0])
        W = W - lr * torch.outer(written[-1], x)
    return torch.stack(written)


def sgd_from_the_list(W0, X, labels, lr):
    written = []
    for t in range(len(X)):
        y = dual_loop(W0, X[:t], written, lr, X[t])
        written.append(softmax_by_hand(y, int(labels[t])))
    return torch.stack(written)


def sgd_filled(W0, X, labels, lr):
    written = torch.zeros(len(X), len(W0), dtype=W0.dtype)
    for t, x in enumerate(X):  # rows that are not written yet are zero
        written[t] = torch.softmax(W0 @ x - lr * (X @ x) @ written, -1)
        written[t, labels[t]] -= 1
    return written


def sgd_mutant(surprise):
    def run(W0, X, labels, lr):
        W, written = W0, []
        for x, label in zip(X, labels):
            written.append(surprise(torch.softmax(W @ x, -1), torch.eye(len(W), dtype=W.dtype)[label]))
            W = W - lr * torch.outer(written[-1], x)
        return torch.stack(written)

    return run


def local_by_autograd(W2, delta2, z1):
    z = z1.detach().requires_grad_()
    return torch.autograd.grad((W2.detach() @ torch.tanh(z)) @ delta2.detach(), z)[0]


def dgd_by_solve(W, x, delta, eta):
    A = torch.outer(x, x) + torch.eye(len(x), dtype=x.dtype) / eta
    return torch.linalg.solve(A, W / eta - torch.outer(delta, x), left=False)


def dgd_in_two(W, x, delta, eta):
    a = (W @ x + delta) / (1 + eta * x.square().sum())
    return W - eta * torch.outer(a, x)


def dgd_as_erase_and_write(W, x, delta, eta):
    r = eta / (1 + eta * x.square().sum())
    return W @ (torch.eye(len(x), dtype=x.dtype) - r * torch.outer(x, x)) - r * torch.outer(delta, x)


def inner_by_autograd(m, v, eta, keep):
    z = m.detach().requires_grad_()
    loss = -(z * v.detach()).sum() + (1 - keep) / (2 * eta) * (z * z).sum()
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
    "02-build": {
        "sigmoid": sgd_mutant(lambda p, onehot: torch.sigmoid(p) - onehot),
        "one hot": sgd_mutant(lambda p, onehot: -onehot),
        "target minus prediction": sgd_mutant(lambda p, onehot: onehot - p),
    },
    "02-local": {
        "slope twice": lambda W2, delta2, z1: (1 - torch.tanh(z1) ** 2) ** 2 * (W2.T @ delta2),
        "sign": lambda W2, delta2, z1: -(1 - torch.tanh(z1) ** 2) * (W2.T @ delta2),
    },
    "02-dgd": {
        "erase only": lambda W, x, delta, eta: W - eta / (1 + eta * (x @ x)) * torch.outer(W @ x, x),
        "length, not square": lambda W, x, delta, eta: W - eta / (1 + eta * x.norm()) * torch.outer(W @ x + delta, x),
    },
    "02-inner": {"sign": lambda m, v, eta, keep: v - (1 - keep) / eta * m},
    "02-horizon": {
        "one too many": lambda beta, share: horizon_by_sum(beta, share) + 1,
        "always half": lambda beta, share: horizon_by_sum(beta, 0.5),
        "not whole": lambda beta, share: math.log(1 - share) / math.log(beta),
    },
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
    "02-build": {"autograd": sgd_by_autograd, "a list": sgd_from_the_list, "filled in": sgd_filled},
    "02-local": {
        "autograd": local_by_autograd,
        "cosh": lambda W2, delta2, z1: (W2.T @ delta2) / torch.cosh(z1) ** 2,
        "row": lambda W2, delta2, z1: (delta2 @ W2) * (1 - z1.tanh().square()),
    },
    "02-dgd": {"solve": dgd_by_solve, "two lines": dgd_in_two, "erase and write": dgd_as_erase_and_write},
    "02-inner": {
        "by autograd": inner_by_autograd,
        "one fraction": lambda m, v, eta, keep: ((1 - keep) * m - eta * v) / eta,
        "from the step": lambda m, v, eta, keep: (m - (keep * m + eta * v)) / eta,
    },
    "02-horizon": {"by logarithm": horizon_by_log, "by summing": horizon_by_sum, "by table": horizon_by_tensor},
}
