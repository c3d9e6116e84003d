"""The reference forward pass of language models: full-size products, masked to the architecture."""

import jax
import jax.numpy as jnp

from search_spaces import LanguageSpace
from supernet.normalisation import masked_layer_norm, masked_rms_norm, rms_norm
from supernet.rotary import rotate
from supernet.standalone.language import ACTIVATIONS
from supernet.supernet import Params


def masked_logits(space: LanguageSpace, params: Params, genes: jax.Array, tokens: jax.Array) -> jax.Array:
    """Logits float32[b, t, v] of tokens int32[b, t].

    Args:
        space: The space.
        params: Effective weights in the supernet's layout.
        genes: int32[g], traced.
        tokens: int32[b, t].
    """
    t = tokens.shape[1]
    depth = genes[int(space.columns["depth"])]
    width = jnp.asarray(space.width)[genes[int(space.columns["width"])]]
    on = jnp.arange(space.width[-1]) < width
    act = ACTIVATIONS[space.activation]

    def norm(x: jax.Array, params: Params) -> jax.Array:
        masked = masked_layer_norm if space.norm == "layer" else masked_rms_norm
        return masked(x, params, on, width, space.norm_epsilon)

    def kept(choice: str, position: jax.Array) -> jax.Array:
        """Which units of a layer there are."""
        values = getattr(space, choice)
        size = jnp.asarray(values)[genes[space.columns_by_position(choice)][position]]
        return jnp.arange(values[-1]) < size

    def project(x: jax.Array, params: Params, product: str) -> jax.Array:
        y = jnp.einsum(product, x, params["kernel"])
        return y + params.get("bias", 0.0)

    def turn(heads: jax.Array) -> jax.Array:
        turned = rotate(heads.swapaxes(1, -2), jnp.arange(t), space.frequencies)
        return turned.swapaxes(1, -2)

    def attention(x: jax.Array, params: Params, position: jax.Array) -> jax.Array:
        q = project(x, params["q"], "btd,dgnk->btgnk")
        k = project(x, params["k"], "btd,dgk->btgk")
        v = project(x, params["v"], "btd,dgk->btgk")
        if space.qk_norm:
            q = rms_norm(q, params["q_norm"], space.norm_epsilon)
            k = rms_norm(k, params["k_norm"], space.norm_epsilon)
        if space.positions == "rope":
            q, k = turn(q), turn(k)
        scores = jnp.einsum("bsgnk,btgk->bgnst", q, k) * space.head_size**-0.5
        if space.causal:
            scores = jnp.where(jnp.tri(t, dtype=bool), scores, -jnp.inf)
        mixed = jnp.einsum("bgnst,btgk->bsgnk", jax.nn.softmax(scores), v)
        mixed = mixed * kept("kv_heads", position)[:, None, None] * kept("queries", position)[:, None]
        return project(mixed, params["out"], "btgnk,gnkd->btd") * on

    def mlp(x: jax.Array, params: Params, position: jax.Array) -> jax.Array:
        up = project(x, params["up"], "btd,dm->btm")
        y = act(project(x, params["gate"], "btd,dm->btm")) * up if "gate" in params else act(up)
        return project(y * kept("mlp_width", position), params["down"], "btm,md->btd") * on

    stream = params["embedding"][tokens]
    if space.positions == "learned":
        stream = stream + params["position"][:t]
    if space.token_types:
        stream = stream + params["token_type"][0]
    stream = norm(stream, params["norm"]) if space.post_norm else stream * on
    for i in range(space.max_depth):
        layer = jax.tree.map(lambda leaf, i=i: leaf[i], params["layers"])
        position = jnp.asarray(space.positions_of)[depth, i]
        entered = stream
        for sublayer, weights in ((attention, layer["attention"]), (mlp, layer["mlp"])):
            source = entered if space.parallel else stream
            if space.post_norm:
                update = norm(stream + sublayer(source, weights, position), weights["norm"]) - stream
            else:
                update = sublayer(norm(source, weights["norm"]), weights, position)
            stream = jnp.where(position < 0, stream, stream + update)
    if not space.post_norm:
        stream = norm(stream, params["norm"])
    if space.head_transform:
        dense = project(stream, params["transform"]["dense"], "btd,de->bte")
        stream = norm(act(dense) * on, params["transform"]["norm"])
    logits = stream @ params["embedding" if space.tied else "head"].T
    return logits + params["head_bias"] if space.head_transform else logits
