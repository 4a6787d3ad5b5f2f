"""Every claim of chapter B that stands under a figure or in a sentence with a number, and in the kernel theatre."""

from __future__ import annotations

import math
import subprocess
import sys
from itertools import pairwise

import pytest
import torch

from nlbook.book import viz
from nlbook.book.chapters.speed import chunking, exercises, figures, kernel_player, theatre
from nlbook.book.chapters.speed.kernel_player import tl
from nlbook.book.check import registry
from nlbook.book.check.define import KernelPuzzle
from nlbook.book.check.judge import judge
from nlbook.errors import NLBookError

PUZZLES = ("B-write", "B-scores", "B-loop")
needs_triton = pytest.mark.skipif(not hasattr(tl, "load"), reason="triton is not installed")


# ---- the cold open, the worked step ---------------------------------------------------------------------------------
@pytest.mark.eq(65)
@pytest.mark.parametrize("chunk", [1, 7, 64, 512])
def test_the_chunk_form_is_the_token_loop(chunk):
    for seed in range(3):
        k, v = (x[0, 0] for x in chunking.stream(1, length=200, dim=16, seed=seed))
        q = chunking.stream(1, length=200, dim=16, seed=seed + 50)[0][0, 0]
        for eta in (0.1, 0.5, 1.0):
            y, M = chunking.token_loop(q, k, v, eta)
            in_chunks = chunking.in_chunks(q, k, v, eta, chunk)
            assert float((in_chunks[0] - y).abs().max()) < 1e-12 and float((in_chunks[1] - M).abs().max()) < 1e-12


def test_a_twentieth_of_the_calls_and_twice_the_arithmetic():
    k, v = (x[0, 0] for x in chunking.stream(1, length=512, dim=64))
    loop, loop_flops = chunking.calls_and_flops(lambda: chunking.token_loop(k, k, v, 0.5))
    chunks, chunk_flops = chunking.calls_and_flops(lambda: chunking.in_chunks(k, k, v, 0.5, 64))
    assert loop > 20 * chunks
    assert chunk_flops == 2 * loop_flops
    assert loop_flops == 512 * 3 * 2 * 64 * 64  # M q, M k and an outer product a token


def test_the_hand_calculation():
    Q, K, V = (torch.tensor(x)[:, None] for x in ([1.0, 1.0, 2.0], [1.0, 2.0, 1.0], [3.0, 1.0, 2.0]))
    assert (torch.tril(Q @ K.T, -1) @ V).flatten().tolist() == [0.0, 3.0, 10.0]
    assert exercises.by_tokens(torch.zeros(1, 1), Q, K, V)[0].flatten().tolist() == [0.0, 3.0, 10.0]


# ---- solving --------------------------------------------------------------------------------------------------------
def test_doubling_explodes_when_a_key_repeats_and_rows_do_not():
    for kind in chunking.KEYS:
        errors = chunking.solve_errors(kind, seeds=10)
        for name in ("row by row", "16-blocks"):
            assert float(errors[name].max()) < 1e-5, (kind, name)
    assert float(chunking.solve_errors("random keys", seeds=10)["doubling"].max()) < 1e-5  # the trap is hidden
    assert float(chunking.solve_errors("correlated keys", seeds=10)["doubling"][:, 2].min()) > 0.1
    repeated = chunking.solve_errors("one key, repeated", seeds=3)["doubling"]
    assert float(repeated[:, 2].min()) > 1e8 and f"{float(repeated[:, 2].max()):.0e}" == "6e+08"
    exact = chunking.solve_errors("one key, repeated", (16,), seeds=3, dtype=torch.float64)
    assert all(float(e.max()) < 1e-9 for e in exact.values())  # on paper all agree


def test_powers_of_the_matrix_pass_1e17():
    ones = torch.tril(torch.ones(64, 64, dtype=torch.float64), -1)
    assert float(torch.linalg.matrix_power(ones, 32).max()) > 1e17
    assert float(torch.linalg.inv(torch.eye(64, dtype=ones.dtype) + ones).abs().max()) == 1.0


