"""What has to hold before an attack may stop, beside the specified labels being hidden."""

from dataclasses import dataclass

from tkmia_utils.measures import MEASURES
from tkmia_utils.validation import is_int, is_number


@dataclass(frozen=True, kw_only=True)
class Stop:
    """What must hold of the scores of an image on which the specified labels are hidden.

    The last two are what an attacker adds who knows that the owner watches, without labels, the gap
    below the top k and the labels that just miss it (:mod:`tkmia_utils.monitor.watches`).

    Attributes
    ----------
    measures : tuple of str
        Keys of :data:`tkmia_utils.measures.MEASURES`: they must not be lower than they were on the
        clean image. None: it is enough that the labels are hidden, as in the paper.
    tolerance : float
        A measure may fall by so much, >= 0.
    gap : float
        ``f_[k] - f_[k+1]`` must be at least this share of what it was on the clean image, >= 0; 0
        asks for nothing. In logits: of their sigmoids the gap may still be another.
    below : int
        The labels must be hidden from the top ``k + below``, >= 0.

    Raises
    ------
    ValueError
        An unknown measure, a tolerance or gap that is no finite number >= 0, or a `below` that is
        no int >= 0.
    """

    measures: tuple[str, ...] = ()
    tolerance: float = 0.0
    gap: float = 0.0
    below: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        given = self.measures if isinstance(self.measures, tuple | list) else (self.measures,)
        unknown = [n for n in given if not isinstance(n, str) or n not in MEASURES]
        if unknown:
            raise ValueError(f"measures: expected some of {list(MEASURES)}, got {unknown[0]!r}")
        object.__setattr__(self, "measures", tuple(name for name in MEASURES if name in given))
        if not is_number(self.tolerance) or not 0 <= self.tolerance < float("inf"):
            raise ValueError(f"tolerance: expected a number >= 0, got {self.tolerance!r}")
        if not is_number(self.gap) or not 0 <= self.gap < float("inf"):
            raise ValueError(f"gap: expected a finite number >= 0, got {self.gap!r}")
        object.__setattr__(self, "gap", float(self.gap))
        if not is_int(self.below) or self.below < 0:
            raise ValueError(f"below: expected an int >= 0, got {self.below!r}")

    @property
    def compares(self) -> bool:
        """Does it look back at the clean scores?"""
        return bool(self.measures) or self.gap > 0

    @property
    def deep(self) -> bool:
        """Does it ask for a gap, or for labels that are hidden from more than the top k?"""
        return self.gap > 0 or self.below > 0


STOPS = {
    "excluded": Stop(),
    "refilled": Stop(measures=("P@k",)),
    "imperceptible": Stop(measures=tuple(MEASURES)),
}
"""By name: S is out; its places in the top k are taken by relevant labels; no measure fell."""


def as_stop(stop: str | Stop) -> Stop:
    """Look a stop up by its name; a :class:`Stop` is passed through.

    Raises
    ------
    ValueError
        Neither a :class:`Stop` nor the name of one.
    """
    if isinstance(stop, Stop):
        return stop
    if not isinstance(stop, str) or stop not in STOPS:
        raise ValueError(f"stop: expected one of {list(STOPS)} or a Stop, got {stop!r}")
    return STOPS[stop]
