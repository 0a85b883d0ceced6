"""What a reader has tried since the kernel was started."""

from dataclasses import dataclass, field
from functools import cache

from tkmia_utils.course.exercise import Case
from tkmia_utils.course.verdict import Verdict


@dataclass
class Session:
    """What was checked, hinted and drawn.

    Attributes
    ----------
    verdicts : dict of str to list of Verdict
        By exercise, in the order of the tries.
    hinted : dict of str to int
        How many hints of an exercise were given.
    drawn : dict of str to Case
        The inputs that were drawn for an answer that is a value.
    """

    verdicts: dict[str, list[Verdict]] = field(default_factory=dict)
    hinted: dict[str, int] = field(default_factory=dict)
    drawn: dict[str, Case] = field(default_factory=dict)


@cache
def session() -> Session:
    """The one session of this process: made when it is first asked for, and kept."""
    return Session()