# ---- where the chunk is the rule ------------------------------------------------------------------------------------
@pytest.mark.eq(92, 93)
def test_freezing_changes_the_rule_and_the_exact_form_does_not():
    for seed in range(5):
        for eta in (0.1, 0.5):
            exact = [float(chunking.chunk_error("exact", eta, c, 3, seed=seed).max()) for c in chunking.CHUNKS]
            frozen = [float(chunking.chunk_error("frozen", eta, c, 3, seed=seed).mean()) for c in chunking.CHUNKS]
            assert max(exact) < 1e-12 and frozen[0] == 0
            assert frozen[1] > 1e12 * max(exact)  # "thirteen orders"
            assert all(a < b for a, b in pairwise(frozen))
        assert frozen[-1] > 2  # rate 0.5, chunk 64: it has exploded
        assert float(chunking.chunk_error("eq. 93", 0.5, 64, 3, seed=seed).max()) < 2


def test_the_factor_of_eq_93_keeps_the_memory_bounded():
    k, v = chunking.stream(3, length=512)
    for eta in (0.5, 1.0):
        frozen, tamed = (
            chunking.last_state(rule, eta, 64, k, v).flatten(1).norm(dim=1) for rule in ("frozen", "eq. 93")
        )
        assert bool((frozen > 100 * tamed).all()) if eta == 1.0 else bool((frozen > 5 * tamed).all())
        loop = chunking.last_state("eq. 93", eta, 1, k, v).flatten(1).norm(dim=1)
        assert bool((tamed < 3 * loop).all())


def test_the_theatre_and_the_signature_show_one_sample():
    error = chunking.chunk_error("frozen", 0.5, 64, 8)
    assert [f"{float(x):.0%}" for x in (error.mean(), error.min(), error.max())] == ["657%", "524%", "763%"]
    assert viz.find("theatre").facts("theatre:C=64,eta=0.5")["error"] == float(error.mean())
    assert f"{float(chunking.chunk_error('frozen', 0.5, 16, 8).mean()):.0%}" == "53%"


def test_each_token_reads_the_state_before_its_chunk():
    assert "tokens 5 to 8 from M4" in figures.reads_alt() and len(figures.reads().axes) == 2
    assert [exercises.state_read(t, 4) for t in range(1, 9)] == [0] * 4 + [4] * 4


def test_the_built_stream_is_the_token_loop_at_every_chunk():
    k, v = (x[0, 0] for x in chunking.stream(1, length=100, dim=8))
    y, M = chunking.token_loop(k, k, v, 0.5)
    for C in (1, 16, 100):
        found = exercises.delta_stream(k, k, v, 0.5, C)
        assert float((found[0] - y).abs().max()) < 1e-12 and float((found[1] - M.mT).abs().max()) < 1e-12


def test_a_time_is_the_shortest_of_several_runs_on_one_thread():
    threads, ran = torch.get_num_threads(), []
    assert chunking.seconds(lambda: ran.append(torch.get_num_threads()), 3) > 0
    assert ran == [1, 1, 1] and torch.get_num_threads() == threads


@pytest.mark.eq(90)
def test_the_printed_index_of_eq_90_is_in_the_future():
    for C in range(1, 9):
        for t in range(1, 40):
            assert exercises.state_read_as_printed(t, C) >= t > exercises.state_read(t, C)
            assert 0 < t - exercises.state_read(t, C) <= C


def test_errors_name_the_argument():
    with pytest.raises(NLBookError, match="rule: got 'sgd'"):
        chunking.chunk_error("sgd", 0.1, 4)
    with pytest.raises(NLBookError, match="kind: got 'same'"):
        chunking.solve_errors("same")


