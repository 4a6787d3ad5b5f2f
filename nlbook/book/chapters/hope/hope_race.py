"""The first edition's race of sequence models on a language whose entropy is known: did Hope train, as well as others?

Every contestant is a `nlbook.hope.Hope` of the same size with the same short convolution, and gets the same documents,
steps, warm-up, schedule and tuning budget, 19 runs on seeds that are used for nothing else: four learning rates and, at
the best of them, three settings of its own on one tuning seed; the best three of these seven on four tuning seeds more.
The best mean of five runs on five fresh seeds and fresh documents. Reported is the excess: nats per value above the
ideal predictor, which reads the same documents; 0 is perfect. `verdict` is the rule; it was committed before the races.

The runs are kept in hope_race.json, what came out is told in hope_race.md. To run it all (it goes on where it stopped):

    python -m nlbook.book.chapters.hope.hope_race race.json
"""

from __future__ import annotations

import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from nlbook.book.data.language import TimescaleLanguage
from nlbook.errors import need
from nlbook.hope import Hope, HopeConfig
from nlbook.paper.show import table
from nlbook.train import TrainingStopped, adamw, train

LANGUAGE = TimescaleLanguage(static=2, document=2, fast=2, values=5)
BATCH, PAIRS, STEPS, FINALISTS = 16, 24, 300, 3
TUNING_SEEDS, SEEDS = (100, 101, 102, 103, 104), (5, 6, 7, 8, 9)
RACES = {1: ((100, 101, 102), (0, 1, 2, 3, 4)), 2: (TUNING_SEEDS, SEEDS)}  # number -> seeds to tune on, seeds to judge
RECORD = Path(__file__).with_suffix(".json")
LATE = (102, 103)  # tuning seeds on which Hope with noisy taps is late
RATES = (0.01, 0.02, 0.04, 0.08)
MEMORY: dict[str, Any] = {"chunk": 16, "other_chunk": 16, "read": "after", "eta": 0.1, "eta_max": 0.5, "mem_gain": 3.0}
HOPE = HopeConfig.first_edition(
    vocabulary=LANGUAGE.vocabulary, dim=32, layers=1, hidden=32, periods=(8, 32), options=MEMORY
)


@dataclass(frozen=True)
class Contestant:
    """A model, and the settings that its tuning may choose from on top of "plain".

    changes: name -> fields of HopeConfig ("options" are added to those of the model) and "start_lr", a factor on the
    learning rate of the memories' initial states. parts: more of the same that no tuning tries (see `parts`).
    """

    make: Callable[[], HopeConfig]
    changes: dict[str, dict[str, Any]] = field(default_factory=dict)
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)

    def config(self, setting: str) -> tuple[HopeConfig, float]:
        """The configuration of a setting ("plain", "a" or "a + b"), at the size of HOPE, and its start_lr."""
        c, start_lr = self.make(), 1.0
        for name in setting.split(" + "):
            new = {"plain": {}, **self.changes, **self.parts}[name]
            fields = {k: v for k, v in new.items() if k not in ("options", "start_lr")}
            c = replace(c, **fields, options={**c.options, **new.get("options", {})})
            start_lr *= new.get("start_lr", 1.0)
        return c.as_large_as(HOPE), start_lr


NOISY: dict[str, dict[str, Any]] = {"noisy taps": {"conv_noise": 1.0}}
ALIGNED: dict[str, Any] = {"query": "identity"}
BOUNDED: dict[str, Any] = {"chunk": 8, "other_chunk": 8, "rate": "implicit", "eta": 0.3, "eta_max": 1.0}
OWN: dict[str, dict[str, Any]] = {
    **NOISY,
    "aligned": {**NOISY["noisy taps"], "options": ALIGNED},
    "aligned, bounded": {**NOISY["noisy taps"], "options": {**ALIGNED, **BOUNDED}},
}
PARTS: dict[str, dict[str, Any]] = {  # on top of "aligned": one part taken away or changed
    "only M_mem moves": {"options": {"adaptive": ["mem"]}},
    "levels stand still": {"mlp": "static"},
    "linear memories": {"options": {"memory": "linear", "eta": 0.3}},
    "no DGD": {"options": {"factor": None}},
    "implicit rate": {"options": {"rate": "implicit", "eta": 0.3, "eta_max": 1.0}},
}
CONTESTANTS = {
    "Hope": Contestant(lambda: HOPE, OWN, PARTS),
    "self-modifying, no CMS": Contestant(lambda: HOPE.baseline("self_modifying", options=HOPE.options), OWN),
    "Titans + CMS": Contestant(
        lambda: replace(HOPE, mixer="titans", options={"chunk": 16}),
        {"no momentum": {"options": {"momentum": False}}, "eager starts": {"start_lr": 2.0}, **NOISY},
    ),
    "gated delta": Contestant(
        lambda: HOPE.baseline("gated_delta"),
        {"learned start": {"options": {"learn_start": True}}, "beta to 2": {"options": {"beta_max": 2.0}}, **NOISY},
    ),
    "Transformer + conv": Contestant(
        lambda: HOPE.baseline("attention"), {"2 heads": {"heads": 2}, "4 heads": {"heads": 4}, **NOISY}
    ),
}


