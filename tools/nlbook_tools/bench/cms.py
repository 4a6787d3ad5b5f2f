"""`nlbook bench cms`: what does it cost that four levels learn while they read?

The baseline is the plain chain of the same four MLPs, trained the ordinary way: one forward and one backward pass over
the same tokens (that is the theoretical cost of the gradients), and one SGD step on the weights per update a CMS makes
(the moving of parameters, sum of P_l / C_l per token). A CMS does the same arithmetic, cut at its boundaries.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nlbook.cms import CMS
from nlbook.levels import Trace
from nlbook.numerics import rms
from nlbook_tools.bench.core import Report, compare

AIM = 1.3


def suite(quick: bool = True) -> list[Report]:
    """Forward and update of four levels against the plain chain, weights per sequence; and the trace, off and on."""
    batch, length, dim, hidden = (8, 1024, 64, 256) if quick else (8, 2048, 128, 512)
    rounds, periods = (7 if quick else 15), (16, 64, 256, 1024)
    g = torch.Generator().manual_seed(0)
    x, target = (torch.randn(batch, length, dim, generator=g) for _ in range(2))
    own = CMS(dim, hidden, periods, lr=0.01, first_order=True)
    local = CMS(dim, hidden, periods, objective="local", lr=0.01, first_order=True)
    title = f"4 levels, dim {dim}, hidden {hidden}, periods {periods}, {batch} x {length} tokens"

    def read(cms: CMS, goal: Tensor | None) -> None:
        with torch.no_grad():
            cms(x, target=goal)

    chains = Chain(own, periods, copies=batch)
    reports = [
        compare(
            {"plain chain": lambda: chains.train(x, target), "CMS": lambda: read(own, target)},
            "plain chain",
            title=f"weights per sequence, forward and update: {title}",
            rounds=rounds,
            aims={"CMS": AIM},
            note=f"the plain chain shares its weights but moves {batch} copies; a CMS also reads {batch} sets",
        ),
        compare(
            {"static read": lambda: read(own, None), "local objective": lambda: read(local, None)},
            "static read",
            title="levels with a loss of their own: reading and learning against reading alone",
            rounds=rounds,
        ),
    ]

    def traced() -> None:
        with Trace(own):
            read(own, target)

    reports.append(
        compare(
            {"trace off": lambda: read(own, target), "trace on": traced},
            "trace off",
            title="the trace (off: one attribute look-up per write)",
            rounds=rounds,
        )
    )
    return reports


class Chain:
    """The plain chain, forward and backward by autograd on leaves, and an SGD step as often as each level would
    move."""

    def __init__(self, cms: CMS, periods: tuple[int, ...], copies: int = 1) -> None:
        self.up = [p.detach().clone().requires_grad_() for p in cms.up]
        self.down = [p.detach().clone().requires_grad_() for p in cms.down]
        self.periods = periods
        self.copies = [tuple(torch.zeros(copies, *p.shape) for p in pair) for pair in zip(self.up, self.down)]

    def train(self, x: Tensor, target: Tensor) -> None:
        h = x
        for up, down in zip(self.up, self.down):
            h = h + torch.nn.functional.silu(rms(h) @ up.mT) @ down.mT
        loss = 0.5 * (h - target).square().sum()
        grads = torch.autograd.grad(loss, [*self.up, *self.down])
        with torch.no_grad():
            for i, c in enumerate(self.periods):
                for p, gr in zip(self.copies[i], (grads[i], grads[len(self.up) + i])):
                    for _ in range(x.shape[1] // c):
                        p.sub_(gr, alpha=0.01)