# ---- the theatre -----------------------------------------------------------------------------------------------------
def test_theatre_says_what_is_measured():
    view = viz.find("theatre")
    for eta, told in ((0.1, "2, 3, 5, 8, 14 and 26"), (0.5, "10, 18, 31, 53, 112 and 657")):
        f = view.facts(view.state(eta=eta))
        numbers = [f"{f[f'error_{c}']:.0f}" for c in chunking.CHUNKS[1:]]
        assert told == ", ".join(numbers[:-1]) + " and " + numbers[-1] and told in view.answer
    assert (
        f"{view.facts('theatre:C=64,eta=0.5,rule=eq. 93')['error_percent']:.0f} %" == "147 %" and "147 %" in view.answer
    )
    one, many = view.facts("theatre:C=1"), view.facts("theatre:C=64")
    assert (one["waits"], many["waits"]) == (256, 4) and one["error"] == 0
    assert f"{one['intensity']:.1f}" == "0.7" and f"{many['intensity']:.0f}" == "35"
    assert all(
        view.facts(view.state(rule="exact", C=c, eta=e))["error"] < 1e-12
        for c in chunking.CHUNKS
        for e in (0.05, 0.5, 1.0)
    )


@pytest.mark.parametrize("chunk", chunking.CHUNKS)
def test_theatre_programs_wait_for_what_they_load(chunk):
    parts = {p.name: p for p in theatre.programs(chunk, "frozen")}
    n = 64 // chunk
    assert len(parts) == 3 * n and max(p.step for p in parts.values()) + 1 == n + 2
    for p in parts.values():
        first = 1 + max((parts[w].step for w in p.waits), default=-1)
        assert p.step == first  # as early as what it waits for allows
    assert viz.find("theatre").facts(f"theatre:C={chunk}")["steps"] == n + 2


@needs_triton
def test_theatre_counts_are_those_of_a_kernel_that_was_played():
    """What the chain loads and stores, and that chunks of one head take turns: from the moves of a real run."""
    H, L, C, D = 2, 14, 4, 4
    run = exercises.LOOP.record(exercises.linear_loop, *exercises.example("B-loop"))
    assert run.count("load") == 3 * H * L * D and run.count("store") == H * L * D
    assert [len(run.programs), len(run.moves)] == [H, H * 4 * math.ceil(L / C)]
    cost = chunking.Cost(4, 4, on_chip=True, width=8)
    whole = [m for m in run.moves if len(m.elements) == C * D][:4]
    assert sum(len(m.elements) for m in whole) * 8 == cost.bytes


# ---- roofline -------------------------------------------------------------------------------------------------------
def test_costs_and_roofs():
    for C in (1, 16, 64, 256):
        for d in (16, 64):
            k = torch.ones(C, d)
            S = torch.zeros(d, d)

            def chunk(k=k, S=S):
                E = k - k @ S
                return k @ S + torch.tril(k @ k.T, -1) @ E, S + k.T @ E

            assert chunking.calls_and_flops(chunk)[1] == chunking.Cost(C, d).flops
    far, near = (chunking.Cost(1, 64, on).intensity for on in (False, True))
    assert near / far == 65 and chunking.Cost(256, 64, True).intensity / chunking.Cost(256, 64).intensity == 1.25
    assert exercises.linear_attention_intensity() == 64
    gpu, core = chunking.SHEET
    assert round(gpu.ridge) == 267 and core.ridge == 5
    assert gpu.attainable(1e6) == gpu.flops and gpu.attainable(1) == gpu.bytes


# ---- the control ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("seed", range(3))
def test_wrong_masks_are_caught_twice(seed):
    k, v = (x[0, 0] for x in chunking.stream(1, length=60, dim=64, seed=seed))
    truth = chunking.token_loop(k, k, v, 0.5)[0]
    found = {}
    for name, mask in chunking.MASKS.items():

        def form(q, k, v, mask=mask):
            return chunking.in_chunks(q, k, v, 0.5, 16, chunking.with_mask(mask))[0]

        found[name] = (float((form(k, k, v) - truth).abs().max()) < 1e-12, chunking.leaks(form, k, v, 40)[0])
    assert found == {"i < t (right)": (True, 0), "i <= t": (False, 1), "i > t": (False, 9), "no mask": (False, 9)}


