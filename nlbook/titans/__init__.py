"""Titans and self-modifying Titans: memories that learn while they read (section 8.1-8.2, eq. 76-93; chapter 09).

selfmod.py    SelfModifyingTitans: keys, values, rates and answers are memories that write themselves
memory.py     NeuralMemory: Titans with fixed projections: surprise, momentum, forgetting
rules.py      one memory: how it is read, its gradient, one token's write; Rule holds the open choices
chunked.py    many tokens at once, exact: one triangular solve a piece
operators.py  the settings that are operators of nlkernels: whole chunks in one call, fused on a GPU
reference.py  the definition, token by token
state.py      TitansState (save, load)
"""

from nlbook.titans.memory import NeuralMemory
from nlbook.titans.reference import neural_memory_reference, self_modifying_reference
from nlbook.titans.rules import Rule
from nlbook.titans.selfmod import BOXES, SelfModifyingTitans
from nlbook.titans.state import TitansState

__all__ = [
    "BOXES",
    "NeuralMemory",
    "Rule",
    "SelfModifyingTitans",
    "TitansState",
    "neural_memory_reference",
    "self_modifying_reference",
]
