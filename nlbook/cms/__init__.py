"""Continuum memory system: MLPs with update periods of their own (section 7, eq. 70-74; chapter 05).

layer.py      CMS: sequential, nested, head-wise; exact and parallel between boundaries
level.py      one MLP: its derivative by hand, what it gathers; losses
local.py      levels with a loss of their own
state.py      CMSState (save, load), and `schedule`: which level does what when
inner.py      inner optimizers: SGD, Momentum, Adam
additive.py   levels that add up: the law of one level, and its way out
reference.py  the definition, token by token
stack.py      stack_levels: periods for the MLPs of an existing decoder (section 7.3)
"""

from nlbook.cms.additive import Clock, additive
from nlbook.cms.inner import SGD, Adam, Inner, Momentum
from nlbook.cms.layer import CMS
from nlbook.cms.level import MLP, half_squared_error
from nlbook.cms.reference import cms_reference
from nlbook.cms.stack import LevelStack, find_mlps, stack_levels
from nlbook.cms.state import CMSState, Event, LevelState, schedule
from nlbook.door import doors

__all__ = ["CMS", "MLP", "LevelStack", "find_mlps", "schedule", "stack_levels"]

doors(__name__)
