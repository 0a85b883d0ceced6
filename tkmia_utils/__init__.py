"""TkMIA Lab: attacks on top-k multi-label classifiers that the usual measures do not see."""

from tkmia_utils.engine import AttackResult, attack

__version__ = "0.1.0"
__all__ = ["AttackResult", "__version__", "attack"]
