"""Muon: momentum read through an orthogonalisation (eq. 42, 52), and Newton-Schulz as an inner problem (eq. 43-44).

The momentum of a matrix weight is dominated by a few directions; Muon replaces its singular values by (about) 1 before
it steps, so that every direction that the memory holds is read with the same strength.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from nlkernels import newton_schulz
from torch import Tensor, nn

from nlbook.errors import need, need_choice, need_int, need_number
from nlbook.levels.order import Component
from nlbook.optim.base import GradientMemory, Group, adamw_, as_matrix, decay_, options
from nlbook.ranks import spread, whole

POLYNOMIALS = ("quintic", "cubic")


# --- Newton-Schulz as gradient descent (eq. 43-44) ---


def orthogonality_loss(O: Tensor) -> Tensor:
    """|O^T O - I|_F^2 (eq. 43), zero where the columns of O (n, m), n >= m, are orthonormal.

    Its gradient is 4 O (O^T O - I). Gradient descent with rate 1/8 is the cubic Newton-Schulz map (3 O - O O^T O) / 2:
    started at g / |g| it converges to the polar factor U V^T of g. The text says that the objective also keeps O close
    to g; as printed nothing does.
    """
    gram = O.mT @ O
    return (gram - torch.eye(gram.shape[-1], dtype=O.dtype, device=O.device)).square().sum()


def proximal_orthogonality_loss(O: Tensor, g: Tensor) -> Tensor:
    """|O - g|_F^2 / 2 + |O^T O - I|_F^2 / 2: what the printed eq. 44 really is a gradient step of."""
    return (O - g).square().sum() / 2 + orthogonality_loss(O) / 2


def orthogonality_step(O: Tensor, g: Tensor | None, rate: float) -> Tensor:
    """One step of eq. 44, O - rate (O - g + 2 O (O^T O - I)); without the pull to g for `g=None` (errata).

    From O = g with rate 1/4 the first step is the cubic map either way. Iterated with the pull it does *not*
    orthogonalise: a singular value s0 of g ends at the root of 2 s^3 - s - s0 = 0, between 0.707 and 1 for s0
    in (0, 1). Muon's quintic is no such step for any rate.
    """
    gram = O.mT @ O
    slope = 2 * O @ (gram - torch.eye(gram.shape[-1], dtype=O.dtype, device=O.device))
    return O - rate * (slope if g is None else O - g + slope)


# --- orthogonalising a list of gradients, fast ---


def orthogonalise(tensors: list[Tensor], steps: int = 5, polynomial: str = "quintic") -> list[Tensor]:
    """Newton-Schulz of each tensor (a convolution as (out, rest)), equal shapes in one batched product: `nlkernels`.

    Scale-free: c * m and m give the same for c > 0, which is why a learning rate inside m has no effect (eq. 42,
    errata). A zero tensor stays zero, and so does one whose entries are all below the smallest normal number.
    """
    if any(whole(t) is not t for t in tensors):  # a shard has other singular values than its matrix
        return [spread(o, t) for o, t in zip(orthogonalise([whole(t) for t in tensors], steps, polynomial), tensors)]
    matrices = scaled([as_matrix(t) for t in tensors])
    small = [i for i, m in enumerate(matrices) if m.device.type != "cpu" or m.numel() <= CACHED]
    done = dict(zip(small, newton_schulz([matrices[i] for i in small], steps, polynomial, eps=TINY), strict=True))
    return [
        (done[i] if i in done else newton_schulz(m, steps, polynomial, eps=TINY)).reshape(t.shape).contiguous()
        for i, (m, t) in enumerate(zip(matrices, tensors, strict=True))
    ]


def scaled(matrices: list[Tensor]) -> list[Tensor]:
    """Each matrix times a power of two that brings its largest entry near 1: its squares then stay in the range."""
    factors = []
    for top in torch._foreach_norm(matrices, math.inf):
        limit = torch.finfo(top.dtype)
        most = math.frexp(limit.max)[1] - 2  # 2^most and 2^-most are normal numbers
        exponent = torch.frexp(top).exponent.clamp(-most, most)
        factors.append(torch.where(top < limit.tiny, 0, torch.ldexp(torch.ones_like(top), -exponent)))
    return list(torch._foreach_mul(matrices, factors))


CACHED = 1 << 14  # elements; on a CPU larger matrices go one by one: each stays in the cache for all of its steps
TINY = 1e-30  # keeps 0 / 0 away, for a matrix whose largest entry is about 1 or which is zero


# --- which parameters are matrices ---


def matrix_groups(model: nn.Module, adamw: Iterable[str] = (), **options: Any) -> list[Group]:
    """Split a model into a "matrix" and an "adamw" param group, the usual way for Muon and M3.

    AdamW takes vectors and scalars, every nn.Embedding, and each parameter whose name contains one of `adamw`: name the
    output head there, and what turns raw input into features (Muon's authors do; nothing in a module's type tells).

    Args:
        adamw: parts of names, for example ("head", "position").
        options: options of the matrix group, for example lr=0.02.

    Returns:
        Param groups for `Muon` and `M3`; an empty one is left out.
    """
    parts = tuple(adamw)
    words = not isinstance(adamw, str) and all(isinstance(part, str) for part in parts)
    need(words, "adamw", repr(adamw), "a sequence of strings, such as ('head',)")
    embedded = {p for m in model.modules() if isinstance(m, (nn.Embedding, nn.EmbeddingBag)) for p in m.parameters()}
    matrices: list[Tensor] = []
    rest: list[Tensor] = []
    names: dict[nn.Parameter, list[str]] = {}  # a shared weight has several names, and each may be meant
    for name, p in model.named_parameters(remove_duplicate=False):
        names.setdefault(p, []).append(name)
    for weight, own in names.items():
        told = any(part in name for part in parts for name in own)
        (rest if weight.ndim < 2 or weight in embedded or told else matrices).append(weight)
    unused = [part for part in parts if not any(part in name for own in names.values() for name in own)]
    need(not unused, "adamw", unused, "parts of the model's parameter names")
    groups = [{"params": matrices, "rule": "matrix", **options}, {"params": rest, "rule": "adamw"}]
    return [g for g in groups if g["params"]]


KEPT = "optimizer state"


def is_matrix(rule: str, p: Tensor) -> bool:
    """Whether a parameter takes the matrix rule: "auto" asks for two dimensions or more."""
    return rule == "matrix" or (rule == "auto" and p.ndim >= 2)


class MatrixOptimizer(GradientMemory):
    """Base of `Muon` and `M3`: matrices take the rule of the class, the other parameters AdamW with the same lr.

    `rule` of a param group is "auto" (two dimensions or more: matrix; else AdamW), "matrix" or "adamw".
    """

    def _check_group(self, group: Group) -> None:
        super()._check_group(group)
        need_choice("rule", group["rule"], ("auto", "matrix", "adamw"))
        need_number("weight_decay", group["weight_decay"])
        need_number("adamw_lr_ratio", group["adamw_lr_ratio"])
        check_betas("adamw_betas", group["adamw_betas"], 2)
        need_number("adamw_eps", group["adamw_eps"])
        need_int("ns_steps", group["ns_steps"], 0)
        need_choice("polynomial", group["polynomial"], POLYNOMIALS)
        for p in group["params"]:
            p = p[1] if isinstance(p, tuple) else p
            if group["rule"] == "matrix" and isinstance(p, Tensor):
                need(
                    p.ndim >= 2,
                    "params",
                    f"a parameter of shape {tuple(p.shape)} in a group with rule='matrix'",
                    "two dimensions or more (rule='auto' or 'adamw' takes it)",
                )

    def _matrix_update(self, group: Group, params: list[Tensor], grads: list[Tensor]) -> None:
        raise NotImplementedError

    def _matrix_components(self, group: Group) -> list[Component]:
        """What a matrix of this group has: its weights, and what is kept for them; periods in steps."""
        raise NotImplementedError

    def nested_components(self, group: Group) -> list[Component]:
        """For `levels_of`: the weights and memories of this group's first parameter; periods in steps."""
        if is_matrix(group["rule"], group["params"][0]):
            return self._matrix_components(group)
        return [
            Component("weights", 1, needs=frozenset({"exp_avg", "exp_avg_sq"})),
            Component("exp_avg", 1, kind=KEPT),
            Component("exp_avg_sq", 1, kind=KEPT),
        ]

    def _update(self, group: Group, params: list[Tensor], grads: list[Tensor]) -> None:
        kinds = [is_matrix(group["rule"], p) for p in params]
        matrices = [i for i, m in enumerate(kinds) if m]
        rest = [i for i, m in enumerate(kinds) if not m]
        if matrices:
            self._matrix_update(group, [params[i] for i in matrices], [grads[i] for i in matrices])
        if rest:
            p, g = [params[i] for i in rest], [grads[i] for i in rest]
            steps = self._ticks(p)
            first, second = self._states(p, "exp_avg", "exp_avg_sq")
            adamw_(
                p,
                g,
                first,
                second,
                steps,
                lr=group["lr"] * group["adamw_lr_ratio"],
                betas=group["adamw_betas"],
                eps=group["adamw_eps"],
                weight_decay=group["weight_decay"],
            )


