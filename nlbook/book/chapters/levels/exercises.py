"""Chapter 04, The level lens: who is updated how often, and who needs whom at the same time."""

from __future__ import annotations

from nlbook.book.check.define import *


def is_faster(a: str, b: str, f: dict[str, float], needs: dict[str, list[str]]) -> bool:
    """Is a faster than b (Definition 2)? f: updates per unit; needs[x]: what x needs directly at the same time."""
    # BEGIN SOLUTION
    reached, todo = set(), list(needs[b])
    while todo:
        x = todo.pop()
        if x not in reached:
            reached.add(x)
            todo.extend(needs[x])
    return f[a] > f[b] or (f[a] == f[b] and a in reached)
    # END SOLUTION


NAMES = ("W", "m", "v", "O", "M", "A")


def some_parts(d: Draw, least: int = 2) -> tuple[dict[str, float], dict[str, list[str]]]:
    """Frequencies and needs without a circle; many equal frequencies, so that rule 2 matters."""
    names = NAMES[: d.int(least, 5)]
    f = {n: d.pick(1.0, 1.0, 1.0, 8.0, float("inf")) for n in names}
    return f, {n: [x for x in names[i + 1 :] if d.pick(True, False)] for i, n in enumerate(names)}


def a_pair(d: Draw) -> tuple[str, str, dict[str, float], dict[str, list[str]]]:
    f, needs = some_parts(d)
    a = d.pick(*f)
    return a, d.pick(*[n for n in f if n != a]), f, needs


MUON: tuple[dict[str, float], dict[str, list[str]]] = (
    {"m": 1.0, "W": 1.0, "O": 1.0},
    {"m": [], "W": ["O"], "O": ["m"]},
)


def direct_only(a, b, f, needs):
    return f[a] > f[b] or (f[a] == f[b] and a in needs[b])


def never_both_ways(answer, d: Draw) -> str | None:
    """Faster than is a strict order: not both of a > b and b > a, and nobody is faster than itself."""
    a, b, f, needs = a_pair(d)
    if answer(a, b, f, needs) and answer(b, a, f, needs):
        return f"it says that {a} is faster than {b}, and that {b} is faster than {a}."
    return f"it says that {a} is faster than itself." if answer(a, a, f, needs) else None


def broken_levels(f: dict[str, float], needs: dict[str, list[str]]) -> dict[str, int]:
    """Level of each part, 1 the slowest. f: updates per unit; needs[x]: all that x needs at the same time, closed."""
    order = sorted(set(f.values()))
    return {a: 1 + order.index(f[a]) for a in f}


def level_numbers(f: dict[str, float], needs: dict[str, list[str]]) -> dict[str, int]:
    """Level of each part, 1 the slowest. f: updates per unit; needs[x]: all that x needs at the same time, closed."""

    # BEGIN SOLUTION
    def deep(a: str) -> int:
        return max((1 + deep(b) for b in f if f[b] == f[a] and a in needs[b]), default=0)

    order = sorted({(f[a], deep(a)) for a in f})
    return {a: 1 + order.index((f[a], deep(a))) for a in f}
    # END SOLUTION


def closed(needs: dict[str, list[str]]) -> dict[str, list[str]]:
    out = {n: set(x) for n, x in needs.items()}
    for _ in out:
        out = {n: x.union(*(out[y] for y in x)) for n, x in out.items()}
    return {n: sorted(x) for n, x in out.items()}


def closed_parts(d: Draw) -> tuple[dict[str, float], dict[str, list[str]]]:
    f, needs = some_parts(d, 1)
    needs = {n: [x for x in xs if f[x] >= f[n]] for n, xs in needs.items()}
    return f, closed(needs)


def upside_down(f, needs):
    numbers = level_numbers(f, needs)
    return {n: max(numbers.values()) + 1 - k for n, k in numbers.items()}


def inside_out(f, needs):
    def deep(a):
        return max((1 + deep(b) for b in f if f[b] == f[a] and b in needs[a]), default=0)

    order = sorted({(f[a], deep(a)) for a in f})
    return {a: 1 + order.index((f[a], deep(a))) for a in f}


def from_zero(f, needs):
    return {n: k - 1 for n, k in level_numbers(f, needs).items()}


