"""All of Hope in one file, one token at a time. Begin here: every fast form of the library is tested against it.

Hope is a language model whose weights go on learning while it reads. Each block is a memory that modifies itself
(self-modifying Titans, eq. 86-90, 93) beside a few MLPs that each move at a pace of their own (continuum memory system,
eq. 70-74), put together by eq. 94-97. The weights that come in are the starts of all memories, learned by
backpropagation through what stands below. "Open:" names a choice that the paper leaves open or prints wrongly.
"""

import torch
from torch import Tensor
from torch.nn.functional import silu

Weights = dict[str, Tensor]
Sizes = tuple[int, ...]


def rms(x: Tensor) -> Tensor:  # x at mean square 1
    return x * (x.square().mean() + 1e-6).rsqrt()


def unit(x: Tensor) -> Tensor:  # each row of x at length 1
    return x * (x.square().sum(-1, keepdim=True) + 1e-12).rsqrt()


class Memory:
    """Two layers that are trained while they are read; S1 and S2 are W1 and W2 at the last chunk boundary (eq. 90)."""

    def __init__(self, weights: Weights, name: str, place: Sizes, chunk: int, residual: bool = True) -> None:
        self.W1 = self.S1 = weights[f"initial.{name}_W1"][place]  # Open: where a memory starts. Here: learned outside
        self.W2 = self.S2 = weights[f"initial.{name}_W2"][place]
        self.chunk, self.residual, self.seen = chunk, residual, 0

    def __call__(self, x: Tensor) -> Tensor:
        said = self.S1 @ silu(self.S2 @ x)  # Open: sigma. Here: silu, no biases
        return x + said if self.residual else said  # eq. 89, 91. Open: one number cannot be added to x, so gates do not

    def write(self, k: Tensor, value: Tensor, eta: Tensor, alpha: Tensor) -> None:
        """One step of DGD a layer, so that M(k) comes nearer to `value`, a constant here: eq. 88, 93 (with a 1/2)."""
        z, error = self.S2 @ k, self(k) - value
        a, s = silu(z), torch.sigmoid(z)
        inner = (self.S1.T @ error) * s * (1 + z * (1 - s))
        # eq. 88: W (alpha I - eta n n^T) - eta gradient. Open: n is the layer's own input, k fits the first one only;
        # eta / (1 + eta |n|^2) is the rate of eq. 57 for a key of any length, printed for |n| = 1
        eta1, eta2 = (eta / (1 + eta * n.square().sum()) for n in (a, k))
        self.W1 = alpha * self.W1 - eta1 * torch.outer(self.W1 @ a + error, a)
        self.W2 = alpha * self.W2 - eta2 * torch.outer(self.W2 @ k + inner, k)
        self.seen += 1
        if self.seen % self.chunk == 0:  # eq. 90. Open: the index C ceil(t/C) would read the future; this is floor
            self.S1, self.S2 = self.W1, self.W2


class SelfModifyingTitans:
    """One head: five memories make key, value, rate, retention and answer, and all of them learn from each token."""

    def __init__(self, weights: Weights, head: int, chunk: int) -> None:
        self.memory = Memory(weights, "mem", (head, 0), chunk)
        self.key, self.value = (Memory(weights, "proj", (head, i), chunk) for i in (0, 1))
        self.eta, self.alpha = (Memory(weights, "gate", (head, i), chunk, residual=False) for i in (0, 1))
        self.b_eta, self.b_alpha = weights["b_eta"][head], weights["b_alpha"][head]
        self.taps = weights["taps"][head]  # (q k v, 4, width). Open: their start. Here: k begins as the token before
        self.rows = torch.zeros_like(self.taps)
        self.W_q = weights["W_q"].unflatten(0, (-1, self.taps.shape[-1]))[head]

    def __call__(self, x: Tensor, own: Tensor) -> Tensor:  # the token; this head's features of it, for its memories
        rows = torch.stack([self.W_q @ x, self.key(own), self.value(own)])  # eq. 86, 94
        self.rows = torch.cat([self.rows[:, 1:], rows[:, None]], 1)
        # Open: the order of convolution, silu and |q| = |k| = 1; and |v| = 1, without which self-made values explode
        q, k, v = unit(silu((self.taps * self.rows).sum(1)))
        eta = torch.sigmoid(self.eta(own)[0] + self.b_eta)  # Open: the sigmoids, and their biases
        alpha = torch.sigmoid(self.alpha(own)[0] + self.b_alpha)
        for each in (self.memory, self.key, self.value, self.eta, self.alpha):
            each.write(k, each(v), eta, alpha)  # eq. 87, 95: v^ = M(v), a value of its own; eq. 88, 96
        M = self.memory  # Open: eq. 86 reads before this write, eq. 78 after it. Here: after
        return q + M.W1 @ silu(M.W2 @ q)


