"""The attacks, one file each, behind one small interface the engine drives.

A method owns what the engine need not know: how the optimised variables become an image and how
they take one step. The engine owns slots, success, limits and results.
"""

import inspect
from collections.abc import Callable

from tkmia_utils.attacks.base import VJP, Attack, AttackSpec, Iterate, State
from tkmia_utils.attacks.gmla import GMLA
from tkmia_utils.attacks.kfool import KFool
from tkmia_utils.attacks.ml_cw_u import MLCWU
from tkmia_utils.attacks.sign_steps import FGSM, PGD
from tkmia_utils.attacks.tkmia_min import MinimalTkMIA
from tkmia_utils.attacks.tkmia_variants import tkmia
from tkmia_utils.attacks.tkml_ap_u import TkMLAPU

ATTACKS: dict[str, Callable[..., Attack]] = {
    "tkmia": tkmia,
    "tkml_ap_u": TkMLAPU,
    "ml_cw_u": MLCWU,
    "kfool": KFool,
    "gmla": GMLA,
    "tkmia_min": MinimalTkMIA,
    "fgsm": FGSM,
    "pgd": PGD,
}

__all__ = ["ATTACKS", "VJP", "Attack", "AttackSpec", "Iterate", "State", "backward_passes", "build"]


def backward_passes(attack: Attack, k_max: int) -> int:
    """Backward passes of one iteration of an attack.

    Parameters
    ----------
    attack : Attack
        From :func:`build`, or one of your own.
    k_max : int
        The largest k of its queue.

    Returns
    -------
    int
    """
    passes = getattr(attack, "backward_passes", 1)
    return int(passes(k_max)) if callable(passes) else int(passes)


def build(method: str | Attack, *, scores: str | None = None, **options: object) -> Attack:
    """Make a method from its name and options; a ready-made method is passed through.

    Parameters
    ----------
    method : str or Attack
        A key of :data:`ATTACKS`, or an object with the interface of :class:`Attack`.
    scores : {"logits", "sigmoid"}, optional
        What the method's loss is taken of; None is the method's own choice. A method that only
        knows logits accepts "logits" and refuses the rest.
    **options
        Given to the method's constructor.

    Returns
    -------
    Attack

    Raises
    ------
    ValueError
        Unknown name, or an option the method does not have.
    """
    if not isinstance(method, str):
        if not callable(getattr(method, "step", None)):
            raise ValueError(f"method: expected a name or an Attack, got {method!r}")
        options |= {} if scores is None else {"scores": scores}
        if options:
            raise ValueError(f"method: a ready-made method takes no options, got {sorted(options)}")
        return method
    if method not in ATTACKS:
        raise ValueError(f"method: expected one of {sorted(ATTACKS)}, got {method!r}")
    accepted = inspect.signature(ATTACKS[method]).parameters
    if scores not in (None, "logits") and "scores" not in accepted:
        raise ValueError(f"scores: method {method!r} knows logits alone, got {scores!r}")
    if scores is not None and "scores" in accepted:
        options |= {"scores": scores}
    unknown = sorted(set(options) - set(accepted))
    if unknown:
        raise ValueError(f"{unknown[0]}: method {method!r} takes {sorted(accepted)}, not this")
    return ATTACKS[method](**options)
