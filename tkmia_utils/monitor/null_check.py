"""How often a monitor rings where nothing has changed, measured.

Three simulations, and what each can show:

- ``uniform``: p-values are drawn as what they are on exchangeable streams, independent and uniform.
  The exact law of a single detector for any data, as long as one likes; it shows that bets and
  threshold do what the theorem says, and nothing about the values or the ranks.
- ``redrawn``: calibration *and* stream are drawn with replacement from the calibration images, all
  detectors on the same images. Such streams are exchangeable (independent draws from one
  distribution that happens to be discrete), and as long as one likes. It shows the ranks, the ties
  and the dependence between watches. It would be wrong to keep the calibration as it is and draw
  the stream alone from it: then every image of the stream has its double in the calibration.
- ``permuted``: half of the calibration images stand as they are, the rest in a new order is the
  stream; no image comes twice. Short: a run length of 10,000 cannot be seen in 250 images, only
  that alarms are as rare as ``length / (2 arl)``.

None can show that tomorrow's images are exchangeable with the calibration, which is the one thing
the guarantee rests on: all three make streams that are. Look for duplicates and for drift.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from tkmia_utils.monitor.conformal import Array
from tkmia_utils.monitor.evidence import Bets
from tkmia_utils.monitor.streams import alarm_times, null_times, run_length, stream_p_values


def null_check(
    values: Array,
    bets: Sequence[Bets],
    limits: Array,
    names: Sequence[str],
    *,
    arl: float,
    streams: int,
    length: int,
    seed: int,
) -> pd.DataFrame:
    """Simulate streams without a change.

    Parameters
    ----------
    values : numpy.ndarray
        float64 ``(n, D)``: the ranked calibration values of D detectors, NaN where not seen.
    bets, limits, names
        Of every detector.
    arl : float
        Nominal run length of all together.
    streams, length : int
        How many, and how many images each; the permuted ones have at most n / 2.
    seed : int
        Of all that is drawn.

    Returns
    -------
    pandas.DataFrame
        A row for every detector (``uniform``) and, with two ranked images or more, two for all
        together: ``simulation, detector, nominal, length``, ``bound`` (on the share of streams with
        an alarm, by theorem) and the columns of :func:`tkmia_utils.monitor.streams.run_length`.
    """
    rng = np.random.Generator(np.random.Philox(key=seed))
    rows: list[dict[str, object]] = []

    def note(simulation: str, detector: str, nominal: float, images: int, times: Array) -> None:
        # of one detector P(alarm in m) <= m / c; of several, whose c are 2 arl / w, m / (2 arl)
        bound = images / (2 * nominal if detector == "all" and len(bets) > 1 else nominal)
        about = {"simulation": simulation, "detector": detector, "nominal": nominal}
        measured = run_length(times, images)
        rows.append(about | {"length": images, "bound": min(1.0, bound)} | measured)

    for name, bet, limit in zip(names, bets, limits, strict=True):
        times = null_times(bet, limit, streams=streams, length=length, rng=rng)
        note("uniform", name, float(limit), length, times)

    def together(before: list[Array], after: list[Array]) -> Array:
        first = np.full(streams, np.inf)
        for i, (bet, limit) in enumerate(zip(bets, limits, strict=True)):
            p = stream_p_values(before[i], after[i], rng)
            times = alarm_times(p, bet, limit, seen=~np.isnan(after[i]))
            first = np.minimum(first, times)
        return first

    n, every = len(values), range(len(bets))
    if n >= 2:
        past, now = rng.integers(n, size=(streams, n)), rng.integers(n, size=(streams, length))
        times = together([values[past, i] for i in every], [values[now, i] for i in every])
        note("redrawn", "all", arl, length, times)
        order, half = rng.permuted(np.tile(np.arange(n), (streams, 1)), axis=1), n // 2
        now = order[:, half : half + min(length, n - half)]
        past = order[:, :half]
        times = together([values[past, i] for i in every], [values[now, i] for i in every])
        note("permuted", "all", arl, now.shape[1], times)
    return pd.DataFrame(rows)
