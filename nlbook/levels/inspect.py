"""`levels_of(model, optimizer)`: the level diagram of any torch model under any torch optimizer.

Where the components come from:
  * a module with `nested_components()` speaks for its whole subtree and lists its fast parts, periods in tokens;
    its attribute `nested_initial_states` names the parameters that are meta-learned starts of those parts;
  * plain modules are recognised: attention (non-parametric, frequency inf), recurrent cells (every token), running
    statistics of batch norm (every step);
  * parameters: once per optimizer step if an optimizer moves them, else frozen;
  * optimizer state: what the optimizer keeps per parameter (`exp_avg`, `momentum_buffer`, ...), found in its state, or
    by a dry run of a copy on a 2x2 parameter. An optimizer with `nested_components(group)` says it itself, for a group
    of one parameter, periods in steps, with one component named "weights".
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

from nlbook.errors import NLBookError, need
from nlbook.levels.order import INF, Component, NestedSystem

# Per-parameter state that the weights at time t do not read, or that reads other state: name -> (needs, read by the
# weights)
_EXCEPTIONS: dict[str, tuple[frozenset[str], bool]] = {
    "max_exp_avg_sq": (frozenset({"exp_avg_sq"}), True),  # AMSGrad: the maximum is taken over this step's second moment
    "ax": (frozenset({"weights"}), False),  # averaged SGD: an average of the weights, nobody reads it
    "prev": (frozenset(), False),  # Rprop: last step's gradient
    "previous_grad": (frozenset(), False),
}


def levels_of(
    model: nn.Module, optimizer: Any = None, *, tokens_per_step: int | None = None, depth: int = 1
) -> NestedSystem:
    """The nested system that `model` and its optimizer make (Def. 2-4): levels, frequencies, and who needs whom.

    Args:
        model: any torch module.
        optimizer: a torch optimizer, a list of them that step together, or None (after pre-training: all weights
            frozen).
        tokens_per_step: tokens of one sequence that pass between two optimizer steps. With it the unit of time is one
            token; without it one optimizer step, which is refused for a model that has fast states (their unit is the
            token).
        depth: how many parts of a parameter's name make a component: 1 joins `blocks.0.mlp.weight` to "blocks", 0 joins
            all.

    >>> print(levels_of(nn.Linear(2, 2), torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)).order())
    {bias, weight}
    """
    if not isinstance(model, nn.Module):
        raise NLBookError(f"model: got {type(model).__name__}, expected a torch.nn.Module")
    need(
        tokens_per_step is None or (isinstance(tokens_per_step, int) and tokens_per_step > 0),
        "tokens_per_step",
        tokens_per_step,
        "a positive int, or None",
    )
    need(isinstance(depth, int) and depth >= 0, "depth", depth, "an int >= 0")
    opts = optimizers_of(optimizer)
    fast = components_of(model)
    ticking = [c.name for c in fast if c.frequency not in (0, INF) and c.kind != "running statistics"]
    need(
        tokens_per_step is not None or not opts or not ticking,
        "tokens_per_step",
        "None",
        f"the tokens between two optimizer steps: {', '.join(ticking[:3])} change every few tokens, the optimizer "
        "every step, and one unit must hold both",
    )
    step = Fraction(1, tokens_per_step or 1)
    unit = "token" if tokens_per_step or not opts else "optimizer step"

    moved = step if model.training else 0
    out = [replace(c, frequency=moved, period=None) if c.kind == "running statistics" else c for c in fast]
    # An outer gradient reads the fast states of its own time: they are faster than whoever first stores that gradient.
    beside = frozenset(c.name for c in fast if c.frequency == step and c.kind == "fast state")
    for bundle in _bundles(model, opts, depth):
        for c in bundle.components:
            inner = c.needs & bundle.inner
            frequency = 0 if c.frequency == 0 else c.frequency * step  # type: ignore[operator]
            reads = frozenset(bundle.names[n] for n in inner if n != "weights")
            if "weights" in inner:
                reads |= frozenset(bundle.groups)
            if not inner and frequency == step:
                reads |= beside
            if c.name != "weights":
                out.append(
                    replace(
                        c, name=bundle.names[c.name], frequency=frequency, period=None, needs=reads, size=bundle.size
                    )
                )
                continue
            for name, tied in bundle.groups.items():
                kind = "frozen" if frequency == 0 else "initial state" if tied.initial else "weights"
                out.append(Component(name, frequency, needs=reads, kind=kind, size=tied.size))
    return NestedSystem(out, unit)


def components_of(model: nn.Module, prefix: str = "") -> list[Component]:
    """The fast parts of a model, by protocol or by kind of torch module. Names begin with the module's path."""
    if (own := getattr(model, "nested_components", None)) is not None:
        found = list(own())
        for c in found:
            if not isinstance(c, Component):
                raise NLBookError(
                    f"{type(model).__name__}.nested_components(): got {type(c).__name__}, expected Components"
                )
        names = {c.name: _join(prefix, c.name) for c in found}
        return [c.renamed(names) for c in found]
    if (
        isinstance(model, nn.modules.batchnorm._BatchNorm)
        and model.track_running_stats
        and model.running_mean is not None
    ):
        return [
            Component(_join(prefix, "running statistics"), 1, kind="running statistics", size=2 * model.num_features)
        ]
    if isinstance(model, nn.RNNBase | nn.RNNCellBase):
        return [
            Component(
                _join(prefix, "hidden state"),
                1,
                kind="fast state",
                size=model.hidden_size,
                note="reset to zero at the start of a sequence",
            )
        ]
    if _is_attention(model):
        return [
            Component(
                _join(prefix, "attention"),
                INF,
                kind="non-parametric",
                note="conditioned on the raw context (eq. 27); no state is trained",
            )
        ]
    return [c for name, child in model.named_children() for c in components_of(child, _join(prefix, name))]


