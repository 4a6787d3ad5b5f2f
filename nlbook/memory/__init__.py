"""Associative memories: an objective, a learning rule, a retention (Def. 1; eq. 5-6, 14-18, 54-68).

    from nlbook import memory
    m = memory.make("delta", lr=1.0)            # its repr shows the three parts
    y, state = m.scan(k, v, q)                  # k, q (..., length, d_k), v (..., length, d_v)
    memory.table()                              # all memories side by side

One idea a file: `objectives`, `rules` (and retention), `core` (the protocol), `matrix` (the linear memory),
`nonparametric` (softmax attention), `mlp`, `presets`, `dual` (training is writing), `proximal` (a step as a small
problem and its minimiser).
"""

from nlbook.door import doors
from nlbook.memory import dual, objectives, proximal, rules
from nlbook.memory.matrix import MatrixMemory
from nlbook.memory.mlp import MLPMemory
from nlbook.memory.nonparametric import SoftmaxMemory
from nlbook.memory.presets import make, names, table

__all__ = [
    "MLPMemory",
    "MatrixMemory",
    "SoftmaxMemory",
    "dual",
    "make",
    "names",
    "objectives",
    "proximal",
    "rules",
    "table",
]

doors(__name__)
