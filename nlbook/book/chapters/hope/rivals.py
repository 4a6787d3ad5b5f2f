"""The control of chapter 07: could a simpler memory do without the level? All train on the running example.

Everybody has Hope's size, documents and steps, and gets the same tuning: three rates on a seed that is used for nothing
else. Five other seeds are judged. A record is kept in rivals.json. To run it all (it goes on where it stopped):

    python -m nlbook.book.chapters.hope.rivals
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from nlbook.book.chapters.hope.talker import BATCH, CONFIG, LANGUAGE
from nlbook.hope import Hope, HopeConfig
from nlbook.train import train

STEPS, RATES, TUNING, SEEDS = 300, (0.01, 0.02, 0.04), 100, (0, 1, 2, 3, 4)
RECORD = Path(__file__).with_suffix(".json")
RIVALS: dict[str, Callable[[], HopeConfig]] = {
    "Hope": lambda: CONFIG,
    "gated delta, a document": lambda: CONFIG.baseline("gated_delta"),
    "gated delta, the stream": lambda: CONFIG.baseline("gated_delta", ends=(0, 0)),
    "gated delta, two blocks": lambda: CONFIG.baseline("gated_delta", ends=(0, 0), layers=2),
}
Excess = dict[str, float]


def run(name: str, rate: float, seed: int, steps: int = STEPS) -> Excess:
    """Nats above the optimum, by kind, on 64 streams that no training run sees."""
    model = Hope(replace(RIVALS[name](), seed=seed))
    train(model, lambda step: LANGUAGE.sample(BATCH, 10**5 * (seed + 1) + step), steps, lr=rate, seed=seed)
    streams = LANGUAGE.sample(64, 10**6)
    with torch.no_grad():
        return {kind: round(nats, 4) for kind, nats in streams.excess(model(streams.tokens)[0]).items()}


def recorded() -> dict[str, Excess]:
    """'name, rate, seed' -> excess of that run."""
    return json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}


def rate(name: str, runs: dict[str, Excess]) -> float:
    """The best of RATES on the tuning seed."""
    return min(RATES, key=lambda r: runs[f"{name}, {r}, {TUNING}"]["all"])


def judged(name: str, kind: str = "all") -> list[float]:
    """Excess of the judged seeds at the rate that was best in tuning."""
    runs = recorded()
    return [runs[f"{name}, {rate(name, runs)}, {seed}"][kind] for seed in SEEDS]


def main() -> None:
    runs = recorded()
    for seed in (TUNING, *SEEDS):
        for name in RIVALS:
            for r in RATES if seed == TUNING else [rate(name, runs)]:
                if (key := f"{name}, {r}, {seed}") not in runs:
                    runs[key] = run(name, r, seed)
                    lines = ",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in runs.items())
                    RECORD.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
                    print(key, runs[key], flush=True)


if __name__ == "__main__":
    main()
