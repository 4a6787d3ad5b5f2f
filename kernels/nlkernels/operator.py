"""What all operators share: arguments are checked, a form is chosen, dtypes are set, a fused form is known to torch.

`Operator` is the one declaration of an operator of tokens: its arguments with their dimensions, its options, its forms.
`fused` registers a fused forward and backward with torch.library, so that autograd and torch.compile see them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from nlkernels import dispatch
from nlkernels.errors import finite, need, need_choice, need_finite, need_float, need_int, visible

OBJECTIVES = ("dot", "l2")
READS = ("start", "before", "after")
Given = dict[str, Any]  # argument -> tensor, number or None


@dataclass(frozen=True)
class Operator:
    """The declaration of an operator whose tokens come as (batch, head, length, ...).

    shapes: argument -> the names of its dimensions, and `y`, the answer's. Where a name stands first it sets the size.
    tokens: arguments of one dtype, which autocast casts. All others are computed with in float32 (float64 for float64).
    states: arguments that come back as the last states.
    fills: arguments that may be absent -> the number that takes their place, or None where the rule knows "absent".
    gates: arguments that must not be negative. rates: which arguments to lower when a memory diverges.
    options: option -> its values. limits: dimension, or "chunk" -> the largest that the fused kernel takes.
    """

    name: str
    shapes: dict[str, str]
    tokens: tuple[str, ...]
    states: tuple[str, ...]
    reference: Callable[..., Any]
    chunked: Callable[..., Any]
    fused: Callable[..., Any]  # imports triton when it is called
    rates: str
    limits: dict[str, int]
    gates: tuple[str, ...] = ()
    fills: dict[str, float | None] = field(default_factory=dict)
    options: dict[str, tuple] = field(default_factory=dict)

    def __call__(
        self, given: Given, options: Given, impl: str, explain: bool, shapes: dict[str, str] | None = None
    ) -> tuple[Any, ...]:
        """y, then the last states. given: in the order of the forms' arguments. shapes: exceptions of this call."""
        dims = {**self.shapes, **(shapes or {})}
        sizes = self.check(given, options, dims)
        tokens = given[self.tokens[0]]
        choice = dispatch.choose(self.name, impl, tokens, sizes, self.limits)
        if explain:
            dispatch.explain_choice(self.name, choice)
        cast = dict(zip(self.tokens, dispatch.autocast_inputs(*(given[n] for n in self.tokens)), strict=True))
        like = cast[self.tokens[0]]
        with dispatch.no_autocast(like):
            work = dispatch.compute_dtype(like.dtype)
            ready = {n: cast.get(n, self.filled(n, x, dims, sizes, like, work)) for n, x in given.items()}
            if not tokens.shape[:3].numel():
                y = like.new_zeros([sizes[d] for d in dims["y"].split()])
                return y, *(ready[n].clone() for n in self.states)
            if choice.impl == "triton":
                y, *states = self.fused(*ready.values(), **options)
            else:
                run = self.reference if choice.impl == "reference" else self.chunked
                y, *states = run(*(x if x is None else x.to(work) for x in ready.values()), **options)
            y = y.to(like.dtype)
        self.need_finite(y, states)
        return y, *states

    def check(self, given: Given, options: Given, dims: dict[str, str]) -> dict[str, int]:
        """Raise KernelError unless everything fits; returns the size of each dimension by name."""
        sizes: dict[str, int] = {}
        for n in (n for n in dims if n != "y"):  # in this order: what sets a size first
            self.check_tensor(n, given[n], dims[n].split(), sizes)
        there = {n: x for n, x in given.items() if isinstance(x, Tensor)}
        for what, of in (("device", there), ("dtype", {n: there[n] for n in self.tokens})):
            found = {n: str(getattr(x, what)) for n, x in of.items()}
            need(len(set(found.values())) == 1, f"{', '.join(found)} of {self.name}", found, f"one {what}")
        need_int(f"chunk of {self.name}", options["chunk"], 1)
        for option, values in self.options.items():
            need_choice(f"{option} of {self.name}", options[option], values)
        return {**sizes, "chunk": options["chunk"]}

    def check_tensor(self, name: str, x: Any, dims: list[str], sizes: dict[str, int]) -> None:
        if name in self.fills and (x is None or (isinstance(x, int | float) and not isinstance(x, bool))):
            return
        argument, text = f"{name} of {self.name}", f"({', '.join(dims)})"
        need_float(argument, x, text)
        fits = x.ndim == len(dims) and all(sizes.setdefault(d, s) == s for d, s in zip(dims, x.shape, strict=True))
        expected = [sizes.get(d, d) for d in dims]
        need(fits, argument, f"shape {tuple(x.shape)}", f"({', '.join(map(str, expected))}) = {text}")
        need(x.shape[3:].numel() > 0, argument, f"shape {tuple(x.shape)}", "at least one feature")
        need_finite(argument, x)
        if name in self.gates and visible(x) and x.numel():
            need(x.detach().amin().item() >= 0, argument, f"the value {x.min().item():.3g}", "no negative retention")

    def filled(self, name: str, x: Any, dims: dict, sizes: dict, like: Tensor, work: torch.dtype) -> Any:
        """The argument in `work`; where it is absent or a number, a tensor of that number."""
        if isinstance(x, Tensor):
            return x.to(work)
        number = self.fills[name] if x is None else x
        return None if number is None else like.new_full([sizes[d] for d in dims[name].split()], number, dtype=work)

    def need_finite(self, y: Tensor, states: list[Tensor]) -> None:
        """Raise if a memory has diverged: from finite input nothing else leads to an infinite answer."""
        for x in (y, *states):
            if visible(x):
                need(finite(x), f"{self.rates} of {self.name}", "rates with which the memory diverges", "smaller ones")


