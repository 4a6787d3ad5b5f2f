"""Launch a Triton kernel: compiled on CUDA tensors, interpreted on CPU tensors.

Triton's interpreter runs a kernel program by program in NumPy: slow (some 0.1 s a chunk), exact (float64 works), and
open to a debugger. It is normally switched on by TRITON_INTERPRET=1 *before* triton's first import, which
torch.compile may well have done already. `interpret(kernel)[grid](...)` needs no variable and no order: it takes an
already compiled-mode @triton.jit function and rewrites it and the jit functions that it calls, for this one launch.
So a kernel can be interpreted and compiled in one process.
"""

from __future__ import annotations

import functools
import threading
import warnings
from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl
import triton.runtime.interpreter as _interpreter
from triton.runtime.jit import JITFunction


class InterpreterWarning(UserWarning):
    """A fused kernel runs in Triton's interpreter: right results, thousands of times slower than on a GPU."""


_lock = threading.RLock()
_patch_lang, _patch_tensor = _interpreter._patch_lang, _interpreter._patch_lang_tensor


class _Languages:
    """What the outermost launch patches, triton.language and its core: once, not at each nested call (1 ms each)."""

    __globals__ = {"tl": tl, "core": tl.core}  # noqa: RUF012


def _patch_tensor_with_index(tensor: Any, *scope: Any) -> None:
    """Triton 3.6 with NumPy >= 2.4 cannot make `range(runtime_argument)`, so an interpreted scalar becomes an index."""

    def index(self: Any) -> int:
        return int(self.handle.data.squeeze())

    _patch_tensor(tensor, *scope)
    if scope:
        scope[0].set_attr(tensor, "__index__", index)
    else:
        tensor.__index__ = index


@functools.cache
def _rewritten(fn: Callable) -> Any:
    return _interpreter.InterpretedFunction(fn)


class _Launch:
    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            with _lock:
                saved = JITFunction.__call__, _interpreter._patch_lang, _interpreter._patch_lang_tensor
                JITFunction.__call__ = lambda self, *a, **k: _rewritten(self.fn).rewrite()(*a, **k)
                _interpreter._patch_lang = lambda fn: _patch_lang(_Languages)
                _interpreter._patch_lang_tensor = _patch_tensor_with_index
                try:
                    return _rewritten(self.kernel.fn).run(*args, grid=grid, warmup=False, **kwargs)
                except _interpreter.InterpreterError as e:  # show what went wrong, not its repr in a wrapper
                    raise (e.__cause__ or e) from None
                finally:
                    JITFunction.__call__, _interpreter._patch_lang, _interpreter._patch_lang_tensor = saved

        return run


def interpret(kernel: Any) -> Any:
    """`interpret(kernel)[grid](*args, **kwargs)` runs a @triton.jit kernel on CPU tensors without TRITON_INTERPRET."""
    if isinstance(kernel, _interpreter.InterpretedFunction):
        return kernel
    while not isinstance(kernel, JITFunction):  # under @autotune or @heuristics
        kernel = kernel.fn
    return _Launch(kernel)


_told = False


def launch(kernel: Any, grid: tuple[int, ...], given: dict[str, Any], num_warps: int = 4, num_stages: int = 2) -> None:
    """Run `kernel` over `grid` with those of the `given` arguments that it names: compiled when its first tensor lies
    on a GPU, interpreted otherwise.

    The first interpreted launch of a process warns (InterpreterWarning) and names the cost.
    """
    arguments = {n: given[n] for n in kernel.arg_names}
    like = next(a for a in arguments.values() if isinstance(a, torch.Tensor))
    (_compiled if like.device.type == "cuda" else _interpreted)(
        kernel, grid, arguments, {"num_warps": num_warps, "num_stages": num_stages}
    )


def _compiled(kernel: Any, grid: tuple[int, ...], arguments: dict[str, Any], options: dict[str, int]) -> None:
    like = next(a for a in arguments.values() if isinstance(a, torch.Tensor))
    with torch.cuda.device(like.device):
        kernel[grid](**arguments, **options)


def _interpreted(kernel: Any, grid: tuple[int, ...], arguments: dict[str, Any], options: dict[str, int]) -> None:
    global _told
    if not _told:
        _told = True
        warnings.warn(
            f"{kernel.fn.__name__} runs in Triton's interpreter (triton {triton.__version__}), as its "
            "tensors lie on the CPU: about 0.1 s a chunk and head, for learning and testing only. "
            "impl='chunked' is the fast form here.",
            InterpreterWarning,
            stacklevel=4,
        )
    interpret(kernel)[grid](**arguments)
