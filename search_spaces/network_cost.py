"""Costs of a described network: one table for what every network has, and one a sublayer and position."""

from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING

from search_spaces.choice import Value
from search_spaces.cost import Cost, CostModel, Record, Term
from search_spaces.edges import Edge
from search_spaces.network import Stack, Sublayer

if TYPE_CHECKING:
    from search_spaces.space import SearchSpace


def cost_model(space: "SearchSpace") -> CostModel:
    """Builds the exact cost model of a space from its description."""
    network, values = space.network, {choice.name: choice.values for choice in space.choices}
    nothing = space.price(Cost(), {})
    whole = {choice.name for choice in space.choices if choice.selects_program}

    def tabulate(columns: dict[str, int], cost: Callable[..., Record]) -> Term:
        return Term.tabulate(columns.values(), [values[name] for name in columns], cost)

    @cache
    def price(sublayer: Sublayer, *given: Value) -> Record:
        at = dict(zip(sublayer.columns, given, strict=True))
        if not sublayer.on(at):
            return nothing
        sizes = sublayer.sizes(at)
        return space.price(sublayer.cost(sizes), sizes)

    def term(stack: Stack, sublayer: Sublayer, position: int) -> Term:
        columns = {name: space.column(name, stack.group, position) for name in sublayer.columns}
        always = stack.layers is None or stack.depth not in values
        if always and not stack.when:
            return tabulate(columns, partial(price, sublayer))
        if not always:
            columns[stack.depth] = space.column(stack.depth, stack.group)
        columns |= {name: space.column(name) for name in stack.when}

        def cost(*given: Value) -> Record:
            at = dict(zip(columns, given, strict=True))
            on = stack.there(at) and (always or int(at[stack.depth]) > position)
            return price(sublayer, *(at[name] for name in sublayer.columns)) if on else nothing

        return tabulate(columns, cost)

    def edge_term(stack: Stack, edge: Edge) -> Term:
        """Returns the states of an edge, by the choice of edges that are on and by the genes of its slots."""
        slots = sorted(set(edge.slots) - {-1})
        genes = [(name, space.column(name, stack.group, slot)) for slot in slots for name in stack.choices]
        columns = dict.fromkeys(column for _, column in genes)
        of_column = {column: values[name] for name, column in genes}
        first = [edge.choice] if edge.choice else []

        def cost(*given: Value) -> Record:
            slot = edge.slots[values[edge.choice].index(given[0]) if edge.choice else 0]
            at = dict(zip(columns, given[len(first) :], strict=True))
            if slot < 0:
                return nothing
            own = {name: at[space.column(name, stack.group, slot)] for name in stack.choices}
            prices = [price(sublayer, *(own[name] for name in sublayer.columns)) for sublayer in stack.sublayers]
            return nothing._make(map(sum, zip(*prices, strict=True)))

        options = [values[name] for name in first]
        return Term.tabulate(
            [*map(space.column, first), *columns], [*options, *(of_column[column] for column in columns)], cost
        )

    def ends_cost(*given: Value) -> Record:
        at = dict(zip(shared, given, strict=True))
        costs = [price(sublayer, *(at[name] for name in sublayer.choices)) for sublayer in fixed]
        return nothing._make(map(sum, zip(*costs, strict=True)))

    fixed, stacks = [network.outside_layers], []
    for stack in network.stacks:
        if stack.layers is None and not stack.when and whole.issuperset(stack.choices):
            fixed += stack.sublayers  # no gene of a layer changes them
        else:
            stacks.append(stack)
    shared = {name: space.column(name) for sublayer in fixed for name in sublayer.choices}
    terms = [tabulate(shared, ends_cost)]
    for stack in stacks:
        if stack.edges:
            terms += [edge_term(stack, edge) for edge in stack.edges]
            continue
        positions = range(stack.first, stack.slots)
        there = [sublayer for sublayer in stack.sublayers if sublayer.parts or sublayer.products]
        terms += [term(stack, sublayer, position) for position in positions for sublayer in there]
    return CostModel(space.num_genes, terms, space.metrics)
