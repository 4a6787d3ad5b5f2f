"""The levels on four more languages. The rule and the protocol were committed before any run that counts.

Languages (`Scales`, all with an exact reader): values that hold for the whole stream and are overridden in documents,
on the same keys; many keys (more than the model is wide) and few; a third span of four documents; and references `x d`
(x now means what d means), where a memory that writes its own answers could earn something.
Contestants are the library's own: Hope, Hope-Attention and gated delta with the default level (64 wide, it reads the
token, moves once a document and lives on; the mixer ends with each document), all at the rates that `levels_race` chose
for them on its language: nothing is tuned here. On three scales there are two levels of 32, one of which ends with its
group of documents; the self-modifying memory is not run there, because one run takes minutes. Baselines read the whole
stream and have as many parameters as Hope, or more; four heads of full width have the state of gated delta + level.
Steps are few, so that all fits in half an hour of one core; nobody is trained until the curve is flat.
After four runs of Hope at rate 0.04 (they are in the record: recall had not been learned) its rate and the noise on its
taps were set to 0.02 and 0.05, as in the prototypes, looking at one run on seed 200: 0.10 instead of 0.46.
Graded and judged as in `levels_race`: excess over the exact reader on 32 fresh streams, five fresh seeds, `lead`; the
levels held must not lead. Asked: do models with levels lead those without (few keys, many keys, three scales)? Does
Hope lead gated delta + level where there are references (what writing its own answers adds to the same level)?
Beside them, of Hope alone, the FACTS: the first edition's language, twenty starts on six keys, and contexts that never end.

    python -m nlbook.book.chapters.hope.levels_languages [languages.json]
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nlbook.book.chapters.hope import hope_race
from nlbook.book.chapters.hope import levels_race as race
from nlbook.book.data.scales import Scales
from nlbook.hope import Hope, HopeConfig
from nlbook.paper.show import table

LANGUAGES = {
    "few keys": Scales(keys=20, pairs=31),
    "references": Scales(keys=8, values=6, pairs=24, refer=0.25),
    "many keys": Scales(keys=48, pairs=48),
    "three scales": Scales(documents=16, pairs=11, spans=(4, 1), p=0.25),
}
SEEDS, TEST = (40, 41, 42, 43, 44), 32
SIX = Scales()
FACTS = {  # seeds and steps
    "first edition: Hope": ((5, 6, 7, 8, 9), 300),  # the seeds of the first race
    "six keys: Hope": (tuple(range(100, 120)), 80),
    "few keys: Hope, nothing ends": ((40, 41), 300),
    "few keys: gated delta + level, nothing ends": ((40, 41), 300),
    "few keys: gated delta + level, a gate for the end": ((40, 41), 300),
}
RECORD = Path(__file__).with_suffix(".json")


def plan(language: str) -> tuple[int, int]:
    """Streams a step, and steps."""
    return (4, 150) if language == "three scales" else (2, 300)


def hope(language: str) -> HopeConfig:
    """Hope as it comes, in the sizes of the race."""
    words = LANGUAGES[language]
    one = HopeConfig(words.vocabulary, dim=32, layers=1, hidden=64, periods=(words.document_length,))
    if len(words.spans) == 1:
        return one
    return replace(one, hidden=32, periods=2 * one.periods, ends=(1, words.spans[0], 0), reset_token=words.boundary)


def level(mixer: str, **fields: Any) -> Callable[[HopeConfig, int], Hope]:
    def make(config: HopeConfig, seed: int) -> Hope:
        if config.reset_token is not None:  # levels that end: documents one after the other
            return Hope(replace(config, mixer=mixer, seed=seed, **fields))
        return race.with_level(mixer, seed, config, pair=False, **fields)

    return make


def plain(mixer: str, **fields: Any) -> Callable[[HopeConfig, int], Hope]:
    return lambda config, seed: race.without(mixer, seed, replace(config, reset_token=None), pair=False, **fields)


QUIET = {"conv_noise": 0.05}
CONTESTANTS: dict[str, tuple[float, Callable[[HopeConfig, int], Hope]]] = {  # rate, model; in the order of the runs
    "gated delta + level": (0.04, level("gated_delta")),
    "Hope": (0.02, level("self_modifying", **QUIET)),
    "gated delta, 2 full heads": (0.04, plain("gated_delta", wide=2)),
    "gated delta, two blocks": (0.02, plain("gated_delta", layers=2)),
    "gated delta, 4 full heads": (0.04, plain("gated_delta", wide=4)),
    "Hope-Attention": (0.04, level("attention")),
    "gated delta": (0.04, plain("gated_delta")),
    "attention": (0.02, plain("attention")),
    "Hope, chunks of 4": (0.02, level("self_modifying", **QUIET, options={"chunk": 4, "other_chunk": 4})),
}


class Sharp(nn.Linear):
    """The gates of gated delta, ten times as steep: they could learn to drop all at the token that opens a document."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, 10 * self.weight, self.bias)


