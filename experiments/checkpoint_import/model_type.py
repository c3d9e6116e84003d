"""ModelType: what is to be known of one of the model types of `transformers`, for both directions."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from experiments.checkpoint_import.settings import Settings
from experiments.checkpoint_import.tensors import Row
from search_spaces import LanguageForm, Registry, UserError

MODEL_TYPES: Registry["ModelType"] = Registry("model type", "experiments.checkpoint_import")
_LLAMA3 = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")


class Sizes(NamedTuple):
    """The sizes of a network whose layers are all alike."""

    width: int
    depth: int
    kv_heads: int
    queries: int
    mlp_width: int

    @property
    def heads(self) -> int:
        """Query heads."""
        return self.kv_heads * self.queries


@dataclass(frozen=True)
class ModelType:
    """One model type.

    Attributes:
        architecture: The class that loads it with its head.
        prefix: What the names of all tensors but those of the head begin with; checkpoints without head lack it.
        read: From `config.json` to the fields of `LanguageForm` and the sizes. Refuses what the family has not.
        write: From form and sizes to `config.json`, but for `model_type` and `architectures`.
        rows: The table of tensors.
        ignored: Expressions for the names of tensors that hold nothing of the network.
        renamed: Ends of names as older checkpoints have them, and as they are in the table.
        free_head_size: The size of a head is a setting of its own, and does not follow from width and heads.
        heads_divide_width: The heads must divide the width all the same.
    """

    architecture: str
    prefix: str
    read: Callable[[Settings], tuple[dict[str, Any], Sizes]]
    write: Callable[[LanguageForm, Sizes], dict[str, Any]]
    rows: Callable[[LanguageForm], list[Row]]
    ignored: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)
    free_head_size: bool = False
    heads_divide_width: bool = True


def rope(settings: Settings, theta: float = 10000.0) -> dict[str, Any]:
    """Fields of the form that say how positions rotate; both where version 4 has them and where version 5 does.

    Raises:
        UserError: Positions are scaled in another way than Llama 3's.
    """
    scaling: tuple[float, ...] = ()
    for key in ("rope_scaling", "rope_parameters"):
        inner = settings.of(key)
        theta = inner.number("rope_theta", theta)
        if inner.only("rope_type", ("default", "llama3"), inner.values.get("type", "default")) == "llama3":
            scaling = tuple(inner.number(name) for name in _LLAMA3)
    return {"positions": "rope", "rope_theta": settings.number("rope_theta", theta), "rope_scaling": scaling}


def written_rope(form: LanguageForm) -> dict[str, Any]:
    """The settings that `rope` reads."""
    scaled = dict(zip(_LLAMA3, form.rope_scaling, strict=True)) if form.rope_scaling else None
    if scaled:
        scaled = {**scaled, "original_max_position_embeddings": int(form.rope_scaling[-1]), "rope_type": "llama3"}
    return {"rope_theta": form.rope_theta, "rope_scaling": scaled}


def grouped(settings: Settings) -> tuple[int, int]:
    """Key-value heads, and queries that share each.

    Raises:
        UserError: They don't divide.
    """
    heads = settings.size("num_attention_heads")
    kv_heads = settings.size("num_key_value_heads", heads)
    if heads % kv_heads:
        raise settings.error("num_key_value_heads", f"does not divide the {heads} heads. The file is damaged")
    return kv_heads, heads // kv_heads


def head_size_of(settings: Settings, width: int, heads: int) -> int:
    """Size of a head that follows from the width.

    Raises:
        UserError: The heads don't divide it.
    """
    if width % heads:
        raise UserError(f"{settings.where}: {heads} heads do not divide the width {width}, as they must.")
    return width // heads
