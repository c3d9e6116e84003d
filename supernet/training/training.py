"""The training step: the gradients of k sampled paths, summed, then one Optax update."""

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Shaped

from search_spaces import Program
from supernet.engine.elastic_network import ElasticNetwork
from supernet.engine.exits import check_exits, exit_logits
from supernet.engine.supernet import Params, Supernet
from supernet.tasks.classes import CLASSES
from supernet.tasks.distillation import Distillation, Lesson, example_losses, lesson
from supernet.tasks.labels import Targets, are_classes
from supernet.tasks.outputs import Outputs
from supernet.training.gene_norms import GeneNorms
from supernet.training.step_results import PathResult, StepResult, spread
from supernet.training.work import Work


class TrainState(NamedTuple):
    """Everything that the next step depends on, apart from data and sampler.

    Attributes:
        step: Number of steps that were taken.
        params: All weights.
        optimizer: State of the optimiser, of the weights that are trained.
        average: Moving average of the weights that are trained; None without one.
    """

    step: Int[Array, ""]
    params: Params
    optimizer: optax.OptState
    average: Params | None

    @property
    def evaluation_params(self) -> Params:
        """The weights that search and export use: the moving average where there is one."""
        return self.params if self.average is None else {**self.params, **self.average}


class TrainStep:
    """Compiles one gradient program for each stream shape and one update, and runs steps.

    Args:
        net: The supernet.
        optimizer: Applied once a step to the weighted sum of the paths' gradients.
        distillation: Teachers of the paths.
        average_decay: Decay of the exponential moving average of the weights, or None. It starts lower:
            min(decay, (1 + step) / (10 + step)).
        gene_norms: Whether each path's gradient norms by gene are computed.
        outputs: Meaning of the network's outputs, and the loss of wrong ones.
        trained: Names at the top of the tree of weights of those that are trained; those that the sharing scheme names
            when None. The others keep their bits, have neither gradient, moments nor average, and gradients flow
            through them where that is needed.
        exits: Numbers of layers behind which the loss is computed as well, by the same norm and head: the loss of a
            path is the mean over its exits, and its figure and logits are those of the last one. None when empty.

    Raises:
        UserError: The supernet has no such exits.
    """

    def __init__(
        self,
        net: Supernet,
        optimizer: optax.GradientTransformation,
        distillation: Distillation | None = None,
        average_decay: float | None = None,
        gene_norms: bool = False,
        outputs: Outputs = CLASSES,
        trained: Collection[str] | None = None,
        exits: tuple[int, ...] = (),
    ) -> None:
        check_exits(exits, net)
        self._exits = exits
        self.net = net
        self.outputs = outputs
        self.distillation = distillation or Distillation()
        self._optimizer = optimizer
        self._decay = average_decay
        trained = net.sharing.trained if trained is None else trained
        self._names = None if trained is None else frozenset(trained)
        self._gene_norms = GeneNorms(net) if gene_norms else None
        self._accumulated: Params | None = None
        self._previous: Params | None = None
        self.gradient_program = jax.jit(self._gradient, static_argnames="program", donate_argnames="accumulated")
        self.update_program = jax.jit(self._update, donate_argnames=("state", "accumulated"))
        self.forward_program = jax.jit(self._forward, static_argnames="program")
        self.loss_program = jax.jit(self._mean_loss)
        self.norms_program = None if self._gene_norms is None else jax.jit(partial(self._norms, self._gene_norms))

    def init(self, params: Params) -> TrainState:
        """Returns the state before the first step."""
        trained = self._trained(params)
        average = None if self._decay is None else jax.tree.map(jnp.copy, trained)
        return TrainState(jnp.zeros((), jnp.int32), params, self._optimizer.init(trained), average)

    def _trained(self, params: Params) -> Params:
        """The weights that are trained."""
        return params if self._names is None else {name: params[name] for name in params if name in self._names}

    def _with(self, params: Params, trained: Params) -> Params:
        """The weights with others in place of those that are trained."""
        return trained if self._names is None else {**params, **trained}

    def __call__(
        self,
        state: TrainState,
        genes: Int[np.ndarray, "k g"],
        roles: Sequence[str],
        weights: Float[np.ndarray, " k"],
        x: Shaped[Array, "b ..."],
        targets: Targets,
        example_weights: Float[np.ndarray, " b"] | None = None,
        teacher: Float[Array, "b *t c"] | None = None,
        measure: bool = False,
        work: Work | None = None,
        announce: Callable[[Program], None] | None = None,
    ) -> tuple[TrainState, StepResult]:
        """One step; `state` is consumed.

        Args:
            state: Before the step.
            genes: Canonical genes of the paths.
            roles: Role of each path; a path that teaches comes before those that it teaches.
            weights: Factor of each path's gradient in the sum.
            x: Input of the network: normalised images, already augmented, or tokens.
            targets: Targets of the outputs, as distributions or as classes (`supernet.tasks.labels`).
            example_weights: Factor of each example's loss in the mean; 1 when None.
            teacher: Mean distribution of the external teachers on this batch.
            measure: Keep the paths' gradients apart until their scalar products are known. Costs no further pass,
                but memory for k + 1 gradients.
            work: This process's part of the step; all of it when None.
            announce: Told which program a pass takes, before it is compiled or run.
        """
        batch = x, targets, example_weights, teacher
        accumulated, self._accumulated = self._accumulated, None
        # The norm of a path's gradient is known once all shares of it are added up.
        late_norms = self.norms_program if work is not None and work.cut else None
        products = None
        if measure or late_norms is not None:
            gradients, found = self._apart(state.params, genes, roles, batch, work, announce)
            results = found if work is None else work.sum(self._spread(work, found, len(genes), len(x)))
            if late_norms is not None:
                norms = map(late_norms, gradients)
                results = [one._replace(gene_norms=by_gene) for one, by_gene in zip(results, norms, strict=True)]
            accumulated = _total(gradients, weights)
            if measure:
                products = _products(gradients, self._previous)
                self._previous = jax.tree.map(jnp.copy, accumulated)
        else:
            if accumulated is None:
                accumulated = jax.tree.map(jnp.zeros_like, self._trained(state.params))
            results = []
            for gradient, result in self.gradients(
                state.params, genes, roles, weights, *batch, into=accumulated, work=work, announce=announce
            ):
                accumulated = gradient
                results.append(result if work is None else result._replace(logits=None))
            if work is not None:
                accumulated, results = work.sum((accumulated, self._spread(work, results, len(genes), len(x))))
        state, self._accumulated, norm = self.update_program(state, accumulated)
        return state, StepResult(results, norm, products)

    def gradients(
        self,
        params: Params,
        genes: Int[np.ndarray, "k g"],
        roles: Sequence[str],
        weights: Float[np.ndarray, " k"],
        x: Shaped[Array, "b ..."],
        targets: Targets,
        example_weights: Float[np.ndarray, " b"] | None = None,
        teacher: Float[Array, "b *t c"] | None = None,
        into: Params | None = None,
        work: Work | None = None,
        announce: Callable[[Program], None] | None = None,
    ) -> Iterator[tuple[Params, PathResult]]:
        """Yields the gradient of each share times its path's weight; arguments as those of a step.

        Args:
            into: Gradients to add to, or None: the last yielded value is the sum, and earlier ones, `into` included,
                are consumed.
        """
        self.distillation.check_roles(roles)
        if example_weights is None:
            example_weights = np.ones(len(x), np.float32)
        work = work or Work.whole(len(genes), len(x))
        known: dict[tuple[int, int], dict[int | None, jax.Array]] = {}
        largest = np.array(self.net.space.largest.genes, np.int32)
        last = {(rows.start, rows.stop): number for number, (_, rows, _) in enumerate(work.shares)}
        for number, (path, rows, part) in enumerate(work.shares):
            x_, targets_, example_weights_ = (
                work.place(batch if rows == slice(0, len(x)) else batch[rows])
                for batch in (x, targets, example_weights)
            )
            teacher_ = None if teacher is None else work.place(teacher[rows])

            there = rows.start, rows.stop
            seen = known.setdefault(there, {})

            def logits(other: int | None, x: jax.Array = x_, seen: dict[int | None, jax.Array] = seen) -> jax.Array:
                if other not in seen:  # the teacher's pass over these rows is another process's, or nobody's
                    row = largest if other is None else genes[other]
                    program = self.net.space.program(row)
                    if announce is not None:
                        announce(program)
                    seen[other] = self.forward_program(params, row, x, program=program)
                return seen[other]

            untaught = self._untaught(targets_, params, work)
            given = lesson(self.distillation, roles, path, logits, teacher_, untaught, self.outputs)
            gradient = jax.tree.map(jnp.zeros_like, self._trained(params)) if into is None else into
            program = self.net.space.program(genes[path])
            if announce is not None:
                announce(program)
            gradient, result = self.gradient_program(
                params, gradient, genes[path], x_, targets_, example_weights_, given,
                np.float32(weights[path] * part), program=program,
            )  # fmt: skip
            seen[path] = result.logits
            if last[there] == number:  # nobody learns from these rows any more
                del known[there]
            if into is not None:
                into = gradient
            yield gradient, result

    def _apart(
        self,
        params: Params,
        genes: np.ndarray,
        roles: Sequence[str],
        batch: tuple,
        work: Work | None,
        announce: Callable[[Program], None] | None,
    ) -> tuple[list[Params], list[PathResult]]:
        """Each path's own gradient, all its shares together; and what the shares of this process gave."""
        own, found = {}, []
        shares = (work or Work.whole(len(genes), len(batch[0]))).shares
        ones = np.ones(len(genes), np.float32)
        passes = self.gradients(params, genes, roles, ones, *batch, work=work, announce=announce)
        for share, (gradient, result) in zip(shares, passes, strict=True):
            before = own.get(share.path)
            own[share.path] = gradient if before is None else jax.tree.map(jnp.add, before, gradient)
            found.append(result if work is None else result._replace(logits=None))
        if work is None:
            return list(own.values()), found
        nothing = jax.tree.map(jnp.zeros_like, self._trained(params))
        return [work.sum(own.pop(path, nothing)) for path in range(len(genes))], found

    def _untaught(self, targets: Targets, params: Params, work: Work) -> Targets:
        """Returns what stands in for a teacher where a path has none, so that all paths run one program.

        It is distributions wherever others are taught, placed as those that a network with these weights teaches.
        """
        if self.distillation.type == "none":
            return targets
        if are_classes(targets):
            targets = work.place(jnp.zeros((*targets.shape, self.net.classes)))
        weights = jax.tree.leaves(params)[0]
        # Weights that were restored are bound to their device, and so is what follows from them.
        return jax.device_put(targets, weights.sharding) if weights.committed > targets.committed else targets

    def _spread(self, work: Work, found: Sequence[PathResult], paths: int, rows: int) -> list[PathResult]:
        genes = None if self._gene_norms is None else self.net.space.num_genes
        return spread(work, found, paths, rows, genes)

    def score(
        self,
        params: Params,
        genes: Int[np.ndarray, "k g"],
        x: Shaped[Array, "b ..."],
        labels: Int[np.ndarray, "b *t"],
    ) -> Float[np.ndarray, " k"]:
        """Computes the mean loss of architectures on one batch; forward passes only."""
        logits = [self.forward_program(params, row, x, program=self.net.space.program(row)) for row in genes]
        return np.array([float(self.loss_program(one, labels)) for one in logits], np.float64)

    def _gradient(
        self,
        params: Params,
        accumulated: Params,
        genes: jax.Array,
        x: jax.Array,
        targets: jax.Array,
        example_weights: jax.Array,
        given: Lesson,
        weight: jax.Array,
        program: Program,
    ) -> tuple[Params, PathResult]:
        def loss(trained: Params) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
            each = self._members(self._with(params, trained), genes, x, program)
            losses = _mean([example_losses(self.distillation, one, targets, given, self.outputs) for one in each])
            logits = each[-1] if self._exits else _mean(each)
            return jnp.mean(example_weights * losses), (logits, losses)

        # Gradients written by hand are traced within a mesh, be it an empty one. Within it the forward pass is, too, so
        # that what both contain is traced once.
        with jax.sharding.use_abstract_mesh(jax.sharding.get_abstract_mesh()):
            (value, (logits, losses)), grads = jax.value_and_grad(loss, has_aux=True)(self._trained(params))
        accumulated = jax.tree.map(lambda a, g: a + weight * g, accumulated, grads)
        figures = self.outputs.figures(logits, targets).astype(jnp.float32)
        figure = jnp.mean(self.outputs.mean(figures, targets))
        norms = self.outputs.gradient_norms(logits, targets)
        by_gene = None if self._gene_norms is None else self._norms(self._gene_norms, grads)
        return accumulated, PathResult(value, figure, losses, norms, by_gene, logits)

    def _members(self, params: Params, genes: jax.Array, x: jax.Array, program: Program) -> tuple[jax.Array, ...]:
        """The logits that have a loss each: those of the exits, or of the members of an ensemble."""
        if not self._exits:
            return self.net.apply_members(params, genes, x, program=program)
        assert isinstance(self.net, ElasticNetwork)
        return exit_logits(self.net, params, genes, x, program=program, exits=self._exits)

    def _norms(self, norms: GeneNorms, gradient: Params) -> Float[Array, " g"]:
        """Norms by gene of a gradient of the weights that are trained; the others have none."""
        return norms(self._with(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), self.net.shapes), gradient))

    def _mean_loss(self, logits: jax.Array, targets: jax.Array) -> jax.Array:
        return jnp.mean(self.outputs.mean(self.outputs.losses(logits, targets), targets))

    def _forward(self, params: Params, genes: jax.Array, x: jax.Array, program: Program) -> jax.Array:
        return self.net.apply(params, genes, x, program=program)[0]

    def _update(self, state: TrainState, accumulated: Params) -> tuple[TrainState, Params, jax.Array]:
        before = self._trained(state.params)
        updates, optimizer = self._optimizer.update(accumulated, state.optimizer, before)
        trained: Params = optax.apply_updates(before, updates)  # type: ignore[assignment]
        params, average = self._with(state.params, trained), state.average
        if average is not None and self._decay is not None:
            decay = jnp.minimum(self._decay, (1.0 + state.step) / (10.0 + state.step))
            average = jax.tree.map(lambda a, p: decay * a + (1 - decay) * p, average, trained)
        cleared = jax.tree.map(jnp.zeros_like, accumulated)
        return TrainState(state.step + 1, params, optimizer, average), cleared, optax.tree.norm(accumulated)

    @property
    def programs_compiled(self) -> int:
        """Number of gradient programs that have been compiled."""
        return self.gradient_program._cache_size()  # type: ignore[attr-defined]


def _mean(arrays: Sequence[jax.Array]) -> jax.Array:
    first, *others = arrays
    return sum(others, first) / len(arrays) if others else first


@jax.jit
def _total(gradients: list[Params], weights: jax.Array) -> Params:
    """The weighted sum of gradients."""
    return jax.tree.map(lambda *leaves: sum(w * leaf for w, leaf in zip(weights, leaves, strict=True)), *gradients)


@jax.jit
def _products(gradients: list[Params], previous: Params | None) -> Float[Array, "n n"]:
    """All scalar products between gradients and the one before."""
    last = jax.tree.map(jnp.zeros_like, gradients[0]) if previous is None else previous

    def of_leaf(*leaves: jax.Array) -> jax.Array:
        rows = jnp.stack([leaf.reshape(-1) for leaf in leaves])
        return rows @ rows.T

    products = jax.tree.map(of_leaf, *gradients, last)
    return jnp.sum(jnp.stack(jax.tree.leaves(products)), axis=0)
