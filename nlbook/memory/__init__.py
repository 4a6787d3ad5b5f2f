"""Associative memories: an objective, a learning rule, a retention (Def. 1; eq. 5-6, 14-18, 54-68).

    from nlbook import memory
    m = memory.make("delta", lr=1.0)            # its repr shows the three parts
    y, state = m.scan(k, v, q)                  # k, q (..., length, d_k), v (..., length, d_v)
    memory.table()                              # all memories side by side

One idea a file: `objectives`, `rules` (and retention), `core` (the protocol), `matrix` (the linear memory),
`nonparametric` (softmax attention), `mlp`, `presets`, `dual` (training is writing), `proximal` (a step as a small
problem and its minimiser).
"""

from nlbook.memory import dual, proximal
from nlbook.memory.core import Memory, State
from nlbook.memory.matrix import FEATURES, MatrixMemory
from nlbook.memory.mlp import MLPMemory
from nlbook.memory.nonparametric import SoftmaxMemory
from nlbook.memory.objectives import L2, OBJECTIVES, Dot, Lp, Objective, Oja, get_objective, outer, recall
from nlbook.memory.presets import PRESETS, make, names, table
from nlbook.memory.rules import DGD, GD, RLS, Implicit, Omega, Retention, delta, dgd, dgd_rate, hebbian, oja, omega

__all__ = [
    "DGD",
    "FEATURES",
    "GD",
    "L2",
    "OBJECTIVES",
    "PRESETS",
    "RLS",
    "Dot",
    "Implicit",
    "Lp",
    "MLPMemory",
    "MatrixMemory",
    "Memory",
    "Objective",
    "Oja",
    "Omega",
    "Retention",
    "SoftmaxMemory",
    "State",
    "delta",
    "dgd",
    "dgd_rate",
    "dual",
    "get_objective",
    "hebbian",
    "make",
    "names",
    "oja",
    "omega",
    "outer",
    "proximal",
    "recall",
    "table",
]