def hope_writes() -> float:
    """Writes of the levels of periods 64, 256, 1024 and 4096 in one stream of 8192 tokens."""
    # BEGIN SOLUTION
    return sum(8192 // period for period in (64, 256, 1024, 4096))
    # END SOLUTION


def broken_arrows() -> float:
    """Arrows that break when all seven parts of the layer lie in one lane."""
    # BEGIN SOLUTION
    from nlbook.book import viz

    return viz.load("detective:lanes=1,1,1,1,1,1,1").facts["broken"]
    # END SOLUTION


ITEMS = [
    Implement(
        id="04-faster",
        title="Faster than",
        objective="04.2",
        minutes=8,
        difficulty=2,
        points=2,
        prompt="Return whether a is faster than b: higher frequency, or the same and b needs a at the same time, directly or through others.",
        hints=(
            "Rule 1 compares two numbers. Rule 2 applies only when they are equal.",
            "b may need a through a third part: Muon's W needs O, and O needs m. Follow the needs until nothing new comes.",
            "Collect everything reachable from needs[b] in a set with a list of names still to visit; then ask whether a is in it.",
        ),
        solution=is_faster,
        draw=a_pair,
        cases=[
            Case(("m", "W", *MUON), "Muon: m against W"),
            Case(("W", "m", *MUON), "Muon: W against m"),
            Case(("M", "W", {"W": 1.0, "M": 512.0}, {"W": [], "M": []}), "512 updates against one"),
        ],
        properties=[Property("never both ways", never_both_ways)],
        misconceptions=[
            Misconception(
                "direct needs only",
                direct_only,
                "You look at direct needs only. Muon's weights need O, and O needs m: m is faster than the weights, through O.",
            ),
            Misconception(
                "needs the wrong way round",
                lambda a, b, f, needs: f[a] > f[b] or (f[a] == f[b] and is_faster(b, a, f, needs)),
                "Rule 2 is turned round: the part that is *needed* is the faster one, for it must be ready first.",
            ),
            Misconception(
                "frequency only",
                lambda a, b, f, needs: f[a] > f[b],
                "Rule 2 is missing: with equal frequencies, the one that the other needs at the same time is faster.",
            ),
            Misconception(
                "needs beat frequency",
                lambda a, b, f, needs: f[a] > f[b] or is_faster(a, b, dict.fromkeys(f, 1.0), needs),
                "Rule 2 applies only when the two frequencies are equal; here it overrules rule 1.",
            ),
        ],
    ),
    FixTheBug(
        id="04-levels",
        title="One frequency, one level?",
        objective="04.2",
        minutes=8,
        difficulty=2,
        points=2,
        prompt="This function gives each part its level, but it gives one level to each frequency. Momentum lands beside the weights. Mend it.",
        hints=(
            "Which two parts does it put together that Definition 2 ranks?",
            "Inside one frequency, a part stands one level deeper than everything there that needs it. Nobody needs W: depth 0. W needs m: depth 1.",
            "`max((1 + deep(b) for b in f if f[b] == f[a] and a in needs[b]), default=0)`, then sort the pairs (f[a], deep(a)).",
        ),
        solution=level_numbers,
        broken=broken_levels,
        draw=closed_parts,
        cases=[
            Case(({"m": 1.0, "W": 1.0}, {"m": [], "W": ["m"]}), "weights and momentum"),
            Case((MUON[0], closed(MUON[1])), "Muon"),
        ],
        misconceptions=[
            Misconception(
                "one frequency, one level",
                broken_levels,
                "Parts of one frequency still share a level, even where one needs the other at the same time (rule 2).",
            ),
            Misconception(
                "fastest first",
                upside_down,
                "The levels are numbered from the fastest; level 1 is the slowest, the outermost.",
            ),
            Misconception(
                "the needy one deeper",
                inside_out,
                "Here the part that needs others stands deeper. It is the other way round: the part that is needed is faster.",
            ),
            Misconception(
                "gaps not recounted",
                lambda f, needs: {
                    a: 1 + sorted(set(f.values())).index(f[a]) + sum(f[b] == f[a] and a in needs[b] for b in f)
                    for a in f
                },
                "Inside one frequency you rank by needs, but a frequency that takes two levels lifts everything faster by one: number the distinct ranks.",
            ),
            Misconception(
                "from zero", from_zero, "The order is right, the numbers begin at 0; level 1 is the slowest."
            ),
        ],
    ),
    Estimate(
        id="04-writes",
        title="Writes of four levels",
        objective="04.1",
        minutes=3,
        difficulty=1,
        unit="writes",
        within=0.01,
        prompt="Levels of periods 64, 256, 1024 and 4096 tokens read one stream of 8192 tokens. How many writes do they make together?",
        hints=(
            "A level of period C writes floor(T / C) times.",
            "128 for the fastest of the four.",
            "128 + 32 + 8 + 2.",
        ),
        solution=hope_writes,
        wrong={
            8192: "That would be a single level that writes at every token.",
            5440: "That is the sum of the periods; a long period means few writes.",
            4: "Each level writes more than once: the stream is at least twice as long as every period.",
        },
    ),
    ReadPicture(
        id="04-arrows",
        title="Everything in one lane",
        objective="04.4",
        minutes=2,
        difficulty=1,
        unit="arrows",
        within=0.01,
        view="detective:lanes=1,1,1,1,1,1,1",
        prompt="Put all seven parts of the layer into one lane of the level detective. How many arrows break?",
        hints=(
            "The verdict under the board counts them.",
            "Go to the landmark 'everything in one lane'.",
            "Every pair that the order ranks breaks: 21 pairs less the four that are of one level.",
        ),
        solution=broken_arrows,
        wrong={
            21: "That is all pairs. m and v, and the three kinds of slow weights among themselves, are not ranked.",
            6: "That is 'momentum below the weights': only the six arrows between the moments and the weights.",
        },
    ),
    Order(
        id="04-order",
        title="From slow to fast",
        objective="04.1",
        minutes=4,
        difficulty=1,
        prompt="A Transformer layer with a fast memory, trained by Adam. Put its parts in order, the slowest first.",
        hints=(
            "Count updates per sequence: one, as many as there are tokens, or no state at all.",
            "Weights and moments tie at one per step. Who needs whom at the same time?",
            "The new weights need this step's moments, so the moments are faster: weights, moments, memory, attention.",
        ),
        steps=(
            "the attention read",
            "the first moment m",
            "the fast memory M",
            "the projection W_k",
            "the second moment v",
        ),
        before=(
            (
                "the projection W_k",
                "the first moment m",
                "Both move once per step, and the new W_k needs this step's m.",
            ),
            (
                "the projection W_k",
                "the second moment v",
                "Both move once per step, and the new W_k needs this step's v.",
            ),
            ("the first moment m", "the fast memory M", "m is renewed once per step, M at every token."),
            ("the second moment v", "the fast memory M", "v is renewed once per step, M at every token."),
            (
                "the fast memory M",
                "the attention read",
                "M carries a state between tokens; attention is computed anew: frequency infinity.",
            ),
        ),
    ),
]
