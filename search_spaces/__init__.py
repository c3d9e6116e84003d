"""Search spaces: choices of a network, its description and its costs. NumPy only."""

from search_spaces.architecture import Architecture
from search_spaces.choice import Choice
from search_spaces.cost import Cost, CostModel, Term
from search_spaces.darts import DARTSSpace
from search_spaces.encoder import EncoderSpace
from search_spaces.errors import UserError, did_you_mean
from search_spaces.families import FAMILIES, build_space
from search_spaces.language import LanguageSpace
from search_spaces.language_form import LanguageForm
from search_spaces.mobilenet import MobileNetSpace
from search_spaces.nas_bench_201 import NASBench201Space
from search_spaces.predictor import PREDICTORS, Predictor, cross_validated_tau
from search_spaces.registry import Registry
from search_spaces.space import Genes, Program, SearchSpace
from search_spaces.translation import TranslationSpace
from search_spaces.vit import ViTSpace

__all__ = [
    "FAMILIES",
    "PREDICTORS",
    "Architecture",
    "Choice",
    "Cost",
    "CostModel",
    "DARTSSpace",
    "EncoderSpace",
    "Genes",
    "LanguageForm",
    "LanguageSpace",
    "MobileNetSpace",
    "NASBench201Space",
    "Predictor",
    "Program",
    "Registry",
    "SearchSpace",
    "Term",
    "TranslationSpace",
    "UserError",
    "ViTSpace",
    "build_space",
    "cross_validated_tau",
    "did_you_mean",
]
