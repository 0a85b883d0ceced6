"""TkMIA Lab: attacks on top-k multi-label classifiers that the usual measures do not see."""

from tkmia_utils.engine.advice import AttackWarning
from tkmia_utils.engine.loop import attack
from tkmia_utils.engine.result import AttackResult
from tkmia_utils.engine.runtime import Runtime

__version__ = "0.1.0"
__all__ = ["AttackResult", "AttackWarning", "Runtime", "__version__", "attack"]
