"""Levels: who updates how often, and who is inside whom.

order.py     Component, NestedSystem: the faster-than order of Definition 2, its levels, and claims about them
inspect.py   levels_of: the level diagram of any torch model and optimizer
trace.py     Trace, Writes: which level wrote when, by how much and why
"""

from nlbook.door import doors
from nlbook.levels.inspect import levels_of
from nlbook.levels.order import Component, NestedSystem, OrderError
from nlbook.levels.trace import Trace, Writes

__all__ = ["Component", "NestedSystem", "OrderError", "Trace", "Writes", "levels_of"]

doors(__name__)
