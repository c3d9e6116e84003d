"""Which architectures win: budgets, searchers, the archive, the loop and the Pareto front. NumPy only."""

from search.archive import Archive
from search.budget import Budget, CostFunction, Costs, Limit, ResolvedBudget
from search.evolution import Evolution
from search.evopress import EvoPress
from search.halving import EvaluatePart
from search.hypervolume import archive_hypervolume, hypervolume
from search.linas import LINAS
from search.local import LocalSearch
from search.loop import Evaluate, Progress, run_search
from search.nsga2 import NSGA2
from search.pareto import best, pareto_front, pareto_summary, write_pareto
from search.random_search import RandomSearch
from search.regularized_evolution import RegularizedEvolution
from search.searcher import SEARCHERS, Searcher, SearchState

__all__ = [
    "LINAS",
    "NSGA2",
    "SEARCHERS",
    "Archive",
    "Budget",
    "CostFunction",
    "Costs",
    "Evaluate",
    "EvaluatePart",
    "EvoPress",
    "Evolution",
    "Limit",
    "LocalSearch",
    "Progress",
    "RandomSearch",
    "RegularizedEvolution",
    "ResolvedBudget",
    "SearchState",
    "Searcher",
    "archive_hypervolume",
    "best",
    "hypervolume",
    "pareto_front",
    "pareto_summary",
    "run_search",
    "write_pareto",
]
