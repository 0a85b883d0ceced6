"""Conformal p-values of a stream: where each value stands among all that came before it.

With ``n`` values seen (calibration, then the past of the stream), the p-value of the next one, x,
is ``p = (#{seen < x} + u (#{seen = x} + 1)) / (n + 1)`` with u uniform on [0, 1): small where x is
low. A watch that is suspicious on the high side gives its values with the other sign.

What is exact (Vovk, Gammerman and Shafer, *Algorithmic Learning in a Random World*, theorem 8.1 of
the first edition): if calibration and stream together are exchangeable, p_1, p_2, ... are
independent and uniform, for any n, zero included, and any ties. Three things make it so and must
not be "improved":

- the seen values grow with the stream. Against a fixed calibration set each p-value is uniform,
  but they are not independent, and a detector rings as often as that set happens to be unlucky;
- u is fresh for every image, and not shared by equal values;
- whatever bets on p_t knows p_1, ..., p_{t-1} and not the values. Given the calibration values, or
  the p-values of *another* watch, p_t is in general not uniform: see :mod:`.evidence`.
"""

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
_CHUNK = 256  # images whose mutual order is counted at once; of no influence on any result


def uniforms(seed: int, first: int, images: int, rows: int) -> Array:
    """Uniforms of the stream's images ``first, first + 1, ...``: a function of seed and position.

    Philox is a generator by counter: the number at a position does not depend on where one begins
    to draw, so neither batches nor a break in between change it.

    Parameters
    ----------
    seed : int
        Not negative.
    first : int
        Position of the first image in the stream.
    images, rows : int
        How many images, and how many numbers an image.

    Returns
    -------
    numpy.ndarray
        float64 ``(images, rows)`` in [0, 1).
    """
    blocks = max(1, -(-rows // 4))  # a step of the counter gives four numbers
    source = np.random.Philox(key=seed, counter=first * blocks)
    drawn: Array = np.random.Generator(source).random(images * blocks * 4)
    return drawn.reshape(images, blocks * 4)[:, :rows]


def smoothed(less: Counts, equal: Counts, seen: Counts | int, u: Array) -> Array:
    """The p-value of a value by its place: ``(less + u (equal + 1)) / (seen + 1)``."""
    return np.asarray((less + u * (equal + 1)) / (seen + 1))


class Reference:
    """All values seen so far, in order.

    Parameters
    ----------
    values : numpy.ndarray
        float64 ``(n,)``, finite: the calibration values; n may be 0.
    """

    def __init__(self, values: Array) -> None:
        self.values: Array = np.sort(np.asarray(values, dtype=np.float64))

    def __len__(self) -> int:
        """How many values were seen."""
        return len(self.values)

    def p_values(self, values: Array, u: Array) -> Array:
        """P-values of new values, each against all before it; then they count as seen.

        Parameters
        ----------
        values, u : numpy.ndarray
            float64 ``(m,)`` each, in the order of the stream.

        Returns
        -------
        numpy.ndarray
            float64 ``(m,)``, the same to the bit however the stream is cut into calls.
        """
        found = np.empty(len(values))
        for start in range(0, len(values), _CHUNK):
            part = np.asarray(values[start : start + _CHUNK], dtype=np.float64)
            left = np.searchsorted(self.values, part, side="left")
            right = np.searchsorted(self.values, part, side="right")
            before = np.tri(len(part), k=-1, dtype=bool)  # the chunk's own images come in turn
            less = left + (before & (part < part[:, None])).sum(1)
            equal = right - left + (before & (part == part[:, None])).sum(1)
            seen = len(self.values) + np.arange(len(part))
            found[start : start + len(part)] = smoothed(less, equal, seen, u[start:][: len(part)])
            order = np.argsort(part, kind="stable")
            self.values = np.insert(self.values, right[order], part[order])
        return found


class Places:
    """Counts of many streams at once: how many seen values are below and equal, stream by stream.

    A Fenwick tree a stream over the levels that occur; a step costs log2(levels) operations on
    vectors over the streams.

    Parameters
    ----------
    level : numpy.ndarray
        int64 ``(S, n)``: levels of the calibration values, numbered from 0 in ascending order.
    counts : numpy.ndarray
        Bool ``(S, n)``: which of them count.
    levels : int
        How many levels there are.
    """

    def __init__(self, level: Counts, counts: Mask, *, levels: int) -> None:
        streams = len(level)
        self.rows = np.arange(streams)
        self.seen: Counts = counts.sum(1)
        self.equal: Counts = np.zeros((streams, levels), dtype=np.int64)
        np.add.at(self.equal, (self.rows[:, None], level), counts)
        # tree[:, i] holds the sum of levels i - lowbit(i) to i - 1
        below = np.zeros((streams, levels + 1), dtype=np.int64)
        below[:, 1:] = self.equal.cumsum(1)
        at = np.arange(levels + 1)
        self.tree: Counts = below - below[:, at - (at & -at)]

    def p_values(self, level: Counts, counts: Mask, u: Array) -> Array:
        """P-values of the next image of every stream, ``(S,)``; then it is seen if it counts."""
        less, at = np.zeros(len(level), dtype=np.int64), level.copy()
        while at.any():
            less += self.tree[self.rows, at]  # tree[:, 0] is 0
            at &= np.maximum(at - 1, 0)
        found = smoothed(less, self.equal[self.rows, level], self.seen, u)
        rows, at = self.rows[counts], level[counts]
        self.equal[rows, at] += 1
        self.seen[rows] += 1
        at = at + 1
        while len(at):
            self.tree[rows, at] += 1
            at = at + (at & -at)
            inside = at < self.tree.shape[1]
            rows, at = rows[inside], at[inside]
        return found
