"""Language modelling on real text, small: the reader's own Python standard library, byte by byte (Table 2, Fig. 10).

    numbers = run(method="Hope", lr=0.006, seed=0, steps=200)

Every method is the same language model but for its mixer and its MLP: same width, convolution, gate and number of
parameters, the same windows in the same order for a seed. Graded are bits per byte on files that no training window
comes from. Two methods only count bytes: they say what a number of bits is worth.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nlbook.book.data import python_text
from nlbook.book.data.python_text import DOCUMENT, VOCABULARY
from nlbook.errors import need
from nlbook.hope import Hope, HopeConfig
from nlbook.train import TrainingStopped, train

MIXERS = {"Transformer": "attention", "gated delta": "gated_delta", "Titans": "titans"}
COUNTS = {"single bytes": 0, "pairs of bytes": 1}
METHODS = ("Hope", *MIXERS, *COUNTS)
QUARTERS = 4


@lru_cache(maxsize=1)
def text(most: int) -> tuple[dict[str, np.memmap], tempfile.TemporaryDirectory[str]]:
    """About `most` bytes of the standard library; the folder goes when the process ends."""
    folder = tempfile.TemporaryDirectory(prefix="nlbook-text-")
    return python_text.prepare(Path(folder.name), most=most), folder


def config(method: str, seed: int, **size: Any) -> HopeConfig:
    """Hope of this size, or a baseline whose one static MLP is as wide as makes it as large."""
    hope = HopeConfig.first_edition(vocabulary=VOCABULARY, seed=seed, reset_token=DOCUMENT, **size)
    return hope if method == "Hope" else hope.baseline(MIXERS[method])


def run(
    *,
    method: str,
    lr: float,
    seed: int,
    steps: int,
    batch: int = 8,
    length: int = 128,
    most: int = 2_000_000,
    held: int = 48,
    held_length: int = 512,
    **size: Any,
) -> dict[str, float]:
    """Train one model on `steps` batches of windows and grade it on `held` windows of `held_length` bytes.

    Returns "bits": bits per byte in the part of a window that is as long as a training window; "bits 1" ... "bits 4":
    by quarter of the held-out window, which may be longer than a training window; "parameters"; "bytes": text read.
    Counting methods have no rate and no seed: they read the same windows. A run that diverges counts as a guess.
    """
    need(method in METHODS, "method", repr(method), f"one of {', '.join(METHODS)}")
    parts, _ = text(most)
    batches = python_text.windows(parts["train"], batch=batch, length=length, seed=seed)
    test = python_text.in_order(parts["valid"], length=held_length, most=held)
    parameters = 0
    if method in COUNTS:
        table = counted(map(batches, range(steps)), COUNTS[method])
        paid = surprise(table, test, COUNTS[method])
    else:
        model = Hope(config(method, seed, **size))
        parameters = model.parameter_count()
        try:
            train(model, batches, steps, lr=lr, seed=seed, label=f"{method} {lr:g}")
            with torch.no_grad():
                paid = torch.cat([nats(model, w) for w in test.split(16)])
        except TrainingStopped:  # a rate that it does not bear: as good as guessing
            paid = torch.full((len(test), held_length - 1), math.log(VOCABULARY), dtype=torch.float64)
    read = {"parameters": float(parameters), "bytes": float(steps * batch * length)}
    return graded(paid, test == DOCUMENT, length) | read


def nats(model: Hope, tokens: Tensor) -> Tensor:
    """What the model pays for tokens 1, 2, ... of each row: (batch, length - 1)."""
    logits, _ = model(tokens)
    return F.cross_entropy(logits[:, :-1].mT.double(), tokens[:, 1:], reduction="none")


def graded(paid: Tensor, reset: Tensor, length: int) -> dict[str, float]:
    """Bits per byte from nats (rows, n - 1); the document token, which stands for no byte, does not count."""
    bits, real = paid / math.log(2), ~reset[:, 1:]
    out = {"bits": float(bits[:, : length - 1][real[:, : length - 1]].mean())}
    edges = [round(i * bits.shape[1] / QUARTERS) for i in range(QUARTERS + 1)]
    for i, (a, b) in enumerate(pairwise(edges)):
        out[f"bits {i + 1}"] = float(bits[:, a:b][real[:, a:b]].mean())
    return out


# ---- counting --------------------------------------------------------------------------------------------------------
def counted(windows: Iterable[Tensor], before: int) -> Tensor:
    """How often each byte came after each `before` = 0 or 1 bytes, plus a little of its overall share: (1 or V, V)."""
    v = VOCABULARY
    single, pairs = torch.zeros(v, dtype=torch.float64), torch.zeros(v * v, dtype=torch.float64)
    for w in windows:
        single += torch.bincount(w.flatten(), minlength=v)
        pairs += torch.bincount((w[:, :-1] * v + w[:, 1:]).flatten(), minlength=v * v)
    share = (single + 0.01) / (single + 0.01).sum()
    return share[None] if before == 0 else pairs.view(v, v) + 5 * share


def surprise(table: Tensor, tokens: Tensor, before: int) -> Tensor:
    """Nats of tokens 1, 2, ... under such a table."""
    chance = table / table.sum(1, keepdim=True)
    row = torch.zeros_like(tokens[:, :-1]) if before == 0 else tokens[:, :-1]
    return -chance[row, tokens[:, 1:]].log()
