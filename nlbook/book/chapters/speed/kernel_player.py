"""A stage for Triton kernels: their programs run one after another on the CPU, and each load and store is kept.

`play` runs a kernel in Triton's interpreter under the checker of nlkernels: reading outside an argument, or two
programs that touch what one of them stored, is an error with a name. The kernel may carry @triton.jit or be a plain
function (so that a page with kernels opens where Triton does not exist).
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nlbook.errors import NLBookError

if TYPE_CHECKING:
    import numpy as np

try:
    import triton.language as tl
except ImportError:  # enough for `width: tl.constexpr` in a signature
    tl = types.SimpleNamespace(constexpr=int)  # type: ignore[assignment]

Kernel = Callable[..., Any]
Program = tuple[int, ...]


@dataclass(frozen=True)
class Move:
    """One load or store of one program: which elements (flat) of which argument."""

    program: Program
    kind: str  # "load" | "store"
    argument: str
    elements: np.ndarray


@dataclass(frozen=True)
class Run:
    """A kernel, played: its grid, the shapes of its tensors, all moves in order, and the tensors afterwards."""

    kernel: str
    grid: tuple[int, ...]
    shapes: dict[str, tuple[int, ...]]
    moves: tuple[Move, ...]
    tensors: dict[str, Tensor]

    def count(self, kind: str, argument: str | None = None) -> int:
        """Elements loaded ("load") or stored ("store"), of one argument or of all."""
        return sum(len(m.elements) for m in self.moves if m.kind == kind and argument in (None, m.argument))

    @property
    def counts(self) -> dict[str, int]:
        return {"loads": self.count("load"), "stores": self.count("store")}

    @property
    def programs(self) -> list[Program]:
        """In the order in which the interpreter runs them. A GPU promises no order."""
        return list(dict.fromkeys(m.program for m in self.moves))


def plain(kernel: Any) -> types.FunctionType:
    """The Python function under @triton.jit, @triton.autotune and the like, with globals of its own: the interpreter
    leaves names behind."""
    while not isinstance(kernel, types.FunctionType):
        if not hasattr(kernel, "fn"):
            raise NLBookError(f"kernel: got {type(kernel).__name__}, expected a function, with or without @triton.jit")
        kernel = kernel.fn
    space = {**kernel.__globals__, "tl": tl}
    copy = types.FunctionType(kernel.__code__, space, kernel.__name__, kernel.__defaults__, kernel.__closure__)
    functools.update_wrapper(copy, kernel, updated=())
    return copy


def play(kernel: Kernel, grid: tuple[int, ...], **arguments: Any) -> Run:
    """Run `kernel` over `grid` on copies of the tensors in `arguments`.

    Raises:
        NLBookError: triton is not installed, or an argument is missing or unknown.
        nlkernels.checker.OutOfBounds, Race: the kernel does what the interpreter alone would hide.
    """
    from nlkernels.dispatch import have_triton

    if not have_triton():
        raise NLBookError(
            "triton: got no such package (it exists for Linux only), expected it for running a kernel; "
            "everything else in this chapter works without"
        )
    import triton
    from nlkernels.checker import checked
    from nlkernels.interpret import interpret

    fn = plain(kernel)
    names = list(inspect.signature(fn).parameters)
    if set(names) != set(arguments):
        raise NLBookError(f"arguments: got {sorted(arguments)}, expected {names}")
    given = {n: a.detach().clone().contiguous() if isinstance(a := arguments[n], Tensor) else a for n in names}
    with checked(record=True) as seen:
        interpret(triton.jit(fn))[grid](*given.values())
    tensors = {n: a for n, a in given.items() if isinstance(a, Tensor)}
    sides = len(grid)
    return Run(
        fn.__name__,
        tuple(grid),
        {n: tuple(t.shape) for n, t in tensors.items()},
        tuple(Move(a.program[:sides], a.kind, a.argument, a.elements) for a in seen.accesses),
        tensors,
    )


@dataclass(frozen=True)
class Puzzle:
    """How a kernel of an exercise is launched: the grid from its arguments by name, and the argument that it writes.

    model: a kernel whose signature names the arguments; an answer may call them as it likes. The output should come
    filled with NaN, so that an element that no program wrote is seen.
    """

    model: Kernel
    grid: Callable[[Mapping[str, Any]], tuple[int, ...]]
    out: str

    def record(self, kernel: Kernel, *args: Any) -> Run:
        """Play it with arguments in the model's order."""
        own = inspect.signature(plain(kernel)).parameters
        return play(kernel, self.grid(dict(zip(self.names, args))), **dict(zip(own, args)))

    @property
    def names(self) -> list[str]:
        return list(inspect.signature(plain(self.model)).parameters)

    def launch(self, kernel: Kernel) -> Callable[..., Any]:
        """A function of the kernel's arguments that returns what was written."""
        if not callable(kernel) or isinstance(kernel, type):
            return kernel

        @functools.wraps(plain(kernel))
        def run(*args: Any) -> Tensor:
            after = self.record(kernel, *args)
            return after.tensors[list(inspect.signature(plain(kernel)).parameters)[self.names.index(self.out)]]

        return run

    def counter(self, *args: Any) -> Counter:
        """Elements loaded and stored with these arguments."""
        return Counter(self, args)


@dataclass(frozen=True)
class Counter:
    """Counts what a kernel loads and stores with these arguments: `counter(kernel)["loads"]`."""

    puzzle: Puzzle
    args: tuple[Any, ...]

    def __call__(self, kernel: Kernel) -> dict[str, int]:
        return self.puzzle.record(kernel, *self.args).counts


def blank(*shape: int) -> Tensor:
    """A float64 tensor of NaN to write into."""
    return torch.full(shape, float("nan"), dtype=torch.float64)
