"""Titans and self-modifying Titans: memories that learn while they read (section 8.1-8.2, eq. 76-93; chapter 06).

rules.py      one memory: how it is read, its gradient, one token's write; Rule, Gates, Start: the open choices
selfmod.py    SelfModifyingTitans: keys, values, rates and answers are memories that write themselves
memory.py     NeuralMemory: Titans with fixed projections: surprise, momentum, forgetting
chunked.py    a run of tokens at once, exact: one triangular solve
layer.py      what both share: starts, the walk from boundary to boundary, whole chunks through nlkernels
reference.py  the definition, token by token
state.py      TitansState
"""

from nlbook.door import doors
from nlbook.titans.memory import NeuralMemory
from nlbook.titans.reference import neural_memory_reference, self_modifying_reference
from nlbook.titans.rules import Gates, Rule, Start
from nlbook.titans.selfmod import BOXES, SelfModifyingTitans
from nlbook.titans.state import TitansState

__all__ = ["Gates", "NeuralMemory", "Rule", "SelfModifyingTitans", "Start", "TitansState"]

doors(__name__)
