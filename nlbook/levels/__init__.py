"""Levels: who updates how often, who is inside whom, and how knowledge passes between them (chapters 05 and 06).

order.py     Component, NestedSystem: the faster-than order of Definition 2, its levels, and claims about them
inspect.py   levels_of: the level diagram of any torch model and optimizer
trace.py     Trace, Writes: which level wrote when, by how much and why
boxes.py     eq. 19-20 and 98-99: nested systems that run
transfer.py  eq. 24-28: five ways of knowledge transfer
examples.py  the worked examples of the book, as data and as small torch modules
"""

from nlbook.levels.boxes import Box, explicit_step, implicit_delta, implicit_step, proximal_step, run, system_of
from nlbook.levels.examples import AdaTransformerLayer, LinearAttention, worked_examples
from nlbook.levels.inspect import components_of, levels_of
from nlbook.levels.order import INF, Component, NestedSystem, OrderError, Violation
from nlbook.levels.trace import Trace, Write, Writes
from nlbook.levels.transfer import (
    adapt,
    backpropagate,
    direct,
    direct_fast,
    direct_nonparametric,
    generate_context,
    generate_weights,
    learn_start,
)

__all__ = [
    "INF",
    "AdaTransformerLayer",
    "Box",
    "Component",
    "LinearAttention",
    "NestedSystem",
    "OrderError",
    "Trace",
    "Violation",
    "Write",
    "Writes",
    "adapt",
    "backpropagate",
    "components_of",
    "direct",
    "direct_fast",
    "direct_nonparametric",
    "explicit_step",
    "generate_context",
    "generate_weights",
    "implicit_delta",
    "implicit_step",
    "learn_start",
    "levels_of",
    "proximal_step",
    "run",
    "system_of",
    "worked_examples",
]
