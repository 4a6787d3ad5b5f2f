"""One door per public call: every argument is of the kind that its annotation says, and its numbers are finite.

`doors("nlbook.memory")` puts a check in front of each public function and method of a room. Calls from inside the
library go through unchecked, so a check is paid once a call and not once a function. Compiled graphs have no doors.
What passes and then does not fit together (two shapes, a key that a dictionary lacks) is refused with all arguments in
the message and torch's or Python's own error as the cause, unless code of the caller ran and may be what raised.
"""

from __future__ import annotations

import collections.abc
import functools
import inspect
import sys
import threading
import types
import typing
from collections.abc import Callable
from fractions import Fraction
from numbers import Integral, Real
from typing import Any

import torch
from nlkernels import KernelError
from torch import Tensor

from nlbook.errors import NLBookError, need_finite

Test = Callable[[Any], bool]
WORDS: dict[Any, str] = {
    Tensor: "a torch.Tensor",
    Fraction: "a fraction",
    float: "a number",
    int: "an int",
    bool: "True or False",
    str: "a string",
}
PLAIN: dict[Any, Test] = {
    float: lambda x: isinstance(x, Real) and not isinstance(x, bool) and x == x,
    int: lambda x: isinstance(x, Integral) and not isinstance(x, bool),
    Fraction: lambda x: isinstance(x, Fraction | str),  # "1/16" is one too
    Callable: callable,
    collections.abc.Callable: callable,
}
RAW = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError)
OURS = (NLBookError, KernelError, torch.OutOfMemoryError)  # these tell enough by themselves
_inside = threading.local()


def kind(hint: Any) -> tuple[Test, str] | None:
    """A test for an annotation, and the annotation in words; None where everything is welcome."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        found = [kind(h) for h in typing.get_args(hint)]
        if any(f is None for f in found):
            return None
        tests, words = zip(*(f for f in found if f is not None))
        return (lambda x: any(test(x) for test in tests)), " or ".join(words)
    if hint is None or hint is type(None):
        return (lambda x: x is None), "None"
    base = origin or hint
    if base in (Any, object):
        return None
    if base in (set, frozenset):  # a name alone stands for the set of it
        return (lambda x: isinstance(x, collections.abc.Iterable)), "a set"
    if base in (collections.abc.Sequence, list, tuple, collections.abc.Iterable) and base is not hint:
        return (lambda x: isinstance(x, collections.abc.Iterable) and not isinstance(x, str | Tensor)), "a sequence"
    if base in PLAIN:
        return PLAIN[base], WORDS.get(base, "a function")
    if isinstance(base, type):
        return (lambda x: isinstance(x, base)), WORDS.get(base, f"a {base.__name__}")
    return None


@functools.cache
def table(fn: Callable[..., Any]) -> tuple[list[str], dict[str, tuple[Test, str]]]:
    """The names of a function's positional arguments, and the test of each annotated one."""
    try:
        hints = typing.get_type_hints(fn)
    except (NameError, TypeError):  # an annotation that only a type checker can read
        hints = {}
    parameters = inspect.signature(fn).parameters.values()
    named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    tests = {p.name: found for p in named if p.name in hints and (found := kind(hints[p.name])) is not None}
    return [p.name for p in named if p.kind != p.KEYWORD_ONLY], tests


def brief(x: Any) -> str:
    """What came, in a few words."""
    return f"{x.dtype} {tuple(x.shape)}" if isinstance(x, Tensor) else repr(x)[:60].partition("\n")[0]


def check(name: str, x: Any, test: Test, words: str) -> None:
    """Raise unless x is of its kind, and finite if it is a tensor of real numbers."""
    if not test(x):
        raise NLBookError(f"{name}: got {type(x).__name__} ({brief(x)}), expected {words}")
    if isinstance(x, Tensor) and x.is_floating_point():
        need_finite(name, x)


def door(fn: Callable[..., Any]) -> Callable[..., Any]:
    """`fn` behind a check of its arguments."""

    @functools.wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling() or getattr(_inside, "now", False):
            return fn(*args, **kwargs)
        names, tests = table(fn)
        given = [*zip(names, args), *kwargs.items()]
        for name, x in given:
            if name in tests:
                check(name, x, *tests[name])
        _inside.now = True
        try:
            return fn(*args, **kwargs)
        except RAW as error:
            told = [f"{name} {brief(x)}" for name, x in given if name != "self"]
            if isinstance(error, OURS) or not told or any(callable(x) for name, x in given if name != "self"):
                raise
            why = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            fit = f"expected arguments that fit together ({why})"
            raise NLBookError(f"{fn.__name__}: got {', '.join(told)}, {fit}") from error
        finally:
            _inside.now = False

    return call


def doors(package: str) -> None:
    """Put a door before each public function, constructor and method that the modules of a package define."""
    modules = [m for name, m in sys.modules.items() if name == package or name.startswith(package + ".")]
    new: dict[Any, Any] = {}
    methods: list[Any] = []
    for name, found in (
        (n, f) for m in modules for n, f in vars(m).items() if getattr(f, "__module__", "") == m.__name__
    ):
        if inspect.isfunction(found) and not name.startswith("_"):
            new[found] = door(found)
        elif inspect.isclass(found) and not name.startswith("_") and not issubclass(found, Exception):
            for method, f in list(vars(found).items()):
                if inspect.isfunction(f) and (not method.startswith("_") or method == "__init__"):
                    methods.append(f)
                    setattr(found, method, door(f))
    for f in (*new, *methods):  # a default that is a function stays the same object as the name
        f.__defaults__ = f.__defaults__ and tuple(replaced(new, d) for d in f.__defaults__)
        f.__kwdefaults__ = f.__kwdefaults__ and {k: replaced(new, d) for k, d in f.__kwdefaults__.items()}
    for module in modules:
        for name, found in list(vars(module).items()):
            setattr(module, name, replaced(new, found))


def replaced(new: dict[Any, Any], x: Any) -> Any:
    return new.get(x, x) if inspect.isfunction(x) else x