def check_betas(name: str, betas: Any, n: int) -> None:
    """Raise unless `betas` is a sequence of n numbers in [0, 1)."""
    need(isinstance(betas, (tuple, list)) and len(betas) == n, name, repr(betas), f"{n} numbers in [0, 1)")
    for i, beta in enumerate(betas):
        need_number(f"{name}[{i}]", beta, 0, 1, open_high=True)


def shape_scale(shape: torch.Size, scale: str) -> float:
    """Factor on an orthogonalised update (out, in): "rms" 0.2 sqrt(max(out, in)), "spectral" sqrt(max(1, out/in)),
    "none" 1."""
    out, inside = shape[0], math.prod(shape[1:])
    return {"rms": 0.2 * math.sqrt(max(out, inside)), "spectral": math.sqrt(max(1.0, out / inside)), "none": 1.0}[scale]


class Muon(MatrixOptimizer):
    """Muon (eq. 42, corrected; an instance of eq. 52): m <- keep m + G, W <- W - lr * scale * NS(m).

    Errata: eq. 42 has the learning rate inside m, where the scale-free Newton-Schulz erases it.

    Args:
        params: parameters or groups; `matrix_groups(model, adamw=("head",))` makes the usual split.
        lr: >= 0 (default 3e-3, of AdamW's size with scale="rms").
        keep: retention of the momentum, in [0, 1) (default 0.95, as published).
        nesterov: orthogonalise G + keep * m instead of m (default True, as published).
        ns_steps: Newton-Schulz steps (default 5; 0 divides by the Frobenius norm only).
        polynomial: "quintic" (default, singular values end roughly in 0.5..1.2) | "cubic" (converges to exactly 1,
            needs 10-30 steps).
        scale: "rms" (default): the update has a root mean square of about 0.2, as AdamW's has, so one lr, one weight
            decay and one schedule serve all parameters (Moonlight); "spectral": the reference code's sqrt(max(1,
            out/in)), lr about 0.02, then set adamw_lr_ratio to about 0.015; "none".
        weight_decay: decoupled, on all parameters of the group (default 0).
        rule: "auto" | "matrix" | "adamw", per group.
        adamw_lr_ratio, adamw_betas, adamw_eps: AdamW's part takes lr * adamw_lr_ratio, so a schedule moves both.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 3e-3,
        keep: float = 0.95,
        nesterov: bool = True,
        ns_steps: int = 5,
        polynomial: str = "quintic",
        scale: str = "rms",
        weight_decay: float = 0.0,
        rule: str = "auto",
        adamw_lr_ratio: float = 1.0,
        adamw_betas: tuple[float, float] = (0.9, 0.95),
        adamw_eps: float = 1e-8,
    ) -> None:
        super().__init__(params, options(locals()))

    def _check_group(self, group: Group) -> None:
        super()._check_group(group)
        need_number("keep", group["keep"], 0, 1, open_high=True)
        need_choice("nesterov", group["nesterov"], (True, False))
        need_choice("scale", group["scale"], ("rms", "spectral", "none"))

    def _matrix_components(self, group: Group) -> list[Component]:
        return [Component("weights", 1, needs=frozenset({"momentum"})), Component("momentum", 1, kind=KEPT)]

    def _matrix_update(self, group: Group, params: list[Tensor], grads: list[Tensor]) -> None:
        (m,) = self._states(params, "momentum")
        lr, keep = group["lr"], group["keep"]
        torch._foreach_mul_(m, keep)
        torch._foreach_add_(m, grads)
        held = list(torch._foreach_add(grads, m, alpha=keep)) if group["nesterov"] else m
        step = orthogonalise(held, group["ns_steps"], group["polynomial"])
        decay_(params, lr * group["weight_decay"])
        for p, o in zip(params, step, strict=True):
            p.add_(o, alpha=-lr * shape_scale(p.shape, group["scale"]))
