"""Which architectures win: budgets, searchers, the archive, the loop and the Pareto front. NumPy only."""

from search.archive import Archive
from search.budget import Budget, CostFunction, Costs, Limit, ResolvedBudget
from search.evolution import Evolution
from search.loop import Evaluate, Progress, run_search
from search.pareto import best, pareto_front, pareto_summary, write_pareto
from search.random_search import RandomSearch
from search.searcher import SEARCHERS, Searcher, SearchState

__all__ = [
    "SEARCHERS",
    "Archive",
    "Budget",
    "CostFunction",
    "Costs",
    "Evaluate",
    "Evolution",
    "Limit",
    "Progress",
    "RandomSearch",
    "ResolvedBudget",
    "SearchState",
    "Searcher",
    "best",
    "pareto_front",
    "pareto_summary",
    "run_search",
    "write_pareto",
]
