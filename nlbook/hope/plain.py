"""All of Hope in one file, one token at a time. Begin here: every fast form of the library is tested against it.

Hope is a language model whose weights go on learning while it reads. Each block is a memory that modifies itself
(self-modifying Titans, eq. 86-90 and 93), then a chain of MLPs that each move at a pace of their own (the continuum
memory system, eq. 70-71); eq. 94-97 put them together. The weights that come in are the starts of all memories, and
they are learned by backpropagation through everything below, all writes included.

    logits = hope(model.state_dict(), tokens)  # what `nlbook.hope.Hope` answers, to rounding

A comment that begins with "Open:" names a choice that the paper leaves open or prints wrongly, beside its equation.
`nlbook.hope.Hope` has the same rule for batches, streams and documents, and fast.
"""

import torch
from torch import Tensor
from torch.nn.functional import silu

Weights = dict[str, Tensor]
Sizes = tuple[int, ...]
ETA_MAX = 0.5  # Open: the largest rate. With |k| = 1 eq. 93 shrinks what is stored at k by alpha - 2 eta: in (-1, 1).
VALUE = 0.3  # Open: the size of what a level of eq. 70 is asked to say.


def rms(x: Tensor) -> Tensor:
    """x at mean square 1."""
    return x * (x.square().mean() + 1e-6).rsqrt()


def unit(x: Tensor) -> Tensor:
    """Each row of x at length 1."""
    return x * (x.square().sum(-1, keepdim=True) + 1e-12).rsqrt()