def empty(like: Tensor, *shape: int) -> Tensor:
    """A fresh contiguous tensor in the dtype and on the device of `like`."""
    return torch.empty(shape, dtype=like.dtype, device=like.device)


class Fused:
    """A fused forward and backward as operators of torch. Tensors have names, those of the kernels' arguments.

    inputs: in the order in which they are given, "?" behind one that may be absent. options: their part of the schema.
    returned, kept: what the forward makes for its caller, and for the backward.
    outputs(given, **options): fresh tensors by name. forward(given, **options) fills them. backward(given, **options)
    finds there also the gradients of what was returned, "d" before its name, and gives the inputs' gradients by name.
    traced: the backward is plain PyTorch and needs no operator of its own.
    """

    def __init__(
        self,
        name: str,
        inputs: str,
        options: str,
        returned: str,
        kept: str = "",
        *,
        outputs: Callable[..., Given],
        forward: Callable[..., None],
        backward: Callable[..., Given],
        traced: bool = False,
    ) -> None:
        self.inputs, self.options = inputs.replace("?", "").split(), [o.split()[-1] for o in options.split(", ")]
        self.returned, self.kept = returned.split(), kept.split()
        self.outputs, self.forward, self.backward = outputs, forward, backward
        self.all = [f"d{n}" for n in self.returned] + self.inputs + self.kept
        there = [f"Tensor{'?' * n.endswith('?')} {n.rstrip('?')}" for n in inputs.split()]
        self.op = self.register(name, [*there, options], len(self.returned + self.kept), self.run, self.fake)
        self.back = self.run_backward
        if not traced:
            schema = [*(f"Tensor d{n}" for n in self.returned), *there, *(f"Tensor {n}" for n in self.kept), options]
            back = f"{name}_backward"
            self.back = self.register(back, schema, len(self.inputs), self.run_backward, self.fake_backward)
        self.op.register_autograd(self.differentiate, setup_context=self.save)

    @staticmethod
    def register(name: str, schema: list[str], results: int, run: Callable, fake: Callable) -> Any:
        result = "Tensor" if results == 1 else f"({', '.join(['Tensor'] * results)})"
        full = f"({', '.join(schema)}) -> {result}"
        op = torch.library.custom_op(f"nlkernels::{name}", run, mutates_args=(), schema=full)
        op.register_fake(fake)
        return op

    def __call__(self, *arguments: Any) -> tuple[Tensor, ...]:
        """The tensors, then the options; gives what is returned."""
        out = self.op(*arguments)
        return out[: len(self.returned)] if isinstance(out, tuple) else (out,)

    def named(self, arguments: tuple, names: list[str]) -> tuple[Given, Given]:
        """Tensors, contiguous, and options, both by name."""
        n = len(names)
        tensors = (x if x is None else x.contiguous() for x in arguments[:n])
        return dict(zip(names, tensors, strict=True)), dict(zip(self.options, arguments[n:], strict=True))

    def run(self, *arguments: Any) -> Any:
        given, options = self.named(arguments, self.inputs)
        made = self.outputs(given, **options)
        self.forward({**given, **made}, **options)
        return self.result([made[n] for n in (*self.returned, *self.kept)])

    def fake(self, *arguments: Any) -> Any:
        given, options = self.named(arguments, self.inputs)
        return self.result([self.outputs(given, **options)[n] for n in (*self.returned, *self.kept)])

    def run_backward(self, *arguments: Any) -> Any:
        given, options = self.named(arguments, self.all)
        found = self.backward(given, **options)
        return self.result([found[n] if given[n] is not None else empty(arguments[0], 0) for n in self.inputs])

    def fake_backward(self, *arguments: Any) -> Any:
        given, _ = self.named(arguments, self.all)
        tensors = [given[n] for n in self.inputs]
        return self.result([empty(arguments[0], 0) if x is None else empty(x, *x.shape) for x in tensors])

    @staticmethod
    def result(tensors: list[Tensor]) -> Any:
        return tuple(tensors) if len(tensors) > 1 else tensors[0]

    def save(self, ctx: Any, inputs: tuple, output: Any) -> None:
        n = len(self.inputs)
        out = output if isinstance(output, tuple) else (output,)
        ctx.save_for_backward(*inputs[:n], *out[len(self.returned) :])
        ctx.options = inputs[n:]
        ctx.shapes = [(x.shape, x.dtype, x.device) for x in out[: len(self.returned)]]
        ctx.set_materialize_grads(False)  # or what is kept would get gradients of its size

    def differentiate(self, ctx: Any, *grads: Tensor | None) -> tuple:
        there = [
            torch.zeros(shape, dtype=dtype, device=device) if g is None else g
            for g, (shape, dtype, device) in zip(grads, ctx.shapes)
        ]
        found = self.back(*there, *ctx.saved_tensors, *ctx.options)
        found = found if isinstance(found, tuple) else (found,)
        tensors = ctx.saved_tensors[: len(self.inputs)]
        return *(None if x is None else g for x, g in zip(tensors, found)), *(None for _ in ctx.options)