def contestants(language: str) -> list[str]:
    """Those who run on it."""
    out = {"three scales": ("Hope", "Hope, chunks of 4"), "references": ()}.get(language, ("Hope, chunks of 4",))
    return [name for name in CONTESTANTS if name not in out]


def run(model: str, lr: float, seed: int, steps: int) -> dict[str, float]:
    """model: `language: contestant`."""
    language, name = model.split(": ")
    if language == "first edition":
        words, pairs = hope_race.LANGUAGE, hope_race.PAIRS
        config = HopeConfig(words.vocabulary, dim=32, layers=1, hidden=32, periods=hope_race.HOPE.periods, seed=seed)
        first = SimpleNamespace(sample=lambda batch, seed, priced=True: words.sample(batch, pairs, seed))
        return race.graded(Hope(config), first, hope_race.BATCH, lr, seed, steps, 256)
    if language == "six keys":
        config = HopeConfig(SIX.vocabulary, dim=32, layers=1, hidden=64, periods=(SIX.document_length,))
        return race.graded(race.with_level("self_modifying", seed, config, pair=False), SIX, 4, lr, seed, steps, TEST)
    if f"{language}: {name}" in list(FACTS)[2:]:
        mixer = "self_modifying" if name.startswith("Hope") else "gated_delta"
        net = Hope(replace(hope(language), mixer=mixer, ends=(0, 0), seed=seed))
        if name.endswith("a gate for the end"):
            net.blocks[0].mixer.gate.__class__ = Sharp
        return race.graded(net, LANGUAGES[language], plan(language)[0], lr, seed, steps, TEST)
    net = CONTESTANTS[name][1](hope(language), seed)
    return race.graded(net, LANGUAGES[language], plan(language)[0], lr, seed, steps, TEST)


def seeds(record: race.Record, language: str, name: str) -> list[dict[str, float]]:
    """The runs of a contestant, as many as there are."""
    found = (record(f"{language}: {name}", CONTESTANTS[name][0], s, plan(language)[1]) for s in SEEDS)
    return [r for r in found if r is not None]


def facts(record: race.Record) -> dict[str, list[dict[str, float]]]:
    """The runs of FACTS, as many as there are."""
    found = {m: [record(m, CONTESTANTS["Hope"][0], s, n) for s in every] for m, (every, n) in FACTS.items()}
    return {m: [r for r in runs if r is not None] for m, runs in found.items()}


def told(record: race.Record, language: str) -> str:
    """The table of one language, with the verdicts of gated delta + level and of Hope."""
    runs = {name: seeds(record, language, name) for name in contestants(language)}
    whole = {name: [r["all"] for r in rs] for name, rs in runs.items() if len(rs) == len(SEEDS)}
    ours, rows = list(runs)[: 1 + ("Hope" in runs)], list[tuple[str, ...]]()
    for name, rs in runs.items():
        if len(rs) < 2:
            rows.append((name, f"{len(rs)} of {len(SEEDS)} seeds", *[""] * 8))
            continue
        kinds = ("all", "first late", "again") + ("borrowed",) * ("borrowed" in rs[0])
        cells = ["{:.3f} ± {:.3f}".format(*race.mean_se([r[k] for r in rs])) for k in kinds]
        held = f"{race.mean_se([r['held'] for r in rs])[0]:.3f}" if "held" in rs[0] else ""
        cost = (f"{rs[0]['parameters']:,.0f}", f"{rs[0]['floats']:,.0f}", f"{min(r['seconds'] for r in rs):.0f}")
        verdicts = [race.lead(whole[a], whole[name]) if {a, name} <= whole.keys() and a != name else "" for a in ours]
        rows.append((name, f"{len(rs)}", *cells, held, *cost, *verdicts))
    more = ("borrowed",) if LANGUAGES[language].refer else ()
    head = ("", "seeds", "excess", "first use, late", "again", *more, "level held", "parameters", "floats", "CPU s")
    return table((*head, *(f"{a} ..." for a in ours)), [row[: len(head) + len(ours)] for row in rows])


if __name__ == "__main__":
    torch.set_num_threads(1)
    record = race.Record(Path(sys.argv[1]), work=run) if sys.argv[1:] else race.Record(RECORD)
    for language in LANGUAGES:
        print(f"\n{language}\n\n{told(record, language)}", flush=True)
        if language == "references":
            print({m: [r["all"] for r in runs] for m, runs in facts(record).items()}, flush=True)
