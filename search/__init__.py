"""Search for architectures: budgets, searchers, the archive, the loop and the Pareto front. NumPy only."""

from search.additive import Additive, Allocation, Allocator, best_by
from search.archive import Archive
from search.budget import Budget, CostFunction, Costs, Limit, ResolvedBudget
from search.dynamic_programming import DynamicProgramming
from search.evolution import Evolution
from search.evopress import EvoPress
from search.halving import EvaluatePart
from search.hypervolume import archive_hypervolume, hypervolume
from search.linas import LINAS
from search.local import LocalSearch
from search.loop import Evaluate, Progress, run_search
from search.mip import MIP
from search.nsga2 import NSGA2
from search.pareto import best, pareto_front, pareto_summary, write_pareto
from search.random_search import RandomSearch
from search.regularized_evolution import RegularizedEvolution
from search.searcher import SEARCHERS, Searcher, SearchState

__all__ = [
    "LINAS",
    "MIP",
    "NSGA2",
    "SEARCHERS",
    "Additive",
    "Allocation",
    "Allocator",
    "Archive",
    "Budget",
    "CostFunction",
    "Costs",
    "DynamicProgramming",
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
    "best_by",
    "hypervolume",
    "pareto_front",
    "pareto_summary",
    "run_search",
    "write_pareto",
]