class Level:
    """One MLP of the continuum memory system: it moves once in `period` tokens, by what those tokens said (eq. 71)."""

    def __init__(self, weights: Weights, i: int, period: int) -> None:
        self.up, self.down, self.rate = weights[f"mlp.up.{i}"], weights[f"mlp.down.{i}"], weights["mlp.log_lr"][i].exp()
        self.gate, self.bias, self.share = weights["gate"][i], weights["gate_bias"][i], weights["mlp.mix"].softmax(0)[i]
        self.period, self.slopes = period, list[tuple[Tensor, Tensor]]()

    def __call__(self, n: Tensor, up: Tensor, down: Tensor) -> Tensor:
        return self.share * (down @ silu(up @ n))  # eq. 74. Open: width, sigma and start of an MLP

    def move(self) -> None:  # eq. 71. Open: it prints C + 1 terms; these are C, or fewer where a document ends
        for up, down in self.slopes:
            self.up, self.down = self.up - self.rate * up, self.down - self.rate * down
        self.slopes = []


class Block:
    """Eq. 94-97. Open: the norms, the gate, the read-out and the residuals, which the paper leaves out; and the place
    of the levels: eq. 97 has them behind the mixer, here they stand beside it and read what it reads (eq. 74)."""

    def __init__(self, weights: Weights, periods: Sizes, chunk: int) -> None:
        self.weights, self.chunk = weights, chunk
        self.levels = [Level(weights, i, period) for i, period in enumerate(periods)]
        self.begin()

    def begin(self) -> None:
        """A document: the mixer forgets, levels live on. Open: levels that never forget are one (cms/additive.py)."""
        mixer = {name[6:]: w for name, w in self.weights.items() if name.startswith("mixer.")}
        self.heads = [SelfModifyingTitans(mixer, i, self.chunk) for i in range(len(mixer["taps"]))]
        for level in self.levels:
            level.move()

    def __call__(self, x: Tensor) -> Tensor:
        n = rms(x)
        o = torch.cat([head(n, own) for head, own in zip(self.heads, n.chunk(len(self.heads)), strict=True)])
        h = x + self.weights["W_o"] @ (rms(o) * silu(self.weights["W_g"] @ n))
        self.waiting = n, h
        return h + torch.stack([level(n, level.up, level.down) for level in self.levels]).sum(0)

    def learn(self, head: Tensor, y: Tensor, token: int) -> None:
        """Eq. 71 means the gradient through the blocks above. Open: it needs their graphs. Here: the error of y, what
        the last block said, as it is. Open: what the outer gradient sees of an update. Here: rates, and gates eta_t."""
        n, h = self.waiting
        with torch.enable_grad():
            at = [(level.up.detach().requires_grad_(), level.down.detach().requires_grad_()) for level in self.levels]
            said = torch.stack([level(n.detach(), *pair) for level, pair in zip(self.levels, at, strict=True)]).sum(0)
            loss = -torch.log_softmax(head.detach() @ rms(y.detach() + said - said.detach()), 0)[token]
            slopes = iter(torch.autograd.grad(loss, [w for pair in at for w in pair]))
        for level in self.levels:
            eta = 2 * torch.sigmoid(level.gate @ rms(h) + level.bias)
            level.slopes.append((eta * next(slopes), eta * next(slopes)))
            if len(level.slopes) == level.period:
                level.move()


def hope(weights: Weights, tokens: Tensor, periods: Sizes, chunk: int = 16, boundary: int | None = None) -> Tensor:
    """Logits (length, vocabulary) of tokens (length,). weights: a Hope's state_dict. boundary: it opens a document."""
    head = weights["embedding"]  # Open: the head. Here: the embedding again
    names = dict.fromkeys(name[: name.index(".", 7) + 1] for name in weights if name.startswith("blocks."))
    parts = [{k.removeprefix(n): w for k, w in weights.items() if k.startswith(n)} for n in names]
    blocks = [Block(part, periods, chunk) for part in parts]
    said: list[Tensor] = []
    for token in tokens.tolist():
        for block in blocks:
            if said:
                block.learn(head, said[-1], token)
            if token == boundary:
                block.begin()
        x = head[token]
        for block in blocks:
            x = block(x)
        said.append(x)
    return torch.stack([head @ rms(y) for y in said])
