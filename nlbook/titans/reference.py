"""The definitions, one sequence, one token, one memory at a time; gradients by autograd. No tricks, and no speed."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from nlbook.titans.layer import FastLayer
from nlbook.titans.memory import NeuralMemory
from nlbook.titans.rules import Rule, Weights
from nlbook.titans.selfmod import SelfModifyingTitans


def _apply(S: Weights, x: Tensor) -> Tensor:
    """Eq. 89, 91 for one row x (in) -> (out); the residual only where the memory answers in its input's space."""
    if "W" in S:
        return S["W"] @ x
    o = S["W1"] @ F.silu(S["W2"] @ x)
    return x + o if S["W1"].shape[0] > 1 else o


def _unit(x: Tensor) -> Tensor:
    return x / (x @ x + 1e-12).sqrt()


def _filter(rows: list[Tensor], taps: Tensor) -> Tensor:
    """The convolution at the last of `rows`; taps (width, dim), the last one for the present row."""
    width = len(taps)
    return sum((taps[width - 1 - j] * rows[-1 - j] for j in range(min(width, len(rows)))), torch.zeros_like(rows[-1]))


def _write(
    W_t: Weights,
    start: Weights,
    S_t: Weights | None,
    k: Tensor,
    value: Tensor,
    alpha: Tensor,
    eta: Tensor,
    mu: Tensor | None,
    rule: Rule,
) -> tuple[Weights, Weights | None]:
    """Eq. 88, 90 for one memory: the gradient at `start` with `value` held fixed, the rest at the running state."""
    own = {n: w * 1.0 for n, w in start.items()}
    out = _apply(own, k)
    loss = 0.5 * ((out - value) ** 2).sum() if rule.objective == "l2" else -(out @ value)
    grads = dict(zip(own, torch.autograd.grad(loss, list(own.values()), create_graph=True)))
    new: Weights = {}
    push: Weights = {}
    for n, W in W_t.items():
        a = F.silu(start["W2"] @ k) if n == "W1" else k
        pace = eta if rule.rate == "explicit" else eta / (1 + eta * (a @ a))
        if rule.radius is not None:  # the gradient e a^T has the norm |e| |a|
            room = rule.radius * (1 - alpha) * (1 if mu is None or S_t is None else 1 - mu)
            caps = [room / grads[n].norm(), *([2 * alpha / (a @ a)] if rule.factor else [])]
            pace = torch.stack([pace, *caps]).amin()
        row = torch.zeros_like(a) if rule.factor is None else a
        push[n] = -pace * grads[n] if S_t is None or mu is None else mu * S_t[n] - pace * grads[n]
        new[n] = W @ (alpha * torch.eye(len(a), dtype=a.dtype) - pace * torch.outer(row, row)) + push[n]
    return new, None if S_t is None else push


def _boxes(layer: FastLayer, head: int) -> dict[str, Weights]:
    return {
        b: {n: w[head, j] for n, w in layer.initial_weights(g).items()}
        for g, group in layer.groups.items()
        for j, b in enumerate(group.names)
    }


def self_modifying_reference(layer: SelfModifyingTitans, x: Tensor) -> tuple[Tensor, list[dict[str, Weights]]]:
    """Eq. 83-88, 90 and 94-96 token by token for one sequence x (length, dim), with the settings and starts of `layer`.

    Returns y (length, dim) and, per head, the final weights of each box.
    """
    ys, finals = [], []
    d = layer.width
    chunk = {b: g.chunk for g in layer.groups.values() for b in g.names}
    for h in range(layer.heads):
        first = _boxes(layer, h)
        now, start = dict(first), dict(first)
        S = {
            b: {n: torch.zeros_like(w) for n, w in ws.items()} if layer.rule.momentum else None
            for b, ws in first.items()
        }
        raw: dict[str, list[Tensor]] = {"q": [], "k": [], "v": []}
        out = []
        for t in range(x.shape[0]):
            for b in now:
                if t % chunk[b] == 0:
                    start[b] = now[b]  # index C floor((t-1)/C), t counted from 1
            xt = x[t, h * d : (h + 1) * d]
            q = _apply(start["q"], xt) if layer.adaptive_q else layer.W_q[h * d : (h + 1) * d] @ x[t]
            z = {}
            for j, (name, row) in enumerate({"q": q, "k": _apply(start["k"], xt), "v": _apply(start["v"], xt)}.items()):
                raw[name].append(row)
                c = _filter(raw[name], layer.taps[h, j]) if layer.conv else row
                z[name] = F.silu(c) if layer.activation == "silu" else c
            q, k = _unit(z["q"]), _unit(z["k"])
            v = _unit(z["v"]) if layer.rule.normalise_v else z["v"]
            eta = layer.eta_max * torch.sigmoid(_apply(start["eta"], xt)[0] + layer.b_eta[h])
            alpha = (
                torch.sigmoid(_apply(start["alpha"], xt)[0] + layer.b_alpha[h]) if layer.decay else torch.ones_like(eta)
            )
            mu = torch.sigmoid(layer.w_mu[h] @ x[t] + layer.b_mu[h]) if layer.rule.momentum else None
            new = {}
            for b, W in now.items():
                own = layer.rule.self_values or b in ("eta", "alpha")
                value = _apply(start[b], v) if own else v  # eq. 84, 87
                new[b], pushed = _write(W, start[b], S[b], k, value, alpha, eta, mu, layer.rule)
                if b in layer.adaptive:
                    S[b] = pushed
                else:
                    new[b] = W
            state = {"start": start["mem"], "before": now["mem"], "after": new["mem"]}[layer.rule.read]
            out.append(_apply(state, q))
            now = new  # all boxes at once
        ys.append(torch.stack(out))
        finals.append(now)
    return torch.cat(ys, -1), finals


def neural_memory_reference(layer: NeuralMemory, x: Tensor) -> tuple[Tensor, list[dict[str, Weights]]]:
    """Eq. 76-78 with Titans' momentum, token by token for one sequence x (length, dim). Returns as above."""
    ys, finals = [], []
    d = layer.width
    for h in range(layer.heads):
        first = _boxes(layer, h)["mem"]
        now = start = first
        S = {n: torch.zeros_like(w) for n, w in first.items()} if layer.rule.momentum else None
        raw: list[list[Tensor]] = [[], [], []]
        out = []
        for t in range(x.shape[0]):
            if t % layer.groups["mem"].chunk == 0:
                start = now
            z = []
            for j in range(3):
                raw[j].append((layer.W_qkv[j] @ x[t])[h * d : (h + 1) * d])
                c = _filter(raw[j], layer.taps[h, j]) if layer.conv else raw[j][-1]
                c = F.silu(c) if layer.activation == "silu" else c
                z.append(_unit(c) if j < 2 or layer.rule.normalise_v else c)
            q, k, v = z
            eta, alpha, mu = (layer.w_gate[j, h] @ x[t] + layer.b_gate[j, h] for j in range(3))
            alpha = torch.sigmoid(alpha) if layer.decay else torch.ones_like(alpha)
            new, S = _write(
                now, start, S, k, v, alpha, layer.eta_max * torch.sigmoid(eta), torch.sigmoid(mu), layer.rule
            )
            out.append(_apply({"start": start, "before": now, "after": new}[layer.rule.read], q))
            now = new
        ys.append(torch.stack(out))
        finals.append({"mem": now})
    return torch.cat(ys, -1), finals
