"""When has an attack kept its promise? The labels are hidden, and no measure has fallen."""

from tkmia_utils.condition.conditions import Condition, DeepCondition, condition
from tkmia_utils.condition.gaps import (
    asked,
    gaps,
    holds,
    margin,
    worst_pair,
)
from tkmia_utils.condition.patterns import EXACT_K, least_patterns
from tkmia_utils.condition.stop import STOPS, Stop, as_stop

__all__ = [
    "EXACT_K", "STOPS", "Condition", "DeepCondition", "Stop", "as_stop", "asked", "condition",
    "gaps", "holds", "least_patterns", "margin", "worst_pair",
]  # fmt: skip
