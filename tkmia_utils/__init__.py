"""TkMIA Lab: attacks on top-k multi-label classifiers that the usual measures do not see."""

from tkmia_utils.engine.advice import AttackWarning
from tkmia_utils.engine.loop import attack
from tkmia_utils.engine.result import AttackResult
from tkmia_utils.engine.runtime import Runtime
from tkmia_utils.experiments.selection import choose_specified

__version__ = "0.1.0"
__all__ = [
    "AttackResult", "AttackWarning", "Runtime", "__version__", "attack", "choose_specified",
    "compare",
]  # fmt: skip


def __getattr__(name: str) -> object:
    """Bring in :func:`compare` when it is asked for: figures take a while to load."""
    if name == "compare":
        from tkmia_utils.report.compare_attacks import compare

        return compare
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
