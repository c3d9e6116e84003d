"""BLEU of translations, by sacreBLEU: of exported networks by beam search, of candidates by the likeliest token each.

References:
    Post. A Call for Clarity in Reporting BLEU Scores. WMT 2018, arXiv:1804.08771 (sacreBLEU).
"""

import importlib
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from experiments.data import Split
from experiments.data.sentence_pairs import PairSplit
from experiments.metrics.beams import before_end, translated_rows
from experiments.metrics.metric import METRICS, Metric, Scorer
from experiments.records.use import Bleu
from search_spaces import Program, UserError
from search_spaces.randomness import Purpose, stream
from supernet.engine.supernet import Params, Supernet
from supernet.export.subnet import Subnet
from supernet.standalone.translation import TranslationModel
from supernet.tasks.answers import Figures
from supernet.training.evaluation import Scores

BEST = 100.0
_BEAM, _PENALTY = 4, 0.6
_TOGETHER = 32  # sentences of a program


def bleu(translations: Sequence[str], references: Sequence[str], where: str) -> Bleu:
    """Computes corpus BLEU against one reference each.

    Args:
        translations: Plain text, one a sentence.
        references: Translations by people.
        where: Setting or option that asks for it, in messages.

    Raises:
        UserError: The library is missing.
    """
    scorer = sacrebleu(where).BLEU()
    return Bleu(float(scorer.corpus_score(list(translations), [list(references)]).score), str(scorer.get_signature()))


def bleu_of(model: TranslationModel, split: PairSplit, where: str) -> Bleu:
    """Computes the BLEU of a network on a split, by beam search with the defaults of `supernest translate`.

    Raises:
        UserError: The library is missing.
    """
    rows = [[*split.source.row(row).tolist(), split.end] for row in split.rows]
    return bleu(translated_rows(model, split.subwords, rows, _BEAM, _PENALTY), split.references, where)


def sacrebleu(where: str) -> Any:
    """Imports the library.

    Raises:
        UserError: It is missing.
    """
    try:
        return importlib.import_module("sacrebleu")
    except ImportError:
        raise UserError(
            f"{where}: BLEU needs the library `sacrebleu`, which is not installed. Run: pip install 'supernest[text]'"
        ) from None


class BleuMetric(Metric):
    """BLEU in percent, with sacreBLEU's signature."""

    name = "bleu"
    inputs = "pairs"

    def check(self, where: str) -> None:
        """See `Metric.check`."""
        sacrebleu(where)

    def figures(self, subnet: Subnet, split: Split, where: str) -> Figures:
        """See `Metric.figures`; beam search as `supernest translate` does it by default."""
        model = subnet.module
        if not isinstance(model, TranslationModel) or not isinstance(split, PairSplit):
            raise UserError(f"{where}: the network has no code here that translates, so it has no BLEU. Leave it out.")
        found = bleu_of(model, split, where)
        return {"bleu": found.score, "bleu_signature": found.signature}

    def scorer(self, net: Supernet, split: Split, examples: int) -> "BleuScorer":
        """See `Metric.scorer`."""
        assert isinstance(split, PairSplit)
        return BleuScorer(net, split, examples)


METRICS.register("bleu")(BleuMetric())


class BleuScorer(Scorer):
    """BLEU of candidates, each of which takes the likeliest token each time.

    Every step computes the sentences anew by the supernet's program, whose argument is the architecture: no candidate
    has a program of its own. A translation is cut where it has half as many tokens again as its source, filled up to
    one of the split's widths.

    Args:
        net: The supernet.
        split: Pairs of sentences.
        examples: Largest number of them.
    """

    def __init__(self, net: Supernet, split: PairSplit, examples: int) -> None:
        self._net, self._split = net, split
        self._rows = stream(0, Purpose.EVALUATION_ORDER).permutation(len(split))[:examples]
        self._greedy = jax.jit(partial(greedy, net), static_argnames="program")

    def __call__(self, params: Params, genes: Int[np.ndarray, "p g"], fraction: float = 1.0) -> Scores:
        """See `Scorer.__call__`."""
        rows = self._rows[: max(1, math.ceil(fraction * len(self._rows) - 1e-9))]
        references = self._split.take(rows).references
        figures = np.full(len(genes), np.nan)
        for i, row in enumerate(genes):
            tokens = self._tokens(params, row, rows)
            if tokens is not None:
                texts = self._split.subwords.decode(tokens)
                figures[i] = bleu([" ".join(text.split()) for text in texts], references, "search.objective").score
        return Scores(figures, BEST - figures)

    def _tokens(
        self, params: Params, genes: Int[np.ndarray, " g"], rows: Int[np.ndarray, " n"]
    ) -> list[list[int]] | None:
        """Returns the tokens of each translation before its end; None where outputs are not finite."""
        split, program = self._split, self._net.space.program(genes)
        longest = np.minimum(split.source.lengths[split.rows[rows]] * 3 // 2 + 1, split.widths[-1])
        place, found = np.searchsorted(split.widths, longest), [[] for _ in rows]
        for number, width in enumerate(split.widths):
            of_width = np.flatnonzero(place == number)
            for start in range(0, len(of_width), _TOGETHER):
                together = of_width[start : start + _TOGETHER]
                filled = np.resize(together, _TOGETHER)  # the same program for the last sentences
                x = split.sources(rows[filled], width)
                tokens, finite = self._greedy(params, jnp.asarray(genes), jnp.asarray(x), split.end, program=program)
                if not finite:
                    return None
                for index, row in zip(together, before_end(np.asarray(tokens), split.end), strict=False):
                    found[index] = row
        return found


_State = tuple[jax.Array, jax.Array, jax.Array, jax.Array]


def greedy(
    net: Supernet, params: Params, genes: Int[Array, " g"], source: Int[Array, "b t"], end: Int[Array, ""],
    program: Program,
) -> tuple[Int[Array, "b t"], Bool[Array, ""]]:  # fmt: skip
    """Translates sentences by the likeliest token each time, up to as many tokens as sources are filled up to.

    Args:
        net: The supernet.
        params: Its weights.
        genes: An architecture.
        source: Sentences with their end and padding behind it.
        end: Token that ends sentences.
        program: Program of the architecture.

    Returns:
        The tokens with the end, and behind it the end again; and whether all outputs were finite.
    """
    b, t = source.shape
    weights, plain = net.sharing.effective(params, genes), net.of_effective_weights  # once, not for each token

    def going_on(state: _State) -> jax.Array:
        step, _, ended, finite = state
        return (step < t) & finite & ~jnp.all(ended)

    def step(state: _State) -> _State:
        number, target, ended, finite = state
        logits, _ = plain.apply(weights, genes, jnp.stack([source, target[:, :t]], axis=1), program=program)
        now = jax.lax.dynamic_index_in_dim(logits, number, axis=1, keepdims=False)
        token = jnp.where(ended, end, jnp.argmax(now, axis=-1)).astype(source.dtype)
        target = target.at[:, number + 1].set(token)
        return number + 1, target, ended | (token == end), finite & jnp.all(jnp.isfinite(now))

    target = jnp.full((b, t + 1), end, source.dtype)
    start = jnp.int32(0), target, jnp.zeros(b, bool), jnp.bool_(True)
    _, target, _, finite = jax.lax.while_loop(going_on, step, start)
    return target[:, 1:], finite
