"""Levels: who updates how often, and who is inside whom.

order.py     Component, NestedSystem: the faster-than order of Definition 2, its levels, and claims about them
inspect.py   levels_of: the level diagram of any torch model and optimizer
trace.py     Trace, Writes: which level wrote when, by how much and why
"""

from nlbook.levels.inspect import components_of, levels_of
from nlbook.levels.order import INF, Component, NestedSystem, OrderError, Violation
from nlbook.levels.trace import Trace, Write, Writes

__all__ = [
    "INF",
    "Component",
    "NestedSystem",
    "OrderError",
    "Trace",
    "Violation",
    "Write",
    "Writes",
    "components_of",
    "levels_of",
]
