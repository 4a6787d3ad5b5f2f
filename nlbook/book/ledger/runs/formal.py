"""Formal languages as a race (Table 5): train on short words, test on words of the same and of twice the length."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nlbook.book.data.formal import LANGUAGES, VOCABULARY, words
from nlbook.errors import need
from nlbook.hope import Hope, HopeConfig
from nlbook.train import Watch, train

SIZE: dict[str, Any] = {"dim": 32, "layers": 1, "hidden": 64, "mlp": "static", "periods": (1,)}
SELF: dict[str, Any] = {"memory": "linear", "read": "after", "eta": 0.5, "eta_max": 1.0, "horizon": 1000.0}

METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "Transformer": ("attention", {}),
    "linear attention": ("linear", {}),
    "delta rule": ("delta", {}),
    "delta rule, rate to 2": ("delta", {"beta_max": 2.0}),
    "Hope, token by token": ("self_modifying", {**SELF, "chunk": 1, "other_chunk": 1}),
    "Hope, chunks of 16": ("self_modifying", {**SELF, "chunk": 16, "other_chunk": 16}),
}
"""Mixer and options by name. Hope's MLP levels stay static here: words are shorter than their periods."""


class LSTM(nn.Module):
    """The recurrent baseline: embedding, one LSTM, a linear head. forward(tokens) -> (logits, None)."""

    def __init__(self, vocabulary: int, dim: int, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.embedding = nn.Embedding(vocabulary, dim)
            self.cell = nn.LSTM(dim, dim, batch_first=True)
            self.head = nn.Linear(dim, vocabulary)

    def forward(self, tokens: Tensor) -> tuple[Tensor, None]:
        return self.head(self.cell(self.embedding(tokens))[0]), None


def make(method: str, seed: int) -> nn.Module:
    """A model of about 10 thousand parameters."""
    if method == "LSTM":
        return LSTM(VOCABULARY, SIZE["dim"], seed)
    need(method in METHODS, "method", repr(method), f"LSTM or one of {', '.join(METHODS)}")
    mixer, options = METHODS[method]
    return Hope(HopeConfig.first_edition(vocabulary=VOCABULARY, mixer=mixer, options=options, seed=seed, **SIZE))


def race(
    *,
    method: str,
    language: str,
    lr: float,
    seed: int,
    steps: int,
    more: int = 1,
    longest: int = 20,
    batch: int = 32,
    tested: int = 128,
) -> dict[str, float]:
    """Train on words of 2 .. longest symbols, until every word of a check is right twice, or for `more` times `steps`
    steps.

    Returns the share of words with the right set of next symbols after every prefix: "bin0", new words as long as those
    of training; "bin1", longest + 1 .. 2 longest symbols; and the steps that were taken.
    """
    need(language in LANGUAGES, "language", repr(language), f"one of {', '.join(LANGUAGES)}")
    model = make(method, seed)
    watched = words(language, 2, longest, 64, 2 * 10**9 + seed)

    @torch.no_grad()
    def share(model: nn.Module, low: int, high: int, at: int) -> float:
        new = words(language, low, high, tested, 10**9 + 2 * seed + at)
        return new.accuracy(model(new.tokens)[0])

    history = train(
        model,
        lambda step: words(language, 2, longest, batch, 10**5 * seed + step),
        more * steps,
        lr=lr,
        seed=seed,
        watch=Watch(lambda m: watched.accuracy(m(watched.tokens)[0]), every=25, enough=1.0, patience=2),
    )
    return {
        "bin0": share(model, 2, longest, 0),
        "bin1": share(model, longest + 1, 2 * longest, 1),
        "steps": float(history.steps),
        "parameters": float(sum(p.numel() for p in model.parameters())),
    }
