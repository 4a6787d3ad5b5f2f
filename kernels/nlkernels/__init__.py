"""nlkernels: the operators of nested learning, from the definition to a fused GPU kernel.

Each operator is a folder with three rooms: `reference.py` (a loop over tokens: the definition), `chunked.py` (the
exact parallel form in plain PyTorch) and `triton.py` (one fused kernel, forward and backward). `impl="auto"` picks
for you; see `nlkernels.dispatch`.
Importing this package needs torch only: triton is imported when a fused kernel is launched.

    linear_memory     one recurrence; presets linear_attention, delta_rule, gated_delta_rule, hope_memory
    selfref_memory    linear self-modifying Titans: five memories that make their own keys, values and rates
    titans_memory     Titans' linear memory: momentum and forgetting
    mlp_memory        the residual two-layer memory of Hope, learning while it is read
    newton_schulz     orthogonalisation for Muon and M3, batched by shape
"""

from nlkernels.dispatch import available
from nlkernels.errors import KernelError
from nlkernels.linear_memory import delta_rule, gated_delta_rule, hope_memory, linear_attention, linear_memory
from nlkernels.mlp_memory import mlp_memory
from nlkernels.newton_schulz import newton_schulz
from nlkernels.selfref_memory import SelfRefState, selfref_memory
from nlkernels.titans_memory import titans_memory

__all__ = [
    "KernelError",
    "SelfRefState",
    "available",
    "delta_rule",
    "gated_delta_rule",
    "hope_memory",
    "linear_attention",
    "linear_memory",
    "mlp_memory",
    "newton_schulz",
    "selfref_memory",
    "titans_memory",
]
