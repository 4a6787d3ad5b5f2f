"""Chapter 03, Attention, or never forgetting: the local fit, hot attention, masks, a layer and its recurrent twin."""

from __future__ import annotations

import torch
from torch import Tensor

from nlbook.book.check.define import *


def local_fit(q: Tensor, K: Tensor, V: Tensor, temperature: float) -> Tensor:
    """The m (d_v,) that minimises sum_i s_i |v_i - m|^2, s_i = exp(k_i . q / temperature): q (d,), K (n, d), V (n, d_v)."""
    # BEGIN SOLUTION
    s = torch.exp(K @ q / temperature)
    return (s @ V) / s.sum()
    # END SOLUTION


def draw_fit(d: Draw):
    n, d_k, d_v = d.int(1, 5), d.int(1, 4), d.int(1, 3)
    return d.tensor(d_k), d.tensor(n, d_k), d.tensor(n, d_v), d.float(0.5, 3.0)


def nothing_pulls(answer, d: Draw) -> str | None:
    """At the minimum the weighted pulls of all values cancel: sum_i s_i (v_i - m) = 0."""
    q, K, V = d.tensor(3), d.tensor(4, 3), d.tensor(4, 2)
    s = torch.exp(K @ q / 1.5)
    pull = float((s @ (V - answer(q, K, V, 1.5))).norm() / s.sum())
    return None if pull < 1e-9 else f"your m is not the minimum: the gradient there has the length {2 * pull:.3g}."


def by_hand() -> Case:
    K = torch.tensor([[0.0], [1.0], [2.0]], dtype=torch.float64)
    V = torch.tensor([[7.0], [0.0], [14.0]], dtype=torch.float64)
    return Case(
        (torch.ones(1, dtype=torch.float64), K, V, 1 / 0.6931471805599453), "the example by hand, whose answer is 9"
    )


def peeking_attention(Q: Tensor, K: Tensor, V: Tensor) -> Tensor:
    """Should be causal softmax attention: token t of Q, K (n, d), V (n, d_v) is answered from the tokens up to t."""
    n, d = K.shape
    scores = Q @ K.T / d**0.5
    future = torch.triu(torch.ones(n, n, dtype=torch.bool), diagonal=2)
    return torch.softmax(scores.masked_fill(future, -torch.inf), -1) @ V


def causal_attention(Q: Tensor, K: Tensor, V: Tensor) -> Tensor:
    """Should be causal softmax attention: token t of Q, K (n, d), V (n, d_v) is answered from the tokens up to t."""
    # BEGIN SOLUTION
    n, d = K.shape
    scores = Q @ K.T / d**0.5
    future = torch.triu(torch.ones(n, n, dtype=torch.bool), diagonal=1)
    return torch.softmax(scores.masked_fill(future, -torch.inf), -1) @ V
    # END SOLUTION


def draw_qkv(d: Draw):
    n, d_k, d_v = d.int(3, 7), d.int(1, 4), d.int(1, 3)
    return d.tensor(n, d_k), d.tensor(n, d_k), d.tensor(n, d_v)


def the_future_is_hidden(answer, d: Draw) -> str | None:
    """Another last token changes no earlier answer."""
    Q, K, V = d.tensor(5, 3), d.tensor(5, 3), d.tensor(5, 2)
    later = torch.cat([V[:-1], V[-1:] + 1])
    gap = (answer(Q, K, later) - answer(Q, K, V))[:-1].abs().amax(-1)
    leaks = [t + 1 for t, x in enumerate(gap.tolist()) if not x < 1e-12]
    return (
        f"token {leaks[0]} of 5 changes its answer when the value of token 5 changes: it sees the future."
        if leaks
        else None
    )


def mask_after(Q: Tensor, K: Tensor, V: Tensor) -> Tensor:
    return torch.tril(torch.softmax(Q @ K.T / K.shape[1] ** 0.5, -1)) @ V


def strict(Q: Tensor, K: Tensor, V: Tensor) -> Tensor:
    future = torch.triu(torch.ones(len(K), len(K), dtype=torch.bool), diagonal=0)
    return torch.nan_to_num(torch.softmax((Q @ K.T / K.shape[1] ** 0.5).masked_fill(future, -torch.inf), -1)) @ V


