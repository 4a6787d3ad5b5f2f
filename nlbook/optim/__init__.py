"""Optimizers as associative memories of gradients: torch.optim.Optimizer subclasses to drop into any training loop.

momentum.py     horizon, momentum as an inner problem, preconditioners as memories; `Momentum`: key, value, read-out
delta.py        `DeltaMomentum`: forget along a gradient before storing it, in the readings that are stable
deep.py         `DeepMomentum` (DMGD): the memory is an MLP
dgd.py          `DGD`: the weights as a delta-rule memory
muon.py, m3.py  `Muon`, `M3`: momentum read through Newton-Schulz, on one and on two time scales
adam_memory.py  `AdamMemory`: the least-squares memory that Adam is, and what AdaGrad is
"""

from nlbook.door import doors
from nlbook.optim.adam_memory import AdamMemory
from nlbook.optim.deep import DeepMomentum
from nlbook.optim.delta import DeltaMomentum
from nlbook.optim.dgd import DGD
from nlbook.optim.m3 import M3
from nlbook.optim.momentum import Momentum, momentum_horizon, momentum_weights
from nlbook.optim.muon import Muon, matrix_groups

__all__ = [
    "DGD",
    "M3",
    "AdamMemory",
    "DeepMomentum",
    "DeltaMomentum",
    "Momentum",
    "Muon",
    "matrix_groups",
    "momentum_horizon",
    "momentum_weights",
]

doors(__name__)