def learn(W1: Tensor, W2: Tensor, x: Tensor, target: Tensor, residual: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Backpropagation of 1/2 |M(x) - target|^2 by hand: hidden layer, error of the answer, error of the hidden layer.
    Open: eq. 93 has no 1/2, its gradient does. `target` is a constant for this derivative, not for the outer one."""
    z = W2 @ x
    a, s = silu(z), torch.sigmoid(z)
    error = W1 @ a + (x if residual else 0) - target
    return a, error, (W1.T @ error) * s * (1 + z * (1 - s))


class Memory:
    """Two layers that are trained while they are read. W1 and W2 move at every token; S1 and S2 are what they were at
    the last chunk boundary, which is what a reader meets (eq. 90)."""

    def __init__(self, weights: Weights, name: str, place: Sizes, chunk: int, residual: bool = True) -> None:
        self.W1 = self.S1 = weights[f"initial.{name}_W1"][place]  # Open: where a memory starts. Here: learned outside
        self.W2 = self.S2 = weights[f"initial.{name}_W2"][place]
        self.chunk, self.residual, self.seen = chunk, residual, 0

    def __call__(self, x: Tensor) -> Tensor:
        said = self.S1 @ silu(self.S2 @ x)  # Open: sigma. Here: silu, no biases
        return x + said if self.residual else said  # eq. 89, 91. Open: one number cannot be added to x, so gates do not

    def write(self, k: Tensor, value: Tensor, eta: Tensor, alpha: Tensor) -> None:
        """One step of DGD for each layer, which makes M(k) more like `value`: eq. 88 with the loss of eq. 93."""
        a, error, inner = learn(self.S1, self.S2, k, value, self.residual)
        # eq. 88: W (alpha I - eta n n^T) - eta gradient. Open: n is the layer's own input, k fits the first one only
        self.W1 = alpha * self.W1 - eta * torch.outer(self.W1 @ a + error, a)
        self.W2 = alpha * self.W2 - eta * torch.outer(self.W2 @ k + inner, k)
        self.seen += 1
        if self.seen % self.chunk == 0:  # eq. 90. Open: the index C ceil(t/C) would read the future; this is floor
            self.S1, self.S2 = self.W1, self.W2


class SelfModifyingTitans:
    """One head: five memories make key, value, rate, retention and answer, and all of them learn from each token."""

    def __init__(self, weights: Weights, head: int, chunks: Sizes) -> None:
        self.memory = Memory(weights, "mem", (head, 0), chunks[0])  # Open: the sizes of the two kinds of chunks
        self.key, self.value = (Memory(weights, "proj", (head, i), chunks[1]) for i in (0, 1))
        self.eta, self.alpha = (Memory(weights, "gate", (head, i), chunks[1], residual=False) for i in (0, 1))
        self.b_eta, self.b_alpha = weights["b_eta"][head], weights["b_alpha"][head]
        self.taps = weights["taps"][head]  # (q k v, 4, width)
        self.rows = torch.zeros_like(self.taps)  # the last four rows of each
        self.W_q = weights["W_q"].unflatten(0, (-1, self.taps.shape[-1]))[head]

    def filter(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """A short causal convolution, silu, length 1. Open: the paper has the convolution (width 4) and |q| = |k| = 1,
        but not their order, and not |v| = 1, without which self-made values feed back on themselves and explode."""
        self.rows = torch.cat([self.rows[:, 1:], torch.stack([q, k, v])[:, None]], 1)
        return unit(silu((self.taps * self.rows).sum(1)))

    def __call__(self, x: Tensor, own: Tensor) -> Tensor:
        """x (dim,): the token. own (width,): this head's features of it, which its memories read."""
        q, k, v = self.filter(self.W_q @ x, self.key(own), self.value(own))  # eq. 86, 94
        eta = ETA_MAX * torch.sigmoid(self.eta(own)[0] + self.b_eta)  # Open: the sigmoids, and their biases
        alpha = torch.sigmoid(self.alpha(own)[0] + self.b_alpha)
        y = self.memory(q)  # eq. 86: read, then write
        for each in (self.memory, self.key, self.value, self.eta, self.alpha):
            each.write(k, each(v), eta, alpha)  # eq. 87, 95: v^ = M(v), a value of its own; eq. 88, 96
        return y


class Level:
    """One MLP of the continuum memory system: it moves once in `period` tokens, by what those tokens said (eq. 71)."""

    def __init__(self, weights: Weights, i: int, period: int) -> None:
        self.up, self.down = weights[f"up.{i}"], weights[f"down.{i}"]
        self.key, self.value, self.rate = weights[f"key.{i}"], weights[f"value.{i}"], weights["log_lr"][i].exp()
        self.period = period
        self.gradients: list[tuple[Tensor, Tensor]] = []

    def __call__(self, h: Tensor) -> Tensor:
        n = rms(h)
        y = h + self.down @ silu(self.up @ n)  # Open: width, sigma, norm and residual of an MLP
        k, v = rms(self.key @ n), VALUE * rms(self.value @ n)  # Open: the loss. Here: 1/2 |MLP(k) - v|^2, k, v learned
        a, error, inner = learn(self.down, self.up, k, v, residual=False)
        self.gradients.append((torch.outer(inner, k), torch.outer(error, a)))
        if len(self.gradients) == self.period:  # Open: eq. 71 prints a sum of C + 1 terms. Here: the mean of C
            up, down = (torch.stack(g).mean(0) for g in zip(*self.gradients, strict=True))
            self.up, self.down, self.gradients = self.up - self.rate * up, self.down - self.rate * down, []
        return y


class Block:
    """Eq. 94-97. Open: the norms, the gate, the read-out and the residuals, which the paper leaves out."""

    def __init__(self, weights: Weights, periods: Sizes, chunks: Sizes) -> None:
        mixer, mlp = part(weights, "mixer."), part(weights, "mlp.")
        self.heads = [SelfModifyingTitans(mixer, i, chunks) for i in range(len(mixer["taps"]))]
        self.levels = [Level(mlp, i, period) for i, period in enumerate(periods)]  # Open: the order. Here: fast to slow
        self.W_g, self.W_o = weights["W_g"], weights["W_o"]

    def __call__(self, x: Tensor) -> Tensor:
        n = rms(x)
        o = torch.cat([head(n, own) for head, own in zip(self.heads, n.chunk(len(self.heads)), strict=True)])
        x = x + self.W_o @ (rms(o) * silu(self.W_g @ n))
        for level in self.levels:  # eq. 70, 97
            x = level(x)
        return x


def part(weights: Weights, name: str) -> Weights:
    """The weights whose names begin with `name`, by the rest of their names."""
    return {key.removeprefix(name): w for key, w in weights.items() if key.startswith(name)}


def hope(weights: Weights, tokens: Tensor, periods: Sizes = (16, 64, 256), chunks: Sizes = (64, 16)) -> Tensor:
    """Logits (length, vocabulary) of one sequence of tokens (length,). weights: the `state_dict` of a Hope."""
    layers = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blocks."))
    blocks = [Block(part(weights, f"blocks.{i}."), periods, chunks) for i in range(layers)]
    logits = []
    for x in weights["embedding"][tokens]:
        for block in blocks:
            x = block(x)
        logits.append(weights["embedding"] @ rms(x))  # Open: the head. Here: the embedding again
    return torch.stack(logits)