def linear_attention(Q: Tensor, K: Tensor, V: Tensor) -> Tensor:
    """Causal linear attention, all tokens at once: features Q, K (n, D) > 0 and V (n, d_v) -> weighted means (n, d_v)."""
    # BEGIN SOLUTION
    weights = torch.tril(Q @ K.T)
    return (weights @ V) / weights.sum(1, keepdim=True)
    # END SOLUTION


def draw_features(d: Draw):
    n, D, d_v = d.int(2, 6), d.int(1, 4), d.int(1, 3)
    return d.tensor(n, D).exp(), d.tensor(n, D).exp(), d.tensor(n, d_v)


def two_running_sums(answer, d: Draw) -> str | None:
    """The same answers from a state of fixed size: S = sum of v phi(k)^T, z = sum of phi(k), written token by token."""
    Q, K, V = d.tensor(6, 3).exp(), d.tensor(6, 3).exp(), d.tensor(6, 2)
    S, z, y = torch.zeros(2, 3, dtype=V.dtype), torch.zeros(3, dtype=V.dtype), []
    for q, k, v in zip(Q, K, V):
        S, z = S + torch.outer(v, k), z + k
        y.append(S @ q / (z @ q))
    gap = float((answer(Q, K, V) - torch.stack(y)).abs().max())
    return (
        None if gap < 1e-9 else f"writing token by token into a matrix gives other answers: they differ by {gap:.3g}."
    )


def hot_attention(q: Tensor, K: Tensor, V: Tensor, temperature: float) -> Tensor:
    """Softmax attention to first order in 1 / temperature: the mean of the values V (n, d_v), plus a matrix asked with q.

    q (d,), K (n, d) -> (d_v,). No exponential and no sum of weights is left.
    """
    # BEGIN SOLUTION
    mean = V.mean(0)
    M = (V - mean).T @ K  # (d_v, d): a Hebbian sum, of what is special in each value
    return mean + M @ q / (len(K) * temperature)
    # END SOLUTION


def draw_hot(d: Draw):
    q, K, V, _ = draw_fit(d)
    return q, K, V, float(d.pick(2, 4, 8))


def ten_times_hotter(answer, d: Draw) -> str | None:
    """First order: at ten times the temperature the distance from softmax attention is a hundred times smaller."""
    q, K, V = d.tensor(3), d.tensor(5, 3), d.tensor(5, 2)
    near, far = (float((answer(q, K, V, t) - local_fit(q, K, V, t)).norm()) for t in (1e4, 1e3))
    return (
        None
        if near < far / 50
        else f"at ten times the temperature the error falls by {far / max(near, 1e-300):.3g} only."
    )


def hot_by_hand() -> Case:
    K = torch.tensor([[0.0], [1.0], [2.0]], dtype=torch.float64)
    V = torch.tensor([[7.0], [0.0], [14.0]], dtype=torch.float64)
    return Case((torch.ones(1, dtype=torch.float64), K, V, 10.0), "the three pairs at temperature 10: 7 + 7/30")


