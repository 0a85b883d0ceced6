"""What a check answers, as a value and as a reader of a notebook sees it."""

from dataclasses import dataclass

BLANK, WRONG, RIGHT = STATUSES = ("not attempted", "wrong", "right")
_MARKS = {BLANK: "○", WRONG: "✗", RIGHT: "✓"}


@dataclass(frozen=True, repr=False)
class Verdict:
    """The answer of a check.

    Attributes
    ----------
    exercise : str
        Its name.
    status : {"not attempted", "wrong", "right"}
        What became of it.
    message : str
        One or two sentences for the student.
    points : float
        Points reached: all or none.
    of : float
        Points there are.
    seed : int or None
        Of the random inputs, to see the same ones again; None for an answer that is a value.
    """

    exercise: str
    status: str
    message: str
    points: float
    of: float
    seed: int | None = None

    def __repr__(self) -> str:
        """One line of text."""
        mark = _MARKS[self.status]
        score = f"({self.points:g} of {self.of:g} points)"
        return f"{mark} {self.exercise}: {self.status} {score}. {self.message}"

    def _repr_markdown_(self) -> str:
        """The same for a notebook, where backslashes and the like stay as they are."""
        mark, score = _MARKS[self.status], f"{self.points:g} of {self.of:g} points"
        return f"{mark} **{self.exercise}: {self.status}** ({score}). {escaped(self.message)}"


class Text(str):
    """A text that a notebook shows as it is, without quotes."""

    def __repr__(self) -> str:
        """The text itself."""
        return str(self)


def escaped(text: str) -> str:
    """Text with the signs that mean something in Markdown taken literally."""
    return "".join("\\" + sign if sign in "\\`*_[]<>|$#~" else sign for sign in text)
