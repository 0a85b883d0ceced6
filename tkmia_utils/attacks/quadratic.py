"""Small quadratic programmes, one a row, solved side by side in a fixed number of operations.

The shortest step d with ``G d >= r`` is ``G' l`` for the l >= 0 that maximises
``r' l - l' H l / 2``, where ``H = G G'`` is the Gram matrix. There are as many multipliers as
constraints, however many pixels d has.
"""

import torch

FLAT = 1e-24  # a squared gradient below this is none: no step along it can change a score


def least_norm_multipliers(
    gram: torch.Tensor,
    wanted: torch.Tensor,
    counts: torch.Tensor,
    start: torch.Tensor,
    *,
    sweeps: int,
    reach: float,
) -> torch.Tensor:
    """Multipliers l >= 0 of the shortest step that meets ``H l >= r``; nothing is checked.

    Dual coordinate ascent (Hildreth): ``l_m <- max(0, l_m + (r - H l)_m / H_mm)``, one m after the
    other. Every operation is elementwise along the rows, so that a row's result depends on that
    row alone. No step may be longer than `reach`, so that a programme without a solution stays
    finite.

    Parameters
    ----------
    gram : torch.Tensor
        float64 ``(B, M, M)``: H, positive semidefinite.
    wanted : torch.Tensor
        float64 ``(B, M)``: r.
    counts : torch.Tensor
        Bool ``(B, M)``: which constraints there are; the others get l = 0.
    start : torch.Tensor
        float64 ``(B, M)``: where to begin; not negative.
    sweeps : int
        How often each multiplier is set anew.
    reach : float
        Longest step along one gradient.

    Returns
    -------
    torch.Tensor
        float64 ``(B, M)``.
    """
    square = gram.diagonal(dim1=1, dim2=2)
    counts = counts & (square > FLAT)
    inverse = torch.where(counts, 1 / square, 0.0)
    most = reach * inverse.sqrt()
    multipliers = torch.where(counts, torch.minimum(start, most), 0.0)
    # multiplier first, so that what one coordinate needs lies together
    rows = gram.permute(1, 2, 0).contiguous()
    slack = (wanted - (gram * multipliers[:, None]).sum(-1)).T.contiguous()
    value, inverse, most = (x.T.contiguous() for x in (multipliers, inverse, most))
    parts = list(zip(value.unbind(0), slack.unbind(0), inverse.unbind(0), most.unbind(0),
                     rows.unbind(0), strict=True))  # fmt: skip
    for _ in range(sweeps):
        for old, short, per, cap, row in parts:
            new = torch.addcmul(old, short, per).clamp_(min=0)
            new = torch.minimum(new, cap, out=new)
            change = old.sub_(new)
            slack.addcmul_(row, change)
            old.copy_(new)
    return value.T.contiguous()
