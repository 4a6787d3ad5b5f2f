"""Where a layer's rule is an operator of nlkernels, whole chunks go through that one call: fused on a GPU.

    NeuralMemory, linear, with momentum       titans_memory
    NeuralMemory, linear, without momentum    linear_memory
    NeuralMemory, two layers, no momentum     mlp_memory
    SelfModifyingTitans, linear               selfref_memory

Each function says which settings are the operator's own. The others have no operator and stay with `chunked.py`: a
two-layer memory with momentum, implicit rates, retention towards the initial state, factor "first" or "unit"; and for
self-modifying layers a convolution after M_k and M_v, memories with a pace or a chunk of their own, two-layer memories.
"""

from __future__ import annotations

from typing import Any

import torch
from nlkernels import SelfRefState, linear_memory, mlp_memory, selfref_memory, titans_memory
from torch import Tensor

from nlbook.titans.rules import Weights


def _plain(layer: Any) -> bool:
    """Choices that no operator has are at their plain values."""
    r = layer.rule
    return r.rate == "explicit" and r.retention == "zero" and r.factor in ("raw", None)


def for_neural_memory(layer: Any) -> str | None:
    """The operator whose rule this `NeuralMemory` has, or None."""
    if not _plain(layer):
        return None
    if not layer.has_momentum:
        return "linear_memory" if layer.memory == "linear" else "mlp_memory"
    fits = layer.memory == "linear" and layer.rule.factor is None and layer.rule.objective == "l2"
    return "titans_memory" if fits else None


def for_self_modifying(layer: Any) -> str | None:
    """The operator whose rule this `SelfModifyingTitans` has, or None."""
    chunks = {g.chunk for g in layer.groups.values()}
    fits = (
        layer.memory == "linear"
        and _plain(layer)
        and layer.rule.factor == "raw"
        and layer.rule.read == "start"
        and len(chunks) == 1
        and layer.decay
        and layer.self_values
        and not layer.has_momentum
        and not layer.conv
        and layer.activation == "none"
        and not layer.adaptive_q
        and layer.other_rate is None
        and set(layer.adaptive) == {"mem", "k", "v", "eta", "alpha"}
    )
    return "selfref_memory" if fits else None


def _keep(log_keep: Tensor) -> Tensor:
    """alpha > 0: the chunk forms work with its logarithm."""
    return log_keep.exp().clamp_min(torch.finfo(log_keep.dtype).tiny)


def run_neural_memory(
    name: str, layer: Any, q: Tensor, k: Tensor, v: Tensor, gates: Any, now: Weights, momentum: Weights
) -> tuple[Tensor, Weights, Weights]:
    """Whole chunks of a NeuralMemory: q, k, v (batch, head, length, width), gates (batch, head, 1, length); weights
    (batch, head, 1, out, in). Returns y, the new weights, the new momentum.
    """
    rule, chunk = layer.rule, layer.groups["mem"].chunk
    keep, eta = _keep(gates.log_keep)[:, :, 0], gates.eta[:, :, 0]
    W = {n: w[:, :, 0] for n, w in now.items()}
    erase = rule.factor == "raw"
    new: Weights
    S: Weights = {}
    if name == "linear_memory":
        y, M = linear_memory(
            q, k, v, keep, eta if erase else None, eta, W["W"], chunk=chunk, objective=rule.objective, read=rule.read
        )
        new = {"W": M}
    elif name == "titans_memory":
        y, M, S_end = titans_memory(
            q,
            k,
            v,
            keep,
            _keep(gates.log_mu)[:, :, 0],
            eta,
            W["W"],
            momentum["W"][:, :, 0],
            chunk=chunk,
            read=rule.read,
        )
        new, S = {"W": M}, {"W": S_end}
    else:
        y, W1, W2 = mlp_memory(
            q, k, v, keep, eta, W["W1"], W["W2"], chunk=chunk, objective=rule.objective, read=rule.read, erase=erase
        )
        new = {"W1": W1, "W2": W2}
    new, S = ({n: w.to(q.dtype)[:, :, None] for n, w in ws.items()} for ws in (new, S))
    return y, new, S


def run_self_modifying(layer: Any, x: Tensor, q: Tensor, now: dict[str, Weights]) -> tuple[Tensor, dict[str, Weights]]:
    """Whole chunks of a linear SelfModifyingTitans: x, q (batch, head, length, width). Returns y, the new weights."""
    proj, gate = now["proj"]["W"], now["gate"]["W"]
    batch = x.shape[0]
    state = SelfRefState(proj[:, :, 0], proj[:, :, 1], now["mem"]["W"][:, :, 0], gate[:, :, 0, 0], gate[:, :, 1, 0])
    y, end = selfref_memory(
        x,
        q,
        state,
        b_eta=layer.b_eta.expand(batch, -1),
        b_alpha=layer.b_alpha.expand(batch, -1),
        eta_max=layer.eta_max,
        chunk=layer.groups["mem"].chunk,
        objective=layer.rule.objective,
        unit_values=layer.normalise_v,
    )
    k, v, mem, eta, alpha = (w.to(x.dtype) for w in end)
    return y, {
        "mem": {"W": mem[:, :, None]},
        "proj": {"W": torch.stack([k, v], 2)},
        "gate": {"W": torch.stack([eta, alpha], 2)[..., None, :]},
    }