def run(
    model: str, lr: float, seed: int, steps: int = STEPS, setting: str = "plain", *, documents: int = 256
) -> dict[str, float]:
    """Train once; a pure function of its arguments (but for "seconds", CPU time).

    Returns the excess on fresh documents ("all", "static", "document", "fast"; inf when training had to stop), the mean
    excess of the training batches around half time ("half"), the number of parameters and the seconds.
    """
    need(model in CONTESTANTS, "model", repr(model), f"one of {', '.join(map(repr, CONTESTANTS))}")
    named = ["plain", *CONTESTANTS[model].changes, *CONTESTANTS[model].parts]
    need(
        set(setting.split(" + ")) <= {*named},
        "setting",
        repr(setting),
        f"one of {', '.join(map(repr, named))}, or 'a + b'",
    )
    need(steps >= 1, "steps", steps, "an int >= 1")
    c, start_lr = CONTESTANTS[model].config(setting)
    net = Hope(replace(c, seed=seed))

    def batch(step: int) -> Any:
        return LANGUAGE.sample(BATCH, PAIRS, 10**6 * (seed + 1) + step)

    began = time.process_time()
    try:
        history = train(net, batch, steps, optimizer=adamw(net, lr, start_lr=start_lr), seed=seed)
    except TrainingStopped:
        excess, half = dict.fromkeys(("all", "static", "document", "fast"), math.inf), math.inf
    else:
        middle = range(max(0, steps // 2 - 10), max(1, steps // 2))
        optimum = sum(float(b.optimum[b.graded].mean()) for b in map(batch, middle)) / len(middle)
        half = sum(history.loss[i] for i in middle) / len(middle) - optimum
        with torch.no_grad():
            data = LANGUAGE.sample(documents, PAIRS, 10**9 + seed)
            excess = data.excess(net(data.tokens)[0])
    facts = {"parameters": float(net.parameter_count()), "seconds": time.process_time() - began}
    return excess | {"half": half} | facts


class Record:
    """Finished runs by name, kept in a file after each one. closed: nothing is run that is not there."""

    def __init__(self, path: Path | None = None, closed: bool = False) -> None:
        self.path, self.closed, self.runs = path, closed, dict[str, dict[str, float]]()
        if path is not None and path.is_file():
            self.runs = json.loads(path.read_text())["runs"]

    def run(self, model: str, lr: float, seed: int, steps: int, setting: str = "plain") -> dict[str, float]:
        key = f"{model} | {setting} | lr {lr:g} | seed {seed} | {steps} steps"
        if key not in self.runs and not self.closed:
            found = run(model, lr, seed, steps, setting)
            self.runs[key] = {k: round(v, 5) if math.isfinite(v) else 1e9 for k, v in found.items()}
            self.save()
        return self.runs[key]

    def save(self) -> None:
        if self.path is None:
            return
        facts = {"torch": torch.__version__, "python": platform.python_version(), "machine": platform.machine()}
        part = self.path.with_suffix(".part")
        made = {"date": time.strftime("%Y-%m-%d"), **facts}
        part.write_text(json.dumps({"made by": made, "runs": self.runs}, indent=1) + "\n")
        os.replace(part, self.path)


@dataclass(frozen=True)
class Entry:
    """One contestant's outcome. excess[kind]: one number a seed. on_edge: the best rate was the smallest or largest.

    tuning: "setting, lr" -> excess on each tuning seed that it ran on: one, or all for a finalist.
    """

    model: str
    lr: float
    setting: str
    on_edge: bool
    tuning: dict[str, list[float]]
    excess: dict[str, list[float]]
    parameters: int
    seconds: float


def enter(
    record: Record, model: str, steps: int = STEPS, seeds: Sequence[int] = SEEDS, tuning: Sequence[int] = TUNING_SEEDS
) -> Entry:
    """Tune a contestant and run it on every seed."""
    first, *more = tuning
    tried = {(lr, "plain"): [record.run(model, lr, first, steps)["all"]] for lr in RATES}
    lr = min(tried, key=lambda t: tried[t])[0]
    for setting in CONTESTANTS[model].changes:
        tried[lr, setting] = [record.run(model, lr, first, steps, setting)["all"]]
    finalists = sorted(tried, key=lambda t: tried[t])[:FINALISTS]
    for lr, setting in finalists:
        tried[lr, setting] += [record.run(model, lr, seed, steps, setting)["all"] for seed in more]
    lr, setting = min(finalists, key=lambda t: sum(tried[t]))
    runs = [record.run(model, lr, seed, steps, setting) for seed in seeds]
    return Entry(
        model,
        lr,
        setting,
        lr in (RATES[0], RATES[-1]),
        {f"{s}, lr {r:g}": v for (r, s), v in tried.items()},
        {k: [r[k] for r in runs] for k in ("all", "static", "document", "fast", "half")},
        int(runs[0]["parameters"]),
        sorted(r["seconds"] for r in runs)[len(runs) // 2],
    )


def race(
    models: Sequence[str] = tuple(CONTESTANTS),
    steps: int = STEPS,
    seeds: Sequence[int] = SEEDS,
    record: Record | None = None,
) -> dict[str, Entry]:
    """All contestants; `record` keeps what is finished and is asked first."""
    kept = record or Record()
    return {m: enter(kept, m, steps, seeds) for m in models}


def recorded(race: int = 2) -> dict[str, Entry]:
    """The outcome of race 1 or 2 as RECORD has it, of the contestants that ran in it."""
    kept = Record(RECORD, closed=True)
    tuning, seeds = RACES[race]
    models = [m for m in CONTESTANTS if any(k.startswith(f"{m} |") and f"| seed {seeds[-1]} |" in k for k in kept.runs)]
    return {m: enter(kept, m, seeds=seeds, tuning=tuning) for m in models}


def parts(record: Record | None = None, seeds: Sequence[int] = LATE) -> dict[str, list[float]]:
    """Hope with one part changed, at its lr and "aligned", on two tuning seeds that come late: excess at half time.

    The rows of the tuning ("noisy taps", "aligned", "aligned, bounded") and gated delta with noisy taps stand beside
    them. record: None for RECORD.
    """
    kept = record or Record(RECORD, closed=True)
    rows = {
        "gated delta": ("gated delta", 0.04, "noisy taps"),
        **{s: ("Hope", 0.02, s) for s in OWN},
        **{s: ("Hope", 0.02, f"aligned + {s}") for s in PARTS},
    }
    return {
        name: [kept.run(model, lr, seed, STEPS, setting)["half"] for seed in seeds]
        for name, (model, lr, setting) in rows.items()
    }


def mean_sd(x: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation."""
    t = torch.tensor(x, dtype=torch.float64)
    return float(t.mean()), float(t.std()) if len(x) > 1 else 0.0


def gap(a: Entry, b: Entry) -> tuple[float, float]:
    """Mean excess of a minus that of b, and the pooled standard error of that difference."""
    (x, sx), (y, sy) = mean_sd(a.excess["all"]), mean_sd(b.excess["all"])
    return x - y, math.sqrt(sx**2 / len(a.excess["all"]) + sy**2 / len(b.excess["all"]))


def verdict(a: Entry, b: Entry) -> str:
    """The rule: "no further" from the optimum when a's mean excess is at most b's plus one pooled standard error, else
    "further". One late seed of five raises the standard error as well as the mean: report the worst seed beside it.
    """
    difference, error = gap(a, b)
    return "no further" if difference <= error else "further"


def told(entries: dict[str, Entry]) -> str:
    """Excess on fresh documents, mean +- standard deviation over seeds, as a Markdown table."""
    kinds = ("static", "document", "fast", "half")
    head = ("", "parameters", "chosen", "excess (nats)", "worst", *kinds[:3], "half time", "CPU s")
    rows = []
    for e in entries.values():
        mean, sd = mean_sd(e.excess["all"])
        own = [f"{mean_sd(e.excess[k])[0]:.3f}" for k in kinds]
        chosen = f"lr {e.lr:g}{'*' if e.on_edge else ''}, {e.setting}"
        worst = f"{max(e.excess['all']):.4f}"
        rows.append((e.model, e.parameters, chosen, f"{mean:.4f} +- {sd:.4f}", worst, *own, f"{e.seconds:.0f}"))
    return table(head, rows)


if __name__ == "__main__":
    torch.set_num_threads(1)
    kept = Record(Path(sys.argv[1]))
    print(told(race(record=kept)), parts(kept), sep="\n")
