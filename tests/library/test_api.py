"""The public face of the library: what each room exports, small enough for one page."""

from __future__ import annotations

import importlib
import inspect

import pytest
import torch
from kit import rand, refuses

import nlbook
from nlbook import cms, memory, optim
from nlbook.door import door
from nlbook.errors import NLBookError

ROOMS = [name for name in nlbook.__all__ if name != "errors"]


def exported(room: str) -> list[str]:
    return getattr(importlib.import_module(f"nlbook.{room}"), "__all__", [])


def test_the_whole_library_exports_at_most_sixty_names():
    assert sum(len(exported(room)) for room in ROOMS) <= 60


@pytest.mark.parametrize("room", ROOMS)
def test_what_a_room_exports_exists_once_and_says_what_it_is(room):
    module, names = importlib.import_module(f"nlbook.{room}"), exported(room)
    assert len(set(names)) == len(names) and module.__doc__
    for name in names:
        assert inspect.getdoc(getattr(module, name)), f"{room}.{name} has no docstring"


# ---- the door of a public call ----


@door
def example(x: torch.Tensor, n: int = 1, rate: float | torch.Tensor = 0.5, name: str | None = None, f=None) -> object:
    return f(x) if f else x.reshape(n, -1) * rate


@pytest.mark.parametrize(
    ("argument", "given"),
    [
        ("x", {"x": [1.0]}),
        ("x", {"x": torch.tensor([1.0, float("nan")])}),
        ("x", {"x": torch.tensor([float("inf")])}),
        ("n", {"x": rand(2), "n": True}),
        ("n", {"x": rand(2), "n": 1.5}),
        ("rate", {"x": rand(2), "rate": float("nan")}),
        ("rate", {"x": rand(2), "rate": "fast"}),
        ("name", {"x": rand(2), "name": 3}),
        ("example", {"x": rand(3), "n": 2}),  # each of its kind, but not together
    ],
)
def test_the_door_refuses_by_name(argument, given):
    with refuses(argument):
        example(**given)


def test_the_door_keeps_the_cause_and_lets_the_callers_own_errors_through():
    with pytest.raises(NLBookError) as refused:
        example(rand(3), 2)
    assert isinstance(refused.value.__cause__, RuntimeError) and "n 2" in str(refused.value)

    def broken(x):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        example(rand(3), f=broken)


def test_inside_a_call_and_in_a_compiled_graph_there_is_no_door():
    spoilt = torch.full((2,), float("nan"))
    assert example(rand(2), f=lambda x: example(spoilt)).isnan().all()
    torch.compiler.reset()
    assert torch.compile(example, fullgraph=True, backend="eager")(spoilt).isnan().all()
    with refuses("x"):  # and the door is there again
        example(spoilt)


def test_every_room_has_its_doors():
    spoilt = torch.full((4,), float("nan"))
    for argument, call in (
        ("k", lambda: memory.rules.dgd_rate(spoilt, 1.0)),
        ("params", lambda: optim.Muon(3)),
        ("dim", lambda: cms.CMS("wide", 4, (2, 3))),
    ):
        with refuses(argument):
            call()
