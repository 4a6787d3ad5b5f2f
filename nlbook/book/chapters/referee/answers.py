"""Chapter 08: wrong answers that its checks must refuse, and right ones that they must accept."""

from __future__ import annotations

import math
import statistics

import torch

from nlbook.book.chapters.referee import exercises as ch08


def verdict_statistics(ours, rival):
    gap = statistics.fmean(ours) - statistics.fmean(rival)
    error = (statistics.variance(ours) / len(ours) + statistics.variance(rival) / len(rival)) ** 0.5
    if gap < -2 * error:
        return "better"
    return "worse" if gap > 2 * error else "level"


def verdict_ledger(ours, rival):
    from nlbook.book.ledger.tables import gap

    by, error = gap({"a": {"y": ours}, "b": {"y": rival}}, "a", "b", "y")
    return "level" if abs(by) <= 2 * error else ("worse", "better")[by < 0]


def verdict_referee(ours, rival):
    from nlbook.book.chapters.referee.referee import outcome

    return outcome(torch.tensor(ours, dtype=torch.float64), torch.tensor(rival, dtype=torch.float64))


def reported_loop(valid, test):
    best = min(range(len(valid)), key=lambda i: float(valid[i].sum()))
    return test[best]


def reported_sort(valid, test):
    return test[torch.argsort(valid.sum(1), stable=True)[0]].clone()


def settle_referee(a, b, c, d):
    from nlbook.book.chapters.referee.referee import Losses, settle

    return settle(Losses("ours", (), a, b), Losses("rival", (), c, d))


def order(*places):
    return [ch08.STEPS[i] for i in places]


MUTANTS = {
    "08-verdict": {
        "always level": lambda a, b: "level",
        "one spread": lambda a, b: (
            "level"
            if abs(statistics.fmean(a) - statistics.fmean(b)) <= 2 * statistics.stdev(a) / len(a) ** 0.5
            else "better"
        ),
    },
    "08-search": {
        "first": lambda v, t: t[0],
        "mean": lambda v, t: t.mean(0),
    },
    "08-settle": {
        "always level": lambda a, b, c, d: "level",
        "all rows": lambda a, b, c, d: ch08.settled_by(b.mean(0), d.mean(0)),
    },
    "08-order": {
        "nearly as listed": order(1, 0, 2, 3, 4, 5),
        "rule last": order(5, 4, 2, 1, 3, 0),
        "rule after tuning": order(5, 4, 2, 3, 1, 0),
        "test before tuning": order(5, 4, 3, 1, 2, 0),
        "no prediction first": order(4, 5, 3, 2, 1, 0),
    },
    "08-seeds": {
        "huge": 200.0,
    },
}

ACCEPTED = {
    "08-verdict": {"statistics": verdict_statistics, "the ledger's": verdict_ledger, "the referee's": verdict_referee},
    "08-search": {
        "a loop": reported_loop,
        "sorted": reported_sort,
        "indexed": lambda v, t: t[int(v.mean(dim=1).argmin())],
    },
    "08-settle": {
        "two steps": lambda a, b, c, d: verdict_statistics(reported_loop(a, b).tolist(), reported_loop(c, d).tolist()),
        "the ledger's": lambda a, b, c, d: verdict_ledger(reported_sort(a, b).tolist(), reported_sort(c, d).tolist()),
        "the referee's": settle_referee,
    },
    "08-order": {"the order": order(5, 4, 3, 2, 1, 0)},
    "08-seeds": {"number": 18, "text": "18 seeds", "rounded up": math.ceil(18.0)},
}