def _is_attention(m: nn.Module) -> bool:
    """nn.MultiheadAttention, and the attention modules of Hugging Face and of most hand-written Transformers."""
    if isinstance(m, nn.MultiheadAttention):
        return True
    if not type(m).__name__.endswith("Attention"):
        return False
    return any(
        hasattr(m, n)
        for n in ("q_proj", "query", "c_attn", "qkv", "qkv_proj", "query_key_value", "in_proj_weight", "Wqkv")
    )


def _join(*parts: str) -> str:
    return ".".join(p for p in parts if p)


# ---------------------------------------------------------------------- optimizers
def optimizers_of(optimizer: Any) -> list[Any]:
    """None, one optimizer or several, as a list; an error for anything else."""
    many = [] if optimizer is None else list(optimizer) if isinstance(optimizer, list | tuple) else [optimizer]
    for o in many:
        if not hasattr(o, "param_groups") or not hasattr(o, "step"):
            raise NLBookError(
                f"optimizer: got {type(o).__name__}, expected a torch.optim.Optimizer (or a list of them)"
            )
    return many


@dataclass
class _Tied:
    """Parameters that share a component."""

    params: list[Tensor]
    initial: bool = False

    @property
    def size(self) -> int:
        return sum(p.numel() for p in self.params)


@dataclass
class _Bundle:
    """Parameters of one optimizer whose state has the same structure: one set of state components serves them all."""

    optimizer: Any
    components: list[Component]  # periods in optimizer steps; one is named "weights"
    groups: dict[str, _Tied]  # weights components: name -> parameters
    names: dict[str, str]  # state key -> name of its component

    @property
    def inner(self) -> frozenset[str]:
        return frozenset(c.name for c in self.components)

    @property
    def size(self) -> int:
        return sum(t.size for t in self.groups.values())


def start_ids(model: nn.Module) -> set[int]:
    """The parameters that `nested_initial_states` names, by id: meta-learned starts of fast states."""
    held = [getattr(m, n, None) for m in model.modules() for n in getattr(m, "nested_initial_states", ())]
    many = [x.parameters() if isinstance(x, nn.Module) else [x] for x in held]
    return {id(p) for ps in many for p in ps if isinstance(p, nn.Parameter)}


def _bundles(model: nn.Module, opts: Sequence[Any], depth: int) -> list[_Bundle]:
    named = {id(p): n for n, p in model.named_parameters()}
    by_id = {id(p): p for p in model.parameters()}
    starts = start_ids(model)
    moving: dict[tuple, tuple[Any, list[Component], list[int]]] = {}
    seen: set[int] = set()
    for i, opt in enumerate(opts):
        for group in opt.param_groups:
            ids = [id(p) for p in group["params"] if id(p) in named and by_id[id(p)].requires_grad]
            for comps, mine in _by_structure(opt, group, ids, by_id):
                key = (i, tuple(sorted((c.name, str(c.frequency), tuple(sorted(c.needs))) for c in comps)))
                moving.setdefault(key, (opt, comps, []))[2].extend(mine)
            seen.update(ids)
    still = [i for i in named if i not in seen]
    parts = [*moving.values()] + ([(None, [Component("weights", 0)], still)] if still else [])
    bundles = []
    for opt, comps, ids in parts:
        groups: dict[str, _Tied] = {}
        for j in ids:
            initial = j in starts
            name = named[j] if initial else ".".join(named[j].split(".")[:depth]) or "weights"
            groups.setdefault(name, _Tied([], initial)).params.append(by_id[j])
        bundles.append(_Bundle(opt, comps, groups, {c.name: c.name for c in comps if c.name != "weights"}))
    _make_unique(bundles)
    return bundles