def shifted(k, v, M, eta, DV, DK: tl.constexpr, ROWS: tl.constexpr):
    at = tl.arange(0, ROWS)[:, None] * DK + tl.arange(0, DK)[None, :]
    tl.store(M + at, tl.load(M + at) + eta)


@needs_triton
def test_the_stage_names_races_and_foreign_memory():
    from nlkernels.checker import OutOfBounds, Race

    with pytest.raises(Race, match="stored"):
        exercises.WRITE.record(shifted, *exercises.example("B-write"))
    with pytest.raises(OutOfBounds, match="a mask is missing"):
        kernel_player.play(
            shifted, (1,), k=torch.ones(4), v=torch.ones(2), M=torch.zeros(2, 4), eta=1.0, DV=2, DK=4, ROWS=4
        )
    with pytest.raises(NLBookError, match="arguments: got"):
        kernel_player.play(shifted, (1,), k=torch.ones(4))
    with pytest.raises(NLBookError, match="kernel: got int"):
        kernel_player.plain(3)


# ---- the puzzles ----------------------------------------------------------------------------------------------------
@needs_triton
@pytest.mark.parametrize("id", PUZZLES)
def test_a_picture_shows_who_touched_what(id):
    item = registry.find(id, KernelPuzzle)
    assert item.counter(item.solution) == dict(item.par)  # the par is what the solution takes
    run = exercises.PUZZLES[id].record(item.solution, *exercises.example(id))
    out = exercises.PUZZLES[id].out
    stored = figures.owners(run, out, "store")
    assert (stored >= 0).all()  # each element by exactly one program
    assert figures.moves(run).axes and out in figures.moves_alt(run)
    shared = {a for a, kind in figures.touched(run) if (figures.owners(run, a, kind) == -2).any()}
    assert shared == ({"k"} if id == "B-write" else set())


@needs_triton
def test_a_page_shows_a_picture_for_a_stub_and_for_a_broken_kernel(capsys, monkeypatch):
    titles = []
    monkeypatch.setattr(figures, "show", lambda fig, alt: titles.append(fig.get_suptitle()))
    for kernel in (registry.find("B-loop", KernelPuzzle).stub(), exercises.linear_loop, exercises.outer_write):
        figures.show_moves("B-loop", kernel)
    assert "as it should move" in titles[0] and titles[1] == "your linear_loop" and "as it should" in titles[2]
    assert "Yours stops with" in capsys.readouterr().out


def test_without_triton_the_exercises_say_so(monkeypatch):
    monkeypatch.setattr("nlbook.book.check.functions._installed", lambda package: False)
    for id in PUZZLES:
        verdict = judge(registry.find(id, KernelPuzzle), exercises.linear_loop)
        assert verdict.status == "not tried" and "triton is not installed" in verdict.message
    monkeypatch.setattr("nlkernels.dispatch._HAVE_TRITON", False)
    with pytest.raises(NLBookError, match="it exists for Linux only"):
        kernel_player.play(exercises.linear_loop, (1,))


def test_the_chapter_is_imported_where_triton_is_missing():
    code = (
        "import sys; sys.modules['triton'] = None; sys.modules['triton.language'] = None\n"
        "from nlbook.book.chapters.speed import exercises as there, figures\n"
        "from nlbook.book.chapters.speed import theatre\n"
        "from nlbook.book.chapters.speed.kernel_player import tl\n"
        "def kernel(x, N: tl.constexpr): ...\n"
        "print(len(there.ITEMS))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert found.returncode == 0 and int(found.stdout) == len(exercises.ITEMS), found.stderr


# ---- figures --------------------------------------------------------------------------------------------------------
def test_figures_say_what_they_show():
    assert figures.solver_curves(1).axes and "doubling 6e+08" in figures.solver_alt(3)
    assert figures.error_curves(2).axes and "below 1e-12" in figures.error_alt(2)
    assert figures.roofline(chunking.SHEET).axes and "ridge at 267" in figures.roofline_alt(chunking.SHEET)
