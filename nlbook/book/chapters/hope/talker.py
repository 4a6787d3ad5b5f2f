"""The reader that one can talk to: a small Hope that has learned the running example, and what its level is good for.

It reads streams of nlbook.book.data.lives. `A B` live for the whole stream, and the mixer forgets at each document, so
only the level can know them in the next one.
"""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from nlbook.book import data, viz
from nlbook.book.data.lives import Lives
from nlbook.book.data.sequences import Sequences
from nlbook.hope import Hope, HopeConfig
from nlbook.train import train

LANGUAGE = Lives()
CONFIG = HopeConfig(
    vocabulary=LANGUAGE.vocabulary,
    dim=32,
    layers=1,
    hidden=64,
    periods=(LANGUAGE.document_length,),
    reset_token=LANGUAGE.boundary,
)
STEPS, BATCH, RATE = 500, 8, 0.02
FILE = "talker.safetensors"


def trained(seed: int = 0, steps: int = STEPS, folder: str | Path | None = None) -> Hope:
    """Train it, some ten CPU minutes; a run that was stopped goes on from `folder`."""
    model = Hope(replace(CONFIG, seed=seed))

    def batch(step: int) -> Sequences:
        return LANGUAGE.sample(BATCH, 10**5 * (seed + 1) + step)

    train(model, batch, steps, lr=RATE, seed=seed, folder=folder, label="talker")
    return model.eval()


def talker() -> Hope:
    """The trained reader from data/talker.safetensors (made by data/make_talker.py)."""
    from safetensors.torch import load_file

    model = Hope(CONFIG)
    model.load_state_dict({n: w.float() for n, w in load_file(str(data.path(FILE))).items()})
    return model.eval()


@torch.no_grad()
def judged(model: Hope, batch: int = 64, seed: int = 10**6) -> dict[str, Any]:
    """Nats above the optimum on streams that no training run sees, by kind; and what holding each level costs."""
    streams = LANGUAGE.sample(batch, seed)
    return {
        "excess": streams.excess(model(streams.tokens)[0]),
        "levels": model.levels_at_work(streams.tokens, streams.graded),
    }


def talk(model: Hope | None = None) -> viz.Live:
    """Talk to it, or to a reader of your own: type pairs, see what it expects, hold a memory and see what is lost."""
    model = talker() if model is None else model
    weights = {n: w.half() for n, w in sorted(model.state_dict().items())}
    raw = b"".join(w.contiguous().numpy().tobytes() for w in weights.values())
    packed = {"shapes": [[n, list(w.shape)] for n, w in weights.items()], "data": base64.b64encode(raw).decode()}
    language = {"keys": LANGUAGE.keys, "values": LANGUAGE.values, "slip": LANGUAGE.slip, "hazard": LANGUAGE.hazard}
    sizes = {"periods": list(model.config.periods), "chunk": 16, "boundary": CONFIG.reset_token}
    alt = (
        "Talk to Hope: a line for pairs such as A3 d5 x1, eight bars for what the reader expects next, and a lane for "
        "each of its memories that can be held."
    )
    return viz.Live("talk", alt, packed=packed, sizes=sizes, example="|A3d5x1B7A3e2x1d5|A", **language)