def _make_unique(bundles: list[_Bundle]) -> None:
    """A name that occurs in several bundles gets the bundle's number: exp_avg [1], exp_avg [2]; frozen parts say so."""
    count: dict[str, int] = {}
    for b in bundles:
        for n in [*b.groups, *b.names.values()]:
            count[n] = count.get(n, 0) + 1
    for i, b in enumerate(bundles, 1):

        def tag(n: str, b: _Bundle = b, i: int = i) -> str:
            return n if count[n] == 1 else f"{n} [{'frozen' if b.optimizer is None else i}]"

        b.groups = {tag(n): t for n, t in b.groups.items()}
        b.names = {k: tag(n) for k, n in b.names.items()}


def _by_structure(
    opt: Any, group: dict[str, Any], ids: list[int], params: Mapping[int, Tensor]
) -> list[tuple[list[Component], list[int]]]:
    """The group's parameters with their components: one set, or one a parameter where the optimizer declares them (Muon
    and M3 treat matrices and vectors of one group differently)."""
    if not hasattr(opt, "nested_components"):
        return [(_state_components(opt, group), ids)] if ids else []
    return [(_state_components(opt, {**group, "params": [params[i]]}), [i]) for i in ids]


def _state_components(opt: Any, group: dict[str, Any]) -> list[Component]:
    """The weights and what the optimizer keeps for them; periods in optimizer steps."""
    if hasattr(opt, "nested_components"):
        comps = list(opt.nested_components(group))
        need(
            sum(c.name == "weights" for c in comps) == 1,
            f"{type(opt).__name__}.nested_components()",
            [c.name for c in comps],
            "exactly one component named 'weights'",
        )
        return comps
    state = next((opt.state[p] for p in group["params"] if opt.state.get(p)), None)
    if state is None:
        state = _dry_run(opt, group)
    keys = [k for k, v in state.items() if _holds_numbers(v)]
    comps = [
        Component(str(k), 1, needs=_EXCEPTIONS.get(k, (frozenset(), True))[0], kind="optimizer state") for k in keys
    ]
    read = frozenset(str(k) for k in keys if _EXCEPTIONS.get(k, (frozenset(), True))[1])
    return [Component("weights", 1, needs=read), *comps]


def _holds_numbers(v: Any) -> bool:
    """A memory, as opposed to a step counter."""
    if isinstance(v, Tensor):
        return v.numel() > 1
    return isinstance(v, list | tuple) and any(_holds_numbers(x) for x in v)


def _dry_run(opt: Any, group: dict[str, Any]) -> dict[str, Any]:
    """State that the optimizer would keep for a 2x2 parameter with this group's settings: one step of a fresh copy."""
    p = nn.Parameter(torch.ones(2, 2))
    takes = inspect.signature(type(opt).__init__).parameters
    try:
        settings = {k: group[k] for k in opt.defaults if k in group and k in takes}
        copy = type(opt)([p], **settings)

        def closure() -> Tensor:
            copy.zero_grad()
            with torch.enable_grad():
                loss = (p * p).sum()
                loss.backward()
            return loss

        closure()
        copy.step(closure)
        return dict(copy.state.get(p, {}))
    except Exception as e:  # whatever a foreign optimizer raises
        raise NLBookError(
            f"optimizer: got {type(opt).__name__}, which fails on a 2x2 parameter ({type(e).__name__}: {e}), expected "
            "one that can be tried so, has stepped already, or has nested_components(group)"
        ) from e


def moved_by(
    model: nn.Module, opts: Sequence[Any], index: int, depth: int = 1
) -> tuple[dict[str, Callable[[], Iterable[Tensor]]], frozenset[str]]:
    """For the trace: component name -> function giving its present tensors, for what optimizer `index` moves; and the
    names of those that do not move at every step."""
    out: dict[str, Callable[[], Iterable[Tensor]]] = {}
    own_clock: set[str] = set()
    for b in _bundles(model, opts, depth):
        if b.optimizer is not opts[index]:
            continue
        every = [p for t in b.groups.values() for p in t.params]
        for name, tied in b.groups.items():
            out[name] = lambda tied=tied: list(tied.params)  # type: ignore[misc]
        for key, name in b.names.items():

            def find(key: str = key, every: list[Tensor] = every, opt: Any = b.optimizer) -> list[Tensor]:
                held = [opt.state.get(p, {}).get(key) for p in every]
                return [
                    t
                    for v in held
                    if v is not None
                    for t in (v if isinstance(v, list | tuple) else [v])
                    if isinstance(t, Tensor)
                ]

            out[name] = find
        own_clock |= {b.names[c.name] for c in b.components if c.name != "weights" and c.frequency != 1}
    return out, frozenset(own_clock)
