"""Refusal of descriptions of networks that contradict themselves."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from search_spaces.choice import Choice, Value
from search_spaces.edges import Edge
from search_spaces.errors import UserError, did_you_mean
from search_spaces.network import Alternatives, Network, Stack, Sublayer, combinations
from search_spaces.parts import Axis, Values, flat


def check_network(network: Network, choices: Sequence[Choice]) -> None:
    """Refuses a description that contradicts itself.

    Raises:
        UserError: An axis that no choice sizes, that has several lengths or whose last value is not its largest;
            a product over an axis that its part does not have.
    """
    values = {choice.name: choice.values for choice in choices}
    programs = [choice.name for choice in choices if choice.selects_program]
    for name in network.outside_layers.choices:
        if name in values and name not in programs:
            raise UserError(
                f"network: {network.outside_layers.name}: its axes follow {name}, which selects no program. Only "
                "choices that select one can size what is outside the layers."
            )
    for path in network.head:
        if path not in network.outside_layers.parts:
            raise UserError(
                f"network: head: {path!r} is no part outside the layers."
                f"{did_you_mean(path, network.outside_layers.parts)}"
            )
    for stack in network.stacks:
        _check_options(stack, choices, list(network.sublayers))
        for name in stack.when:
            if name not in programs:
                raise UserError(
                    f"network: stack {stack.path}: it is there by {name}, which selects no program. Only choices "
                    "that select one can leave stacks out."
                )
        _check_edges(stack, choices)
    for sublayer in network.sublayers:
        known: dict[str, tuple[str, Axis]] = {}
        for path, part in sublayer.parts.items():
            own = [axis for shape in part.weights.values() for axis in flat(shape)]
            if isinstance(part.averages, Axis):
                _check_axis(part.averages, f"part {path}", values)
            for axis in (axis for axis in own if isinstance(axis, Axis)):
                _check_axis(axis, f"part {path}", values)
                first, other = known.setdefault(axis.name, (path, axis))
                _check_same(path, axis, first, other, values)
            for axis in (axis for product in part.products for axes in product[1:] for axis in axes):
                if axis not in own and isinstance(axis, Axis):
                    has = ", ".join(dict.fromkeys(a.name for a in own if isinstance(a, Axis)))
                    raise UserError(
                        f"network: part {path}: a product over axis {axis.name}, which none of its weights has "
                        f"(they have {has or 'no elastic axis'}). Name one of theirs."
                    )
        cut = {axis.name for shape in sublayer.weights.values() for axis in flat(shape) if isinstance(axis, Axis)}
        for axis in sublayer.all_axes:
            _check_axis(axis, f"sublayer {sublayer.name}", values, axis.name in cut)
            first, other = known.setdefault(axis.name, (f"product of {sublayer.name}", axis))
            _check_same(f"product of {sublayer.name}", axis, first, other, values)


def _check_axis(axis: Axis, where: str, values: Mapping[str, Sequence[Value]], cut: bool = True) -> None:
    """Refuses lengths that cannot be; of an axis of weights, which is `cut`, the last values give the largest."""
    for name in axis.choices:
        if name not in values:
            raise UserError(
                f"network: {where}: axis {axis.name} is sized by {name!r}, which is no choice."
                f"{did_you_mean(name, values)}"
            )
    found = [(axis.at(combination), combination) for combination in combinations(axis, values)]
    largest = found[-1][0]
    for size, combination in found:
        if not 0 < size <= (largest if cut else size):
            raise UserError(
                f"network: {where}: axis {axis.name} has {size} entries at {_text(combination)}, and {largest} at the "
                "last values. Give sizes from 1 to that of the last values."
            )


def _check_same(path: str, axis: Axis, first: str, other: Axis, values: Mapping[str, Sequence[Value]]) -> None:
    if axis is other:
        return
    for combination in combinations(Axis("", tuple(dict.fromkeys((*axis.choices, *other.choices)))), values):
        if axis.at(combination) != other.at(combination):
            raise UserError(
                f"network: part {path}: axis {axis.name} has {axis.at(combination)} entries at {_text(combination)}, "
                f"but {other.at(combination)} in part {first}. Give both one size, or one of them another name."
            )


def _check_options(stack: Stack, choices: Sequence[Choice], others: Sequence[Sublayer]) -> None:
    by_name = {choice.name: choice for choice in choices}
    for each in stack.elements:
        if not isinstance(each, Alternatives):
            continue
        name, values = each.choice, list(each.sublayers)
        where = f"network: stack {stack.path}: alternatives {name}"
        if name not in by_name:
            raise UserError(f"{where}: {name!r} is no choice.{did_you_mean(name, by_name)}")
        choice = by_name[name]
        if set(values) != set(choice.values):
            raise UserError(f"{where}: they are {values}, and the choice has {list(choice.values)}. Give one for each.")
        always = {c.name for c in choices if c.selects_program}
        always |= {size for sublayer in others if sublayer.option is None for size in sublayer.choices}
        for option in each.options:
            for size in option.choices:
                if size not in always:
                    raise UserError(
                        f"{where}: {option.name} is sized by {size}, which means nothing where another is chosen. Give "
                        "each size as an alternative of its own."
                    )
        if choice.ordered or choice.selects_program:
            raise UserError(f"{where}: {name} is ordered, or selects a program. Give it ordered=False and neither.")


def _check_edges(stack: Stack, choices: Sequence[Choice]) -> None:
    where, by_name = f"network: stack {stack.path}", {choice.name: choice for choice in choices}
    if not stack.edges:
        return
    others = stack.parallel or stack.positions is not None or stack.handed_on or stack.when
    if stack.layers != len(stack.edges) or others:
        raise UserError(f"{where}: {len(stack.edges)} edges are its layers. Give as many layers, and nothing else.")
    if not all(isinstance(each, Alternatives) for each in stack.elements):
        raise UserError(f"{where}: only choices between sublayers can be on edges. Give a choice of one value.")
    for sublayer in stack.sublayers:
        for name in sublayer.choices:
            raise UserError(f"{where}: {name} sizes what is on an edge. Give each size as an operation of its own.")
    for edge in stack.edges:
        _check_edge(edge, f"{where}: edge", by_name)


def _check_edge(edge: Edge, where: str, by_name: Mapping[str, Choice]) -> None:
    if edge.choice is not None:
        if edge.choice not in by_name:
            raise UserError(f"{where}: {edge.choice!r} is no choice.{did_you_mean(edge.choice, by_name)}")
        choice = by_name[edge.choice]
        if choice.ordered or choice.selects_program or choice.gate is not None or choice.repeats > 1:
            raise UserError(
                f"{where}: {edge.choice} is ordered, selects a program or has several genes. Give it ordered=False and "
                "none of these."
            )
    count = 1 if edge.choice is None else len(by_name[edge.choice].values)
    if len(edge.slots) != count:
        raise UserError(f"{where} of {edge.choice}: {len(edge.slots)} slots for {count} values. Give one each.")
    if min(edge.slots) < -1 or max(edge.slots) < 0 or min(edge.target, edge.source) < 0:
        raise UserError(
            f"{where}: {edge.target} from {edge.source} has slots {list(edge.slots)}. Count nodes and slots from 0, "
            "and give a slot, or -1 where the edge is off; leave out an edge that is always off."
        )


def check_genes_of_edges(network: Network, choices: Sequence[Choice], column: Callable[[str, int, int], int]) -> None:
    """Refuses a space by whose `column` the edges of graphs leave genes of their operations unread.

    Raises:
        UserError: They do, so that edges would share genes, and others would mean nothing.
    """
    read: dict[str, set[int]] = defaultdict(set)
    for stack in (stack for stack in network.stacks if stack.edges):
        for name in stack.choices:
            slots = {slot for edge in stack.edges for slot in edge.slots if slot >= 0}
            read[name].update(column(name, stack.group, slot) for slot in slots)
    for choice in choices:
        if 0 < len(read[choice.name]) < choice.repeats:
            raise UserError(
                f"network: edges read {len(read[choice.name])} of the {choice.repeats} genes of {choice.name}. Let the "
                "space's method `column` give each slot its gene, or give the choice fewer `repeats`."
            )


def _text(values: Values) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
