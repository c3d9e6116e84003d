"""An exported language model as lm-evaluation-harness calls one; imported only where that library is."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from experiments.data.tokenizer import Tokenizer
from search_spaces import UserError
from supernet.export.generate import generate
from supernet.standalone.language import LanguageModel

_LOGITS = 2**25  # numbers of a batch's logits: 128 MiB
_SHORTEST = 32
_MOST_NEW = 256


class ExportedModel(TemplateLM):
    """Log-likelihoods and greedy text of a decoder.

    Sequences longer than the network takes lose their first tokens. Lengths are filled up to a power of two, so that
    few programs compile; a decoder does not see what follows.

    Args:
        model: The network.
        tokenizer: Its tokenizer.
        bos: Whether texts begin with what the tokenizer puts before them.
        told: Called with a number of requests when they are answered.
    """

    def __init__(self, model: LanguageModel, tokenizer: Tokenizer, bos: bool, told: Callable[[int], object]) -> None:
        super().__init__()
        self._told = told
        self._model, self._tokenizer, self._bos, self._context = model, tokenizer, bos, model.form.length
        graph, self._state = nnx.split(model)
        self._scored = jax.jit(lambda state, x, following: _scored(nnx.merge(graph, state)(x), following))

    @property
    def eot_token_id(self) -> int:
        """The token between two documents, or that before one where the tokenizer has it."""
        return self._tokenizer.begin[-1] if self._tokenizer.begin else self._tokenizer.end

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Returns the tokens of a text, after those that the tokenizer puts first if `add_special_tokens`."""
        begin = self._tokenizer.begin if (self._bos if add_special_tokens is None else add_special_tokens) else ()
        tokens = [*begin, *self._tokenizer.encode(string.encode("utf-8", "surrogateescape")).tolist()]
        if tokens and max(tokens) >= self._model.form.vocabulary:
            raise UserError(
                f"--tasks: token {max(tokens)} is none of the {self._model.form.vocabulary} of the network."
            )
        return tokens

    def _loglikelihood_tokens(
        self, requests: list[tuple[Any, list[int], list[int]]], **kwargs: Any
    ) -> list[tuple[float, bool]]:
        found: list[tuple[float, bool]] = [(0.0, True)] * len(requests)
        rows = [self._row(before, following) for _, before, following in requests]
        widths = np.array([self._width(len(tokens) - 1) for tokens, _ in rows])
        for width in np.unique(widths):
            of_width = np.flatnonzero(widths == width)
            together = min(len(of_width), max(1, _LOGITS // (int(width) * self._model.form.vocabulary)))
            for start in range(0, len(of_width), together):
                part = of_width[start : start + together]
                x = np.zeros((together, width + 1), np.int32)
                counted = np.zeros((together, width), bool)
                for place, row in enumerate(part):
                    tokens, scored = rows[row]
                    x[place, : len(tokens)] = tokens
                    counted[place, len(tokens) - 1 - scored : len(tokens) - 1] = True
                values, likeliest = map(np.asarray, self._scored(self._state, x[:, :-1], x[:, 1:]))
                for place, row in enumerate(part):
                    own = counted[place]
                    found[row] = float(values[place][own].sum(dtype=np.float64)), bool(likeliest[place][own].all())
                self._told(len(part))
        return found

    def _row(self, before: Sequence[int], following: Sequence[int]) -> tuple[list[int], int]:
        """Returns the last tokens of a request that the network takes, and how many of them are scored."""
        if len(following) > self._context:
            raise UserError(
                f"--tasks: a text of {len(following)} tokens to be scored, and the network takes {self._context}. "
                "Shorten it, or use loglikelihood_rolling."
            )
        tokens = [*before, *following][-(self._context + 1) :]
        return tokens, min(len(following), len(tokens) - 1)

    def _width(self, length: int) -> int:
        return min(self._context, max(_SHORTEST, 1 << max(length - 1, 0).bit_length()))

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Returns the log-likelihood in nats of each whole text, in windows where it is longer than the context.

        As in the library's models, a token that is put before texts is itself predicted, from another one before it.
        """
        windows, owners = [], []
        for number, request in enumerate(requests):
            tokens = self.tok_encode(request.args[0])
            parts = get_rolling_token_windows(tokens, self.prefix_token_id, self._context, 1) if tokens else ()
            for part in parts:
                windows.append((None, *make_disjoint_window(part)))
                owners.append(number)
        totals = [0.0] * len(requests)
        for number, (value, _) in zip(owners, self._loglikelihood_tokens(windows), strict=True):
            totals[number] += value
        return totals

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Returns the greedy continuation of each text, up to one of its stop strings.

        Raises:
            UserError: A task draws tokens.
        """
        return [self._continued(*request.args) for request in requests]

    def _continued(self, text: str, settings: dict[str, Any]) -> str:
        if settings.get("do_sample") or settings.get("temperature"):
            raise UserError("--tasks: the task draws tokens. Set do_sample: false and temperature: 0 there.")
        until = settings.get("until") or []
        stops = [until] if isinstance(until, str) else until
        count = min(int(settings.get("max_gen_toks", _MOST_NEW)), self._context - 1)
        given = (self.tok_encode(text) or [self.prefix_token_id])[-(self._context - count) :]
        tokens = generate(self._model, jnp.asarray(given, jnp.int32)[None], count)[0].tolist()
        if self._tokenizer.end in tokens:
            tokens = tokens[: tokens.index(self._tokenizer.end)]
        # Decoded together, as a token's text may depend on what is before it.
        found = self._tokenizer.decode([*given, *tokens]).removeprefix(self._tokenizer.decode(given))
        for stop in filter(None, stops):
            found = found.partition(stop)[0]
        self._told(1)
        return found


def _scored(logits: Float[Array, "b t v"], following: Int[Array, "b t"]) -> tuple[Float[Array, "b t"], Array]:
    """Returns the log-probability of each next token, and whether it is the likeliest."""
    values = jnp.take_along_axis(jax.nn.log_softmax(logits.astype(jnp.float32)), following[..., None], axis=-1)
    return values[..., 0], jnp.argmax(logits, axis=-1) == following
