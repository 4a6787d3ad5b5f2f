"""Hope, Hope-Attention and their baselines as one small language model (section 8.3, eq. 94-97; chapter 07).

plain.py    all of it in one file, token by token: the definition, to be read first
model.py    HopeConfig (plain settings, JSON; `baseline(mixer)` of the same size), Hope, HopeAttention
block.py    HopeBlock: mixer and levels, and what the levels learn from
mixers.py   what can stand in a block, by name; softmax attention and linear memories: the baselines' mixers
state.py    HopeState: what a model carries from call to call
"""

from nlbook.door import doors
from nlbook.hope.block import HopeBlock
from nlbook.hope.mixers import MIXERS, Attention, LinearMixer
from nlbook.hope.model import Hope, HopeAttention, HopeConfig
from nlbook.hope.state import HopeState

__all__ = ["Hope", "HopeAttention", "HopeConfig", "HopeState"]

doors(__name__)
