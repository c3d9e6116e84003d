"""Architecture: one network of a search space, as immutable genes and as a readable form."""

from dataclasses import dataclass, field

from search_spaces.sealed_json import JsonObject


@dataclass(frozen=True)
class Architecture:
    """One member of a space in canonical form. Equal and hashed by its genes; `SearchSpace.architecture` makes it.

    Attributes:
        genes: Index into each choice's values, in the order of the space's genes.
        description: Choice name to value, list of values (one a layer), or list of lists (one a block of a stage);
            only what the network really has.
    """

    genes: tuple[int, ...]
    description: JsonObject = field(compare=False)
