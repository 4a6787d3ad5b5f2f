"""The definition of the continuum memory system: one sequence, one token at a time, gradients by autograd, no
tricks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nlbook.cms.layer import CMS, META_LR
from nlbook.cms.local import VALUE_SCALE
from nlbook.numerics import rms

_ACT: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "tanh": torch.tanh,
    "relu": F.relu,
    "identity": lambda z: z,
}


def cms_reference(
    cms: CMS, x: Tensor, target: Tensor | None = None
) -> tuple[Tensor, list[dict[str, Tensor]], dict[str, Any]]:
    """Eq. 70-74 token by token for ONE sequence: x (length, dim), target (length, ...) where the objective is a loss.

    Reads the settings and initial states of `cms`. Token t is read with the weights of the last completed chunk of
    every level; its gradient at those weights joins each level's buffer; then the levels whose chunk is full move.
    Call it under torch.enable_grad (the default); the result can be differentiated. Returns y (length, dim), the final
    weights per level, and {"updates": [...], "restarts": [...], "starts": [...]}.
    """
    k, C = len(cms.periods), cms.periods
    act = _ACT[cms.mlp.activation]
    theta = [{"up": cms.up[i], "down": cms.down[i]} for i in range(k)]
    phi = [dict(t) for t in theta]  # start states; used by the nested variant
    inner = [{n: cms.inner.init(w[None]) for n, w in t.items()} for t in theta]
    buffer = [{n: torch.zeros_like(w) for n, w in t.items()} for t in theta]
    meta = [{n: torch.zeros_like(w) for n, w in t.items()} for t in theta]
    clock, updates, restarts = [0] * k, [0] * k, [0] * k
    norm = rms if cms.mlp.norm else (lambda h: h)

    def mlp(w: dict[str, Tensor], n: Tensor) -> Tensor:
        return act(n @ w["up"].mT) @ w["down"].mT

    def read(weights: list[dict[str, Tensor]], h: Tensor) -> tuple[Tensor, list[Tensor]]:
        """y of one token, and the normalised input of every level."""
        if cms.variant == "headwise":  # eq. 74
            mix = torch.softmax(cms.mix, 0)
            n = norm(h)
            return h + sum((mix[i] * mlp(w, n) for i, w in enumerate(weights)), torch.zeros_like(h)), [n] * k
        inputs = []
        for w in weights:  # eq. 70
            inputs.append(norm(h))
            h = h + mlp(w, inputs[-1])
        return h, inputs

    ys = []
    for t in range(x.shape[0]):
        # Aliases: eq. 71 takes its gradient at the present weights, not through how they came about. Without aliases a
        # slow level that has not moved yet is an ancestor of the fast ones, and autograd returns the total derivative.
        here = [{n: w * 1.0 for n, w in th.items()} for th in theta]
        if callable(cms.objective):
            assert target is not None
            y, _ = read(here, x[t])
            loss = cms.objective(y[None, None], target[t][None, None]).sum()
        else:  # each level fits keys and values of its own; its input is a constant for it
            y, inputs = read(theta, x[t])
            loss = x.new_zeros(())
            for i, src in enumerate(inputs):
                key, value = rms(src @ cms.key[i].mT), VALUE_SCALE * rms(src @ cms.value[i].mT)
                loss = loss + 0.5 * (mlp(here[i], key) - value).square().sum()
        ys.append(y)
        keep = torch.is_grad_enabled()
        with torch.enable_grad():
            it = iter(torch.autograd.grad(loss, [w for th in here for w in th.values()], create_graph=keep))
        grads = [{n: next(it) for n in th} for th in here]
        for i in range(k):
            buffer[i] = {n: buffer[i][n] + grads[i][n] for n in buffer[i]}
            meta[i] = {n: meta[i][n] + grads[i][n] for n in meta[i]}
            clock[i] += 1
        full = [clock[i] == C[i] for i in range(k)]
        for i in range(k):
            if full[i]:  # eq. 71: the sum over the C tokens t-C+1 .. t
                for n in theta[i]:
                    g = buffer[i][n] / C[i] if cms.reduce == "mean" else buffer[i][n]
                    new, inner[i][n] = cms.inner.step(theta[i][n][None], g[None], inner[i][n], cms.rate(i))
                    theta[i] = {**theta[i], n: new[0]}
                buffer[i] = {n: torch.zeros_like(w) for n, w in buffer[i].items()}
                clock[i], updates[i] = 0, updates[i] + 1
        broken = False
        for i in reversed(range(k - 1 if cms.variant == "nested" else 0)):  # eq. 72
            if not (full[i + 1] or broken):
                continue
            if full[i + 1]:
                scale = META_LR / (C[i + 1] if cms.reduce == "mean" else 1)
                phi[i] = {n: p - scale * meta[i][n] for n, p in phi[i].items()}
            theta[i] = dict(phi[i])
            inner[i] = {n: cms.inner.init(w[None]) for n, w in phi[i].items()}
            buffer[i] = {n: torch.zeros_like(w) for n, w in phi[i].items()}
            meta[i] = {n: torch.zeros_like(w) for n, w in phi[i].items()}
            clock[i], restarts[i], broken = 0, restarts[i] + 1, True
    return torch.stack(ys), theta, {"updates": updates, "restarts": restarts, "starts": phi}