def one_token(S: Tensor, z: Tensor, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Linear attention, one token: write the pair k (D,), v (d_v,), then read with q (D,); q and k are features.

    The state is two sums over all pairs so far. Of every pair, S (d_v, D) has got v k^T, and z (D,) has got k.
    Returns the answer y (d_v,), and the new S and z.
    """
    # BEGIN SOLUTION
    S, z = S + torch.outer(v, k), z + k
    return S @ q / (z @ q), S, z
    # END SOLUTION


def draw_token(d: Draw):
    D, d_v = d.int(1, 4), d.int(1, 3)
    return d.tensor(d_v, D), d.tensor(D).abs() + 1, d.tensor(D).abs() + 1, d.tensor(D).abs() + 0.5, d.tensor(d_v)


def first_pair() -> Case:
    x = torch.tensor([1.0, 2.0], dtype=torch.float64)
    return Case(
        (torch.zeros(1, 2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64), x, x, x[1:] + 4),
        "the very first pair: its value, 6, is all there is to answer",
    )


def phi(x: Tensor) -> Tensor:
    """Features > 0 of keys and queries: elu + 1, a usual choice for linear attention."""
    return torch.nn.functional.elu(x) + 1


def recurrent_layer(
    X: Tensor, W_q: Tensor, W_k: Tensor, W_v: Tensor, S: Tensor, z: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """A layer of linear attention that reads the tokens X (n, dim) one after another and carries its state S, z.

    Queries and keys are W_q x and W_k x, each made positive by elu(...) + 1; values are W_v x.
    Returns the answers Y (n, d_v) and the state after the last token.
    """
    # BEGIN SOLUTION
    Q, K, V = torch.nn.functional.elu(X @ W_q.T) + 1, torch.nn.functional.elu(X @ W_k.T) + 1, X @ W_v.T
    Y = []
    for q, k, v in zip(Q, K, V):
        y, S, z = one_token(S, z, q, k, v)
        Y.append(y)
    return torch.stack(Y), S, z
    # END SOLUTION


def draw_layer(d: Draw):
    n, dim, D, d_v = d.int(2, 5), d.int(1, 3), d.int(1, 3), d.int(1, 3)
    S, z = d.tensor(d_v, D), d.tensor(D).abs() + 1
    return d.tensor(n, dim), d.tensor(D, dim), d.tensor(D, dim), d.tensor(d_v, dim), S, z


def all_at_once(answer, d: Draw) -> str | None:
    """From an empty state, the layer of exercise 5: all tokens together, under a mask."""
    X, W_q, W_k, W_v, S, z = d.tensor(6, 3), d.tensor(4, 3), d.tensor(4, 3), d.tensor(2, 3), d.tensor(2, 4), d.tensor(4)
    Y = answer(X, W_q, W_k, W_v, 0 * S, 0 * z)[0]
    gap = float((Y - linear_attention(phi(X @ W_q.T), phi(X @ W_k.T), X @ W_v.T)).abs().max())
    return None if gap < 1e-9 else f"all tokens at once, under the mask, give other answers: they differ by {gap:.3g}."


def cut_anywhere(answer, d: Draw) -> str | None:
    """A text read in two pieces, the state carried over, gives what it gives in one."""
    X, W_q, W_k, W_v = d.tensor(6, 3), d.tensor(4, 3), d.tensor(4, 3), d.tensor(2, 3)
    S, z = d.tensor(2, 4), d.tensor(4).abs() + 1
    whole = answer(X, W_q, W_k, W_v, S, z)
    first, S, z = answer(X[:2], W_q, W_k, W_v, S, z)
    second, *state = answer(X[2:], W_q, W_k, W_v, S, z)
    pieces = (torch.cat([first, second]), *state)
    gap = max(float((a - b).abs().max()) for a, b in zip(whole, pieces))
    return None if gap < 1e-9 else f"read in two pieces it differs by {gap:.3g}: is the state carried on?"


def layer_with(step, phi=phi):
    """A recurrent layer with another step, or other features: the ways in which it goes wrong."""

    def layer(X, W_q, W_k, W_v, S, z):
        Y = []
        for x in X:
            y, S, z = step(S, z, phi(W_q @ x), phi(W_k @ x), W_v @ x)
            Y.append(y)
        return torch.stack(Y), S, z

    return layer


def read_first(S, z, q, k, v):
    return S @ q / (z @ q), S + torch.outer(v, k), z + k


def never_divides(S, z, q, k, v):
    S, z = S + torch.outer(v, k), z + k
    return S @ q, S, z


def old_sum(S, z, q, k, v):
    S = S + torch.outer(v, k)
    return S @ q / (z @ q), S, z + k


def never_carries(S, z, q, k, v):
    return one_token(S, z, q, k, v)[0], S, z


def cache_floats() -> float:
    """Keys and values of 32,768 tokens, in 8 heads of width 128, in 32 layers."""
    # BEGIN SOLUTION
    per_token = 2 * 128 * 8 * 32
    return per_token * 32_768
    # END SOLUTION


SOFTMAX_KEPT = "This is softmax attention. Here the features themselves make the weights: no exponential."


def causal_softmax(scores: Tensor, V: Tensor) -> Tensor:
    future = torch.triu(torch.ones_like(scores, dtype=torch.bool), 1)
    return torch.softmax(scores.masked_fill(future, -torch.inf), -1) @ V


ITEMS = [
    Implement(
        id="03-fit",
        title="Attention from least squares",
        objective="03.1",
        minutes=6,
        difficulty=2,
        points=2,
        prompt="Set the gradient of the weighted squared error to zero, solve for m, and return it.",
        hints=(
            "The gradient with respect to m is -2 sum_i s_i (v_i - m). When is it zero?",
            "When sum s_i v_i = m sum s_i: the answer is a mean in which pair i counts s_i times.",
            "`s = torch.exp(K @ q / temperature)`, then `s @ V` divided by `s.sum()`.",
        ),
        solution=local_fit,
        draw=draw_fit,
        cases=[by_hand()],
        differentiable=True,
        properties=[Property("nothing pulls at the minimum", nothing_pulls)],
        misconceptions=[
            Misconception(
                "never divides",
                lambda q, K, V, temperature: torch.exp(K @ q / temperature) @ V,
                "This is the weighted sum. The minimum is the weighted mean: divide by the sum of the weights.",
            ),
            Misconception(
                "divides by n",
                lambda q, K, V, temperature: torch.exp(K @ q / temperature) @ V / len(K),
                "Divided by the number of pairs. The weights do not sum to n: divide by their sum.",
            ),
            Misconception(
                "no temperature",
                lambda q, K, V, temperature: torch.softmax(K @ q, 0) @ V,
                "The temperature has not entered: it divides the overlaps inside the exponential.",
            ),
            Misconception(
                "multiplied",
                lambda q, K, V, temperature: torch.softmax(K @ q * temperature, 0) @ V,
                "Here a hot dial would be sharp. The temperature divides.",
            ),
            Misconception(
                "temperature outside",
                lambda q, K, V, temperature: torch.softmax(K @ q, 0) @ V / temperature,
                "The temperature divides the answer here. It divides the overlaps, inside the exponential, and leaves a mean a mean.",
            ),
            Misconception(
                "plain mean",
                lambda q, K, V, temperature: V.mean(0).expand(V.shape[1]),
                "This minimises the error with all weights alike. Pair i counts s_i times.",
            ),
        ],
    ),
    Implement(
        id="03-hot",
        title="What a hot softmax is",
        objective="03.2",
        minutes=9,
        difficulty=2,
        points=2,
        prompt="Put 1 + x for every exponential, divide the two sums, and keep what is of first order in 1 / temperature.",
        hints=(
            "Write x_i = k_i . q / temperature. The sum above is sum v_i + sum x_i v_i. What is the sum below?",
            "(a + b) / (n + c) is a/n + (b - c a/n) / n, if b and c are small. Here a/n is the mean value.",
            "`M = (V - V.mean(0)).T @ K`; the answer is the mean plus `M @ q` over n times the temperature.",
        ),
        solution=hot_attention,
        draw=draw_hot,
        cases=[hot_by_hand()],
        properties=[Property("ten times hotter, a hundred times nearer to softmax attention", ten_times_hotter)],
        misconceptions=[
            Misconception(
                "numerator alone",
                lambda q, K, V, temperature: V.mean(0) + V.T @ K @ q / (len(K) * temperature),
                "You expanded the sum above, and took n for the sum below. That one is n + sum x_i: it moves as well, and takes the mean off every value.",
            ),
            Misconception(
                "no n",
                lambda q, K, V, temperature: V.mean(0) + (V - V.mean(0)).T @ K @ q / temperature,
                "The second part is divided by n as well: both sums are over n pairs.",
            ),
            Misconception(
                "still a quotient",
                lambda q, K, V, temperature: (1 + K @ q / temperature) @ V / (1 + K @ q / temperature).sum(),
                "This is the quotient of the two sums, before the last step: it still divides by a sum of weights. Expand it: what is left is a mean and a matrix.",
            ),
            Misconception(
                "exact",
                lambda q, K, V, temperature: torch.softmax(K @ q / temperature, 0) @ V,
                "This is softmax attention itself. Asked for is what it becomes when e^x is replaced by 1 + x.",
            ),
            Misconception(
                "no mean",
                lambda q, K, V, temperature: (V - V.mean(0)).T @ K @ q / (len(K) * temperature),
                "This is the matrix alone. At an infinite temperature the answer is the mean value, and yours would be zero.",
            ),
        ],
    ),
    FixTheBug(
        id="03-mask",
        title="The model that is too good",
        objective="03.3",
        minutes=6,
        difficulty=2,
        prompt="In training this layer scores suspiciously well, in use it is poor. Mend it.",
        hints=(
            "Which tokens does token 1 see? Write the mask out for n = 3.",
            "`triu(diagonal=2)` hides the tokens from t + 2 on. Is token t + 1 the future?",
            "The first hidden token is t + 1: diagonal=1.",
        ),
        solution=causal_attention,
        broken=peeking_attention,
        draw=draw_qkv,
        time_dim=0,
        properties=[Property("the future is hidden", the_future_is_hidden)],
        misconceptions=[
            Misconception(
                "still peeks",
                peeking_attention,
                "Some answers know too much. Write the mask out for three tokens: which columns does the first one see?",
            ),
            Misconception(
                "strict",
                strict,
                "Now a token does not see itself either. That is read before write: here token t may use its own pair.",
            ),
            Misconception(
                "nobody to see",
                lambda Q, K, V: (
                    torch.softmax(
                        (Q @ K.T / K.shape[1] ** 0.5).masked_fill(torch.ones(len(K), len(K)).triu() > 0, -torch.inf), -1
                    )
                    @ V
                ),
                "Row 0 of the mask is empty: token 0 may see nobody, so its weights are 0 / 0, and that is the nan. A token sees itself; hide the tokens from t + 1 on.",
            ),
            Misconception(
                "masked after the softmax",
                mask_after,
                "The future is hidden, but it still takes its share: the weights of a row no longer sum to 1. Mask before the softmax.",
            ),
            Misconception(
                "hides the past",
                lambda Q, K, V: (
                    torch.softmax(
                        (Q @ K.T / K.shape[1] ** 0.5).masked_fill(
                            torch.tril(torch.ones(len(K), len(K), dtype=torch.bool), diagonal=-1), -torch.inf
                        ),
                        -1,
                    )
                    @ V
                ),
                "This hides the past and shows the future.",
            ),
        ],
    ),
    Implement(
        id="03-linear",
        title="Linear attention, all tokens at once",
        objective="03.3",
        minutes=8,
        difficulty=2,
        points=2,
        prompt="The kernel is now a plain product of features, phi(k) . phi(q). Return the weighted mean of the values up to each token.",
        hints=(
            "The weight of pair i for token t is Q[t] . K[i]. Which of them must be hidden, and what must a row be divided by?",
            "The weights of token t are Q[t] . K[i] for i <= t. Their sum is the divisor of row t.",
            "`weights = torch.tril(Q @ K.T)`, then divide `weights @ V` by the row sums.",
        ),
        solution=linear_attention,
        draw=draw_features,
        time_dim=0,
        cases=[
            Case(
                (
                    torch.ones(2, 1, dtype=torch.float64),
                    torch.ones(2, 1, dtype=torch.float64),
                    torch.tensor([[2.0], [4.0]], dtype=torch.float64),
                ),
                "one feature, always 1: the running mean, 2 and then 3",
            )
        ],
        properties=[Property("a state of fixed size gives the same", two_running_sums)],
        misconceptions=[
            Misconception(
                "never divides",
                lambda Q, K, V: torch.tril(Q @ K.T) @ V,
                "This is the Hebbian sum of chapter 01. A fit divides by the sum of the weights.",
            ),
            Misconception(
                "sees the future",
                lambda Q, K, V: (Q @ K.T) @ V / (Q @ K.T).sum(1, keepdim=True),
                "Every token sees the whole sequence: the mask is missing.",
            ),
            Misconception(
                "future in the divisor",
                lambda Q, K, V: torch.tril(Q @ K.T) @ V / (Q @ K.T).sum(1, keepdim=True),
                "The future is masked in the sum, but not in the divisor.",
            ),
            Misconception("softmax", lambda Q, K, V: causal_softmax(Q @ K.T, V), SOFTMAX_KEPT),
            Misconception(
                "scaled softmax", lambda Q, K, V: causal_softmax(Q @ K.T / K.shape[1] ** 0.5, V), SOFTMAX_KEPT
            ),
        ],
    ),
    Implement(
        id="03-token",
        title="The twin: one token at a time",
        objective="03.3",
        minutes=6,
        difficulty=2,
        points=2,
        prompt="Write the pair into the two sums, then read. Return the answer and the new state.",
        hints=(
            "Linear attention is one sum over another. Which part of each knows nothing of the query?",
            "Above: (sum of v_i k_i^T) q, so S grows by `torch.outer(v, k)`. Below: (sum of k_i) . q, so z grows by k.",
            "`S, z = S + torch.outer(v, k), z + k`, and the answer is `S @ q / (z @ q)`.",
        ),
        solution=one_token,
        draw=draw_token,
        cases=[first_pair()],
        misconceptions=[
            Misconception(
                "reads first",
                read_first,
                "You read before you write. Here a token may use its own pair, as in the mask of exercise 4: write first.",
            ),
            Misconception(
                "never divides",
                never_divides,
                "This is the Hebbian sum of chapter 01. A weighted mean divides it by the sum of the weights, z . q.",
            ),
            Misconception(
                "old divisor",
                old_sum,
                "S holds the new pair, but you divide by the weights without it. Add k to z first.",
            ),
        ],
    ),
    Implement(
        id="03-layer",
        title="The whole layer, carried along a stream",
        objective="03.3",
        minutes=8,
        difficulty=2,
        points=3,
        prompt="Make queries, keys and values of every token, let your `one_token` walk over them, and hand back answers and state.",
        hints=(
            "A token x becomes q, k and v, and q and k become features. What does the rest?",
            "Keep S and z in variables that every token replaces, and collect the answers in a list.",
            "`Q = elu(X @ W_q.T) + 1`, K alike, `V = X @ W_v.T`; then `y, S, z = one_token(S, z, q, k, v)` for their rows.",
        ),
        solution=recurrent_layer,
        draw=draw_layer,
        time_dim=0,
        properties=[
            Property("equal to the layer that answers all tokens at once", all_at_once),
            Property("a stream cut anywhere", cut_anywhere),
        ],
        misconceptions=[
            Misconception(
                "no features",
                layer_with(one_token, lambda x: x),
                "Queries and keys went in as they are. Only features that are positive make weights: elu(...) + 1 for both.",
            ),
            Misconception(
                "state lost",
                layer_with(never_carries),
                "Each token starts from the state that came in: what `one_token` returns must replace S and z.",
            ),
            Misconception(
                "values through phi",
                lambda X, W_q, W_k, W_v, S, z: layer_with(lambda S, z, q, k, v: one_token(S, z, q, k, phi(v)))(
                    X, W_q, W_k, W_v, S, z
                ),
                "The values went through the feature map as well. It makes keys and queries comparable; a value is what is answered.",
            ),
            Misconception(
                "empty state",
                lambda X, W_q, W_k, W_v, S, z: recurrent_layer(X, W_q, W_k, W_v, 0 * S, 0 * z),
                "You began with an empty memory. The state that was handed in holds what was read before.",
            ),
        ],
    ),
    Estimate(
        id="03-cache",
        title="What a long context costs",
        objective="03.4",
        minutes=5,
        difficulty=2,
        prompt="A model has 32 layers with 8 key-value heads of width 128. How many floats does it keep after 32,768 tokens of one sequence?",
        hints=(
            "Begin with one token in one head: how many numbers are a key and a value?",
            "256 in a head, times 8 heads, times 32 layers: 65,536 floats a token.",
            "65,536 times 32,768 is about 2.1 billion.",
        ),
        solution=cache_floats,
        unit="floats",
        within=0.05,
        units={"billion": 1e9},
        wrong={
            2**30: "Keys alone. The values are kept as well.",
            2**26: "That is one layer. All 32 keep their own.",
            2**28: "That is one head in each layer. There are 8.",
            2**16: "That is one token. There are 32,768 of them.",
        },
    ),
]
