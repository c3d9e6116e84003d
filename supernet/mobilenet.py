"""The elastic MobileNet: a stage's first block on its own, the others under one scan, expansion as the switch.

A block's expansion is the size that its switch selects; its kernel is data inside (`elastic_depthwise`), so that the
variants of a block's other products are those of the expansion alone.

References:
    Cai, Gan, Wang, Zhang, Han. Once-for-All: Train One Network and Specialize it for Efficient Deployment. ICLR 2020,
    arXiv:1908.09791. Here smaller kernels are plain centre crops, without OFA's learned transforms.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from search_spaces import Architecture, MobileNetSpace, Program, UserError
from supernet.batch_norm import activate
from supernet.bottleneck import Bottleneck, Size, masked_bottleneck, masked_norm, measure, norm
from supernet.elastic_depthwise import centre
from supernet.resolution import resize
from supernet.standalone.mobilenet import patches_3x3
from supernet.supernet import SUPERNETS, Params, Statistics, Supernet
from supernet.switch import Context, run, switched


@SUPERNETS.register("mobilenet")
class MobileNetSupernet(Supernet):
    """Weights: the plain module's parameters at the largest sizes, by stage: `entry`, the first block, and `rest`, the
    others stacked on a leading axis. Statistics have the same structure, with mean and variance of each norm."""

    stacked = "rest"
    space: MobileNetSpace

    def init(self, key: jax.Array) -> Params:
        """Fresh weights of the largest subnet, stacked."""
        plain = nnx.to_pure_dict(nnx.state(self.module(self.space.largest, nnx.Rngs(key)), nnx.Param))
        blocks = plain.pop("blocks")
        for stage in range(self.space.stages):
            entry, *rest = (blocks[stage * self.space.max_depth + i] for i in range(self.space.max_depth))
            plain[_stage(stage)] = {"entry": entry}
            if rest:
                plain[_stage(stage)]["rest"] = jax.tree.map(lambda *leaves: jnp.stack(leaves), *rest)
        return plain

    # ---------------------------------------------------------------- forward passes

    def apply(
        self,
        params: Params,
        genes: jax.Array,
        x: jax.Array,
        *,
        program: Program,
        statistics: Statistics | None = None,
        collect: bool = False,
    ) -> tuple[jax.Array, Statistics]:
        """See `Supernet.apply`."""
        params = self.sharing(params, genes)
        x = resize(x, int(program[0]))
        collected: Statistics = {}
        outer = Context(statistics=statistics, collected=collected if collect else None)
        x = self._stem(params, x, outer)
        fixed, size = self._fixed
        context = _inner(None, _at(statistics, "first"), collect)
        x = switched(self.kept(fixed.stages), [size], jnp.int32(0), params["first"], x, context, skippable=False)
        collected["first"] = context.collected
        for stage in range(self.space.stages):
            name = _stage(stage)
            x, collected[name] = self._apply_stage(
                stage, params[name], genes, x, _at(statistics, name), collect
            )  # fmt: skip
        logits = self._classify(params, x, outer)
        return logits, collected if collect else {}

    def _apply_stage(
        self, stage: int, params: Params, genes: jax.Array, x: jax.Array, statistics: Statistics | None, collect: bool
    ) -> tuple[jax.Array, Statistics]:
        columns = self.space.columns
        depth = jnp.asarray(self.space.depth)[genes[int(columns["depth"].reshape(-1)[stage])]]
        kernels, expands = (genes[columns[name].reshape(self.space.stages, -1)[stage]] for name in ("kernel", "expand"))

        context = _inner(kernels[0], _at(statistics, "entry"), collect)
        stages, sizes = self.kept(self._block(stage, 0).stages), self._sizes(stage, 0)
        x = switched(stages, sizes, expands[0], params["entry"], x, context, skippable=False)
        collected = {"entry": context.collected}
        if "rest" not in params:
            return x, collected

        stages, sizes = self.kept(self._block(stage, 1).stages), self._sizes(stage, 1)

        def block(x: jax.Array, inputs: tuple) -> tuple[jax.Array, Any]:
            weights, kernel, expand, given = inputs
            context = _inner(kernel, given, collect)
            return switched(stages, sizes, expand, weights, x, context), context.collected

        expands = jnp.where(jnp.arange(1, self.space.max_depth) < depth, expands[1:], -1)
        x, collected["rest"] = jax.lax.scan(
            block, x, (params["rest"], kernels[1:], expands, _at(statistics, "rest"))
        )  # fmt: skip
        return x, collected

    def apply_sliced(
        self, params: Params, architecture: Architecture, x: jax.Array, statistics: Statistics | None = None
    ) -> jax.Array:
        """See `Supernet.apply_sliced`."""
        params = self.sharing(params, jnp.asarray(architecture.genes, jnp.int32))
        outer = Context(statistics=statistics)
        x = self._stem(params, resize(x, architecture.description["resolution"]), outer)
        fixed, size = self._fixed
        x = run(fixed.stages, params["first"], x, size, _inner(None, _at(statistics, "first"), False))
        for stage, block, kernel, expand in self._active(architecture):
            weights, given = (_of_block(tree, stage, block) for tree in (params, statistics))
            size = self._size(stage, block, expand, kernel)
            x = run(self._block(stage, block).stages, weights, x, size, _inner(None, given, False))
        return self._classify(params, x, outer)

    def apply_masked(
        self, params: Params, genes: jax.Array, x: jax.Array, *, program: Program, statistics: Statistics | None = None
    ) -> jax.Array:
        """See `Supernet.apply_masked`."""
        space, columns = self.space, self.space.columns
        params = self.sharing(params, genes)
        x = patches_3x3(resize(x, int(program[0])), space.stem_stride) @ params["stem"]["kernel"]
        x = masked_norm("stem_norm", x, params, "hard_swish", statistics)
        fixed, size = self._fixed
        x = masked_bottleneck(
            fixed, params["first"], x, jnp.int32(3), jnp.int32(size.hidden), jnp.int32(0), _at(statistics, "first")
        )
        for stage in range(space.stages):
            depth = jnp.asarray(space.depth)[genes[int(columns["depth"].reshape(-1)[stage])]]
            for i in range(space.max_depth):
                kernel, expand = (
                    genes[int(columns[name].reshape(space.stages, -1)[stage, i])] for name in ("kernel", "expand")
                )
                hidden, squeezed = jnp.asarray(np.array([size[:2] for size in self._sizes(stage, i)]))[expand]
                weights, given = (_of_block(tree, stage, i) for tree in (params, statistics))
                size = jnp.asarray(space.kernel)[kernel], hidden, squeezed
                y = masked_bottleneck(self._block(stage, i), weights, x, *size, given)
                x = jnp.where(i < depth, y, x) if i else y
        x = masked_norm("final_norm", x @ params["final"]["kernel"], params, "hard_swish", statistics)
        x = activate(x.mean(axis=(1, 2)) @ params["feature"]["kernel"], "hard_swish")
        return x @ params["classifier"]["kernel"] + params["classifier"]["bias"]

    # ---------------------------------------------------------------- pieces

    def _stem(self, params: Params, x: jax.Array, context: Context) -> jax.Array:
        patches = patches_3x3(x, self.space.stem_stride)
        y = patches.reshape(-1, patches.shape[-1]) @ params["stem"]["kernel"]
        y = measure("stem_norm", y.reshape(*patches.shape[:-1], -1), context)
        return norm("stem_norm", y, params, "hard_swish", context)

    def _classify(self, params: Params, x: jax.Array, context: Context) -> jax.Array:
        y = x.reshape(-1, x.shape[-1]) @ params["final"]["kernel"]
        y = measure("final_norm", y.reshape(*x.shape[:-1], -1), context)
        y = jnp.mean(norm("final_norm", y, params, "hard_swish", context), axis=(1, 2))
        y = activate(y @ params["feature"]["kernel"], "hard_swish")
        return y @ params["classifier"]["kernel"] + params["classifier"]["bias"]

    @property
    def _fixed(self) -> tuple[Bottleneck, Size]:
        s = self.space
        width, stride = s.scaled(s.stem_width), s.first_stride
        adds = stride == 1 and width == s.scaled(s.first_width)
        return Bottleneck((3,), stride, "relu", adds, expands=False), Size(width, 0, 3)

    def _block(self, stage: int, block: int) -> Bottleneck:
        s = self.space
        stride = s.stride(stage, block)
        adds = stride == 1 and s.in_width(stage, block) == s.out_width(stage)
        return Bottleneck(s.kernel, stride, s.activations[stage], adds)

    def _size(self, stage: int, block: int, expand: int, kernel: int | None = None) -> Size:
        hidden = self.space.hidden(self.space.in_width(stage, block), expand)
        return Size(hidden, self.space.squeezed(hidden) if self.space.squeeze_excite[stage] else 0, kernel)

    def _sizes(self, stage: int, block: int) -> list[Size]:
        return [self._size(stage, block, expand) for expand in self.space.expand]

    # ---------------------------------------------------------------- extraction

    def _active(self, architecture: Architecture) -> list[tuple[int, int, int, int]]:
        """Stage, block, kernel size and expansion of each active block."""
        kernels, expands = (
            [d] if self.space.stages == 1 else d
            for d in (architecture.description["kernel"], architecture.description["expand"])
        )
        return [
            (stage, block, kernel, expand)
            for stage in range(self.space.stages)
            for block, (kernel, expand) in enumerate(zip(kernels[stage], expands[stage], strict=True))
        ]

    def config(self, architecture: Architecture) -> dict[str, Any]:
        """See `Supernet.config`."""
        s = self.space
        blocks = []
        for stage, block, kernel, expand in self._active(architecture):
            hidden, squeezed, _ = self._size(stage, block, expand)
            blocks.append({
                "hidden": hidden, "out_width": s.out_width(stage), "kernel": kernel, "stride": s.stride(stage, block),
                "squeezed": squeezed, "activation": s.activations[stage],
            })  # fmt: skip
        widths = ("stem_width", "first_width", "final_width", "feature_width")
        same = ("stem_stride", "first_stride", "channels", "classes")
        return {
            "resolution": architecture.description["resolution"],
            "blocks": blocks,
            **{name: s.scaled(getattr(s, name)) for name in widths},
            **{name: getattr(s, name) for name in same},
        }

    def example(self, architecture: Architecture) -> jax.ShapeDtypeStruct:
        """See `Supernet.example`."""
        resolution = architecture.description["resolution"]
        return jax.ShapeDtypeStruct((resolution, resolution, self.space.channels), np.float32)

    @property
    def values_per_statistic(self) -> int:
        """See `Supernet.values_per_statistic`: the positions of the last map at the lowest resolution."""
        return self.space.final_size(self.space.resolution[0]) ** 2

    def slice(self, params: Params, architecture: Architecture, statistics: Statistics) -> Params:
        """See `Supernet.slice`.

        Raises:
            UserError: There are no statistics: a subnet has none before it is calibrated.
        """
        if not statistics:
            raise UserError("statistics: missing. Pass those that `supernet.evaluation.calibrate` gives.")
        blocks = {}
        for stage, block, kernel, expand in self._active(architecture):
            weights, given = (_of_block(tree, stage, block) for tree in (params, statistics))
            size = self._size(stage, block, expand, kernel)
            blocks[len(blocks)] = _with_statistics(_slice_block(weights, size), given)
        ends = {name: params[name] for name in params if name in _ENDS}
        first = _with_statistics(params["first"], statistics["first"])
        return {**_with_statistics(ends, statistics), "first": first, "blocks": blocks}


_ENDS = ("stem", "stem_norm", "final", "final_norm", "feature", "classifier")


def _stage(stage: int) -> str:
    return f"stage_{stage}"


def _at(tree: Statistics | None, name: str) -> Any:
    return None if tree is None else tree[name]


def _of_block(tree: Params | None, stage: int, block: int) -> Any:
    """The part of weights or statistics that belongs to one block."""
    if tree is None:
        return None
    part = tree[_stage(stage)]
    return jax.tree.map(lambda leaf: leaf[block - 1], part["rest"]) if block else part["entry"]


def _inner(kernel: jax.Array | None, statistics: Statistics | None, collect: bool) -> Context:
    return Context(kernel, statistics, {} if collect else None)


def _slice_block(weights: Params, size: Size) -> Params:
    hidden, squeezed, kernel = size
    channels = lambda tree: jax.tree.map(lambda leaf: leaf[..., :hidden], tree)  # noqa: E731
    sliced = {name: channels(weights[name]) for name in ("expand", "expand_norm", "depthwise_norm")}
    sliced["depthwise"] = {"kernel": centre(weights["depthwise"]["kernel"], kernel or 1)[..., :hidden]}
    sliced["project"] = {"kernel": weights["project"]["kernel"][:hidden]}
    sliced["project_norm"] = weights["project_norm"]
    if squeezed:
        reduce = jax.tree.map(lambda leaf: leaf[..., :squeezed], weights["squeeze_excite"]["reduce"])
        widen = channels(weights["squeeze_excite"]["widen"])
        sliced["squeeze_excite"] = {
            "reduce": {**reduce, "kernel": reduce["kernel"][:hidden]},
            "widen": {**widen, "kernel": widen["kernel"][:squeezed]},
        }
    return sliced


def _with_statistics(weights: Params, statistics: Statistics) -> Params:
    """Adds each norm's mean and variance, at the width of its scale."""
    moments = {
        name: {key: leaf[: len(part["scale"])] for key, leaf in statistics[name].items()}
        for name, part in weights.items()
        if "scale" in part
    }
    return {name: {**part, **moments.get(name, {})} for name, part in weights.items()}
