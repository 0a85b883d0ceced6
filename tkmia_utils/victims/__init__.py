"""The classifiers that are attacked: architectures, recipes, training, files."""

from tkmia_utils.victims.prediction import evaluate, predict
from tkmia_utils.victims.recipes import RECIPES, Recipe, recipe
from tkmia_utils.victims.store import Victim, fingerprint, load, load_or_train, save, train

__all__ = [
    "RECIPES",
    "Recipe",
    "Victim",
    "evaluate",
    "fingerprint",
    "load",
    "load_or_train",
    "predict",
    "recipe",
    "save",
    "train",
]
