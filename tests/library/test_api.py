"""The public face of the library: what each room exports, small enough for one page."""

from __future__ import annotations

import importlib
import inspect

import pytest

import nlbook

ROOMS = [name for name in nlbook.__all__ if name != "errors"]


def exported(room: str) -> list[str]:
    return getattr(importlib.import_module(f"nlbook.{room}"), "__all__", [])


def test_the_whole_library_exports_at_most_the_names_of_one_page():
    assert sum(len(exported(room)) for room in ROOMS) <= 75


@pytest.mark.parametrize("room", ROOMS)
def test_what_a_room_exports_exists_once_and_says_what_it_is(room):
    module, names = importlib.import_module(f"nlbook.{room}"), exported(room)
    assert len(set(names)) == len(names) and module.__doc__
    for name in names:
        assert inspect.getdoc(getattr(module, name)), f"{room}.{name} has no docstring"
