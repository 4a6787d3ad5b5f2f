"""Every memory of the field by its name, and the table that shows them as points of one family (eq. 61-68)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nlbook.errors import need
from nlbook.memory.core import Memory
from nlbook.memory.matrix import MatrixMemory
from nlbook.memory.mlp import MLPMemory
from nlbook.memory.nonparametric import SoftmaxMemory
from nlbook.memory.objectives import Lp
from nlbook.memory.rules import DGD, GD, RLS, Implicit, Omega, Retention


@dataclass(frozen=True)
class Preset:
    """A name, how to build it, where it comes from, and the words of the field for its learning rule."""

    build: Any
    rule: str
    source: str


def _matrix(name: str, objective: str, rule: type[GD] = GD, own: tuple[str, ...] = (), **defaults: Any) -> Any:
    """A builder of a MatrixMemory with these defaults; `own` names the arguments that belong to the learning rule."""
    base: dict[str, Any] = {
        "objective": objective,
        "lr": 1.0,
        "keep": 1.0,
        "towards": "zero",
        "gradient_at": "old",
        "phi": "identity",
    } | defaults

    def build(**options: Any) -> MatrixMemory:
        for option in options:
            need(option in (*base, *own), option, "an argument", f"one of {', '.join((*base, *own))} for {name}")
        o = base | options
        chosen = rule(**{arg: o[arg] for arg in own if arg in o})
        if isinstance(chosen, Omega) and "lr" not in options:
            o["lr"] = 1 / chosen.window  # c pairs with the same unit key have curvature c: above 2/c it would diverge
        retention = Retention(o["keep"], o["towards"], o["gradient_at"])
        return MatrixMemory(o["objective"], chosen, retention, lr=o["lr"], phi=o["phi"], name=name)

    return build


def _sliding(window: int = 16, **options: Any) -> SoftmaxMemory:
    return SoftmaxMemory(window=window, name="sliding_window", **options)


def _lp(p: float = 3.0, **options: Any) -> MatrixMemory:
    return _matrix("lp", "lp", own=("capped",), capped=True)(**({"objective": Lp(p)} | options))


PRESETS: dict[str, Preset] = {
    "hebbian": Preset(_matrix("hebbian", "dot"), "Hebb = one GD step", "Hebb 1949; eq. 15-18, 64"),
    "linear_attention": Preset(
        _matrix("linear_attention", "dot", phi="elu1"), "Hebb = one GD step", "Katharopoulos et al. 2020; eq. 5, 64"
    ),
    "decay": Preset(_matrix("decay", "dot", keep=0.97), "Hebb = one GD step", "RetNet, Sun et al. 2023; eq. 64"),
    "delta": Preset(_matrix("delta", "l2"), "delta = one GD step", "Widrow, Hoff 1960; DeltaNet; eq. 65"),
    "gated_delta": Preset(
        _matrix("gated_delta", "l2", keep=0.97, gradient_at="kept"), "delta = one GD step", "Yang et al. 2024; eq. 65"
    ),
    "oja": Preset(_matrix("oja", "oja", own=("capped",), capped=True), "Oja = one GD step", "Oja 1982; eq. 66-67"),
    "omega": Preset(
        _matrix("omega", "l2", Omega, ("window", "weights")),
        "GD on the last c pairs",
        "Atlas, Behrouz et al. 2025; eq. 68",
    ),
    "implicit": Preset(
        _matrix("implicit", "l2", Implicit, gradient_at="kept"),
        "proximal step, exact",
        "Longhorn, Liu et al. 2024; eq. 65",
    ),
    "dgd": Preset(
        _matrix("dgd", "dot", DGD, ("form",), gradient_at="kept"),
        "Delta Gradient Descent",
        "Behrouz et al. 2025; eq. 56-57, 121",
    ),
    "lp": Preset(_lp, "GD on the p-th power", "Moneta (Miras), Behrouz et al. 2025"),
    "rls": Preset(_matrix("rls", "l2", RLS, ("ridge",)), "recursive least squares", "Plackett 1950; eq. 6, 68"),
    "softmax": Preset(SoftmaxMemory, "closed form, no steps", "Nadaraya, Watson 1964; Vaswani et al. 2017; eq. 62"),
    "sliding_window": Preset(_sliding, "closed form, no steps", "Beltagy et al. 2020; eq. 63"),
    "mlp": Preset(MLPMemory, "GD through two layers", "Titans, TTT-MLP; eq. 89"),
}


def names() -> list[str]:
    """The names that `make` knows."""
    return list(PRESETS)


def make(name: str, **options: Any) -> Memory:
    """A memory by name: make("delta", lr=0.5), make("omega", window=4), make("softmax", temperature=0.1).

    The default rates are made for keys of length 1: an explicit step with lr |k|^2 > 2 overshoots and diverges. oja and
    lp, where lr |v|^2 or the size of the error counts too, take no step past the minimum of a pair (`capped`).
    Matrix memories take lr, keep, towards ("zero" | "initial"), gradient_at, phi, objective, and what their rule has of
    its own (window, weights; form; ridge; p; capped). softmax: temperature, window, kernel, keep, lr. mlp: hidden,
    steps, residual, seed, lr, keep.

    >>> make("delta", lr=0.5)
    delta(lr=0.5)
      objective  ½|Mk − v|²
      rule       M − η∇L(M; k, v)
      retention  M
    """
    need(name in PRESETS, "name", repr(name), f"one of {', '.join(PRESETS)}")
    return PRESETS[name].build(**options)


class Table(list):
    """Rows of a table that shows itself: text in a terminal, a table in a notebook."""

    def _repr_markdown_(self) -> str:
        head = list(self[0])
        lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
        lines += ["| " + " | ".join(str(x).replace("|", r"\|") for x in row.values()) + " |" for row in self]
        return "\n".join(lines)

    def __repr__(self) -> str:
        width = {key: max(len(key), *(len(str(row[key])) for row in self)) for key in self[0]}
        lines = [[key.ljust(n) for key, n in width.items()], ["-" * n for n in width.values()]]
        lines += [[str(row[key]).ljust(n) for key, n in width.items()] for row in self]
        return "\n".join("  ".join(line).rstrip() for line in lines)

    __str__ = __repr__


def table(*chosen: str) -> Table:
    """Objective x learning rule x retention of every preset (or of those named), a row each, shown as a table."""
    rows = Table()
    for name in chosen or PRESETS:
        parts = make(name).parts()
        rows.append(
            {
                "memory": name,
                "objective": parts["objective"],
                "learning rule": PRESETS[name].rule,
                "retention": parts["retention"],
                "source": PRESETS[name].source,
            }
        )
    return rows
