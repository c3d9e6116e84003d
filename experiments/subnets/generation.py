"""Text from an exported language model: prompt to tokens, tokens to those that follow, and back to text."""

from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from experiments.data.tokenizer import BYTES, load_tokenizer
from experiments.records.use import DraftFigures, GeneratedText
from experiments.subnets.loading import load_exported
from experiments.subnets.tokenizer import check_tokenizer, tokenizer_of
from search_spaces import UserError
from search_spaces.randomness import Purpose
from search_spaces.sealed_json import parse_json
from supernet.engine.randomness import key
from supernet.export.early_exit import generate_early
from supernet.export.generate import generate
from supernet.export.speculative import speculate
from supernet.export.subnet import Subnet
from supernet.standalone.language import LanguageModel

_GENERATION = ("generation_config.json", "config.json")


@dataclass(frozen=True)
class Draft:
    """A model that proposes what another checks.

    Attributes:
        model: An exported subnet with the tokenizer of the other, or a number of first layers of the other itself.
        proposed: Number of tokens that it proposes per round.
    """

    model: Path | int
    proposed: int = 4


@dataclass(frozen=True)
class Exits:
    """Layers after which tokens may leave a model.

    Attributes:
        layers: Numbers of layers, ascending.
        confidence: Least probability of the likeliest token with which a token leaves.
    """

    layers: tuple[int, ...]
    confidence: float


def continued(
    directory: Path, prompt: str, count: int, temperature: float, seed: int, bos: bool | None = None,
    draft: Draft | None = None, exits: Exits | None = None,
) -> GeneratedText:  # fmt: skip
    """Writes on from a prompt, up to the end of a text.

    Args:
        directory: An exported subnet, with its tokenizer.
        prompt: At least one token, with those that the tokenizer puts first.
        count: The most tokens that follow.
        temperature: 0 takes the likeliest token each time.
        seed: Seed of the draws at other temperatures.
        bos: Whether the prompt begins with what the tokenizer puts before a text; as in training when None.
        draft: Proposes tokens, so that the model takes several at a time; none when None.
        exits: Where tokens may leave the model early; nowhere when None. Not with a draft.

    Returns:
        The prompt, what follows it, the tokens of that, and what became of the draft's proposals or how many layers
        each token took.

    Raises:
        UserError: The directory is no such subnet, or the sequence is empty or too long for it.
    """
    subnet, model, name = language_model(directory)
    tokenizer = load_tokenizer(name)
    begin = tokenizer.begin if (subnet.config.get("bos", False) if bos is None else bos) else ()
    given = np.append(np.array(begin, np.int64), tokenizer.encode(prompt.encode("utf-8", "surrogateescape")))
    stops = {tokenizer.end, *(() if name == BYTES else _stops(Path(name)))}
    if given.size and given.max() >= model.form.vocabulary:
        raise UserError(
            f"{directory}: token {given.max()} of the prompt is none of the {model.form.vocabulary} that the "
            f"model knows. Export it with its own tokenizer: data.tokenizer."
        )
    draws, tokens = key(seed, Purpose.GENERATED_TOKENS), jnp.asarray(given, jnp.int32)
    told, layers = None, None
    if exits is not None:
        early = generate_early(model, tokens, count, exits.layers, exits.confidence, temperature, draws)
        found, layers = early.tokens.tolist(), early.layers.tolist()
    elif draft is None:
        found = generate(model, tokens[None], count, temperature, draws)[0].tolist()
    else:
        helper = _first_layers(model, draft.model) if isinstance(draft.model, int) else _helper(draft.model, name)
        speculated = speculate(model, helper, tokens, count, draft.proposed, temperature, draws)
        found, rounds = speculated.tokens.tolist(), speculated.rounds
        told = DraftFigures(rounds, rounds * draft.proposed, speculated.accepted)
    following = list(takewhile(lambda token: token not in stops, found))
    # Decoded together, as a token's text may depend on what is before it.
    before = tokenizer.decode(given.tolist())
    text = tokenizer.decode([*given.tolist(), *following]).removeprefix(before)
    return GeneratedText(prompt, text, following, told, None if layers is None else layers[: len(following)])


def _first_layers(model: LanguageModel, layers: int) -> LanguageModel:
    if not 1 <= layers < len(model.layers):
        raise UserError(
            f"--draft-layers: {layers} of {len(model.layers)} layers. Give 1 or more, and fewer than the network has."
        )
    return model.first(layers)


def _helper(directory: Path, tokenizer: str) -> LanguageModel:
    _, helper, known = language_model(directory)
    check_tokenizer(str(directory), known, tokenizer)
    return helper


def language_model(directory: Path) -> tuple[Subnet, LanguageModel, str]:
    """Returns an exported language model, its module, and the name of its tokenizer."""
    subnet = load_exported(directory)
    if not isinstance(subnet.module, LanguageModel):
        raise UserError(
            f"{directory}: a network of family {subnet.config['family']}, which writes no text. Give a language model."
        )
    return subnet, subnet.module, tokenizer_of(subnet, directory) or BYTES


def _stops(tokenizer: Path) -> set[int]:
    """The tokens that end a text where the files beside a tokenizer say so; none where they do not.

    `generation_config.json` says it, and without that file `config.json`, as in transformers.
    """
    file = next((path for path in map(tokenizer.joinpath, _GENERATION) if path.is_file()), None)
    if file is None:
        return set()
    try:
        found = parse_json(file.read_text(encoding="utf-8")).get("eos_token_id")
    except (ValueError, AttributeError):
        raise UserError(f"{file}: is damaged. Export the network again.") from None
    stops = found if isinstance(found, list) else [] if found is None else [found]
    if not all(type(token) is int for token in stops):
        raise UserError(
            f"{file}: eos_token_id: {found!r} is no token or list of tokens. Correct it where it came from."
        )
    return set(stops)
