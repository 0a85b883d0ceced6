"""What has to hold before an attack may stop, beside the specified labels being hidden."""

from dataclasses import dataclass

from tkmia_utils.measures import MEASURES
from tkmia_utils.validation import is_number


@dataclass(frozen=True, kw_only=True)
class Stop:
    """Measures that must not be lower than they were on the clean image.

    Attributes
    ----------
    measures : tuple of str
        Keys of :data:`tkmia_utils.measures.MEASURES`; none: it is enough that the labels are
        hidden, as in the paper.
    tolerance : float
        A measure may fall by so much, >= 0.

    Raises
    ------
    ValueError
        An unknown measure, or a tolerance that is no number >= 0.
    """

    measures: tuple[str, ...] = ()
    tolerance: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        given = self.measures if isinstance(self.measures, tuple | list) else (self.measures,)
        unknown = [n for n in given if not isinstance(n, str) or n not in MEASURES]
        if unknown:
            raise ValueError(f"measures: expected some of {list(MEASURES)}, got {unknown[0]!r}")
        object.__setattr__(self, "measures", tuple(name for name in MEASURES if name in given))
        if not is_number(self.tolerance) or not 0 <= self.tolerance < float("inf"):
            raise ValueError(f"tolerance: expected a number >= 0, got {self.tolerance!r}")


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
