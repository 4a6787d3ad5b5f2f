"""What a titans layer carries from call to call."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from nlbook.errors import NLBookError
from nlbook.titans.rules import Weights

_PARTS = ("now", "start", "momentum")


@dataclass
class TitansState:
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

    def map(self, fn: Callable[[Tensor], Tensor]) -> TitansState:
        """The same state with `fn` applied to each tensor."""
        now, start, momentum = (
            {g: {n: fn(w) for n, w in ws.items()} for g, ws in getattr(self, p).items()} for p in _PARTS
        )
        return TitansState(now, start, momentum, {k: fn(t) for k, t in self.tails.items()}, self.position)

    def detach(self) -> TitansState:
        """Cut the graph: truncated backpropagation through time."""
        return self.map(torch.Tensor.detach)

    def clone(self) -> TitansState:
        return self.map(lambda t: t.detach().clone())

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by a flat name, e.g. "now/mem/W1"."""
        flat = {f"{p}/{g}/{n}": w for p in _PARTS for g, ws in getattr(self, p).items() for n, w in ws.items()}
        return flat | {f"tails/{k}": t for k, t in self.tails.items()}

    def numel(self) -> int:
        """Numbers that must be kept to go on: the same after a hundred tokens and after a million."""
        return sum(t.numel() for t in self.tensors().values())

    @classmethod
    def _from(cls, flat: dict[str, Tensor], position: int) -> TitansState:
        s = cls({}, {}, position=position)
        for name, t in flat.items():
            part, *rest = name.split("/")
            if part == "tails":
                s.tails[rest[0]] = t
            else:
                getattr(s, part).setdefault(rest[0], {})[rest[1]] = t
        return s

    def save(self, path: str | Path) -> None:
        """Write it with safetensors (no pickle). `TitansState.load` reads it back, bit for bit."""
        from safetensors.torch import save_file

        flat = {k: v.detach().clone(memory_format=torch.contiguous_format) for k, v in self.tensors().items()}
        save_file(flat, str(path), metadata={"nlbook.titans": json.dumps({"position": self.position})})

    @classmethod
    def load(cls, path: str | Path) -> TitansState:
        """The state that `save` wrote."""
        from safetensors import safe_open

        with safe_open(str(path), framework="pt") as f:
            meta = (f.metadata() or {}).get("nlbook.titans")
            if meta is None:
                raise NLBookError(
                    f"path: got {path}, which holds no titans state, expected a file that TitansState.save wrote"
                )
            return cls._from({k: f.get_tensor(k) for k in f.keys()}, json.loads(meta)["position"])  # noqa: SIM118
