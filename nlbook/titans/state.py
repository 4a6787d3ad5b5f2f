"""What a titans layer carries from call to call."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from nlbook.titans.rules import Weights
from nlbook.tree import Tree


@dataclass
class TitansState(Tree):
    """Fast weights of every sequence, per group of boxes; each tensor is (batch, head, box, out, in).

    now: after the last token. start: at the last chunk boundary: keys, values, gates and gradients are taken there
    until the next one. Together they make the stream exact wherever it is cut. momentum: S, if the rule has one. tails:
    the last width - 1 raw rows of each convolution. position: tokens read since the beginning of the sequence.
    """

    now: dict[str, Weights]
    start: dict[str, Weights]
    momentum: dict[str, Weights] = field(default_factory=dict)
    tails: dict[str, Tensor] = field(default_factory=dict)
    position: int = 0
