"""What a task for a language model is: tokens, where answers are graded, and the best that anybody could do there."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from nlbook.errors import need, need_shape


@dataclass(frozen=True)
class Sequences:
    """A batch of token sequences with a known optimum.

    tokens (batch, length), int64. graded (batch, length), bool: token t is an answer, to be predicted from tokens < t.
    optimum (batch, length): nats that the ideal predictor pays for token t (0 where nothing is graded).
    kind (batch, length): what sort of answer it is, an index into `kinds`; -1 elsewhere.
    """

    tokens: Tensor
    graded: Tensor
    optimum: Tensor
    kind: Tensor
    kinds: tuple[str, ...] = field(default=("answer",))

    def nats(self, logits: Tensor) -> Tensor:
        """What a model pays for each graded token, (batch, length); 0 elsewhere. logits (batch, length, vocabulary) at
        position t predict token t + 1.
        """
        need_shape("logits", logits, *self.tokens.shape, None)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        paid = F.cross_entropy(logits[:, :-1].flatten(0, 1), self.tokens[:, 1:].flatten(), reduction="none")
        paid = F.pad(paid.view(len(self.tokens), -1), (1, 0))
        return torch.where(self.graded, paid, torch.zeros_like(paid))

    def loss(self, logits: Tensor) -> Tensor:
        """Mean nats per graded token."""
        return self.nats(logits).sum() / self.graded.sum()

    def excess(self, logits: Tensor) -> dict[str, float]:
        """Nats above the optimum per graded token: "all", and for each kind. 0 is perfect in expectation."""
        over = self.nats(logits).double() - self.optimum.double()
        out = {"all": float(over[self.graded].mean())}
        return out | {
            name: float(over[self.kind == i].mean()) for i, name in enumerate(self.kinds) if (self.kind == i).any()
        }

    def accuracy(self, logits: Tensor) -> float:
        """Share of graded tokens that are the model's first choice."""
        right = F.pad(logits[:, :-1].argmax(-1) == self.tokens[:, 1:], (1, 0))
        return float(right[self.graded].double().mean())


def sizes(**given: int) -> None:
    """Raise unless every size is an int >= 1."""
    for name, n in given.items():
        need(isinstance(n, int) and not isinstance(n, bool) and n >= 1, name, n, "an int >= 1")
