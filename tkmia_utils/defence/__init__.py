"""The owner's side of the victim: what makes it harder to attack, and what can be proved of it."""

from tkmia_utils.defence.certificate import certified_radius
from tkmia_utils.defence.hardening import Hardening, harden
from tkmia_utils.defence.second_look import MeanScores, second_scores
from tkmia_utils.defence.smoothed_attack import SmoothedAttack, smoothed_norm
from tkmia_utils.defence.smoothing import Smoothing, smoothed_top_k, votes
from tkmia_utils.defence.transformations import TRANSFORMATIONS, Defended, Transformation

__all__ = [
    "TRANSFORMATIONS",
    "Defended",
    "Hardening",
    "MeanScores",
    "SmoothedAttack",
    "Smoothing",
    "Transformation",
    "certified_radius",
    "harden",
    "second_scores",
    "smoothed_norm",
    "smoothed_top_k",
    "votes",
]
