"""Promises of the smoothed classifier: its votes, its certificate, and the attack beside it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import ndtr, ndtri
from scipy.stats import binom
from torch import nn

from tkmia_utils.defence.certificate import (
    certified_radius,
    choose_contests,
    contest_radius,
    lower_bound,
    tail_counts,
)
from tkmia_utils.defence.smoothed_attack import (
    SmoothedAttack,
    SoftVotes,
    out_p_value,
    smoothed_norm,
)
from tkmia_utils.defence.smoothing import (
    Smoothing,
    ballots,
    smoothed_top_k,
    vote_shares,
    votes,
)

CHANCE = 1e-4  # a test of chance fails this rarely when the promise holds


class Strips(nn.Module):
    """Votes that depend on one pixel: between two edges, a fixed set of labels.

    With Gaussian noise every share is a difference of normal distribution functions, and all its
    level sets are parallel half-spaces, for which the certificate's lemma is an equality.
    """

    def __init__(self, edges: np.ndarray, sets: list[tuple[int, ...]], classes: int) -> None:
        super().__init__()
        self.edges, self.classes, self.sets = np.asarray(edges), classes, sets
        table = torch.zeros(len(sets), classes)
        for row, members in enumerate(sets):
            table[row, list(members)] = 1.0
        self.table = table
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.table[torch.bucketize(x[:, 0, 0, 0].double(), torch.from_numpy(self.edges))]

    def strips(self, at: float, sigma: float) -> np.ndarray:
        """Probability of every strip, with the pixel at `at`."""
        cuts = np.concatenate([[-np.inf], self.edges, [np.inf]])
        return np.diff(ndtr((cuts - at) / sigma))

    def shares(self, at: float, sigma: float) -> np.ndarray:
        return self.strips(at, sigma) @ self.table.numpy().astype(float)

    def above(self, at: float, sigma: float, s: int) -> np.ndarray:
        """Which labels have strictly more votes than s, rounding aside."""
        shares = self.shares(at, sigma)
        return shares > shares[s] + 1e-12

    def tails(self, sigma: float, s: int, rivals: list[int], places: int) -> np.ndarray:
        """P(g >= t) with the pixel at 0."""
        table = self.table.numpy().astype(bool)
        counts = [tail_counts(row[None, s], row[None, rivals].sum(1), places) for row in table]
        return np.minimum(self.strips(0.0, sigma) @ np.array(counts, dtype=float), 1.0)

    def distance(self, sigma: float, s: int, k: int) -> float:
        """Least shift of the pixel, from 0, that puts s out of the smoothed top k."""
        for d in np.linspace(0, 8 * sigma, 4001):
            if any(self.above(sign * d, sigma, s).sum() >= k for sign in (1, -1)):
                return float(d)
        return np.inf

    def draw(self, n: int, sigma: float, source: np.random.Generator) -> torch.Tensor:
        """Votes of n noisy copies, the pixel at 0."""
        rows = np.searchsorted(self.edges, sigma * source.normal(size=n))
        return self.table[torch.from_numpy(rows)].bool()


def random_strips(seed: int, *, classes: int = 6, k: int = 2, strips: int = 7) -> Strips:
    source = np.random.default_rng(seed)
    edges = np.sort(source.normal(size=strips - 1))
    sets = [tuple(source.choice(classes, k, replace=False).tolist()) for _ in range(strips)]
    return Strips(edges, sets, classes)


def small_net(seed: int, classes: int = 6) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Flatten(), nn.Linear(48, 32), nn.Tanh(), nn.Linear(32, classes))
        for p in net.parameters():
            p.data.mul_(4)
    return net.eval()


def some_images(n: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, 3, 4, 4, generator=torch.Generator().manual_seed(seed))


# --- votes ------------------------------------------------------------------------------------


def test_a_draw_votes_for_k_labels_and_a_tie_goes_to_the_lower_index():
    logits = torch.tensor([[1.0, 2.0, 2.0, 2.0], [0.0, 0.0, 0.0, 0.0]])
    assert ballots(logits, 2).tolist() == [
        [False, True, True, False],
        [True, True, False, False],
    ]


def test_the_noise_of_an_image_depends_on_seed_and_name_alone():
    smoothing = Smoothing(sigma=0.3, draws=30, choosing=10)
    net, x, ids = small_net(0), some_images(3), ["a", "b", "c"]
    k = torch.tensor([1, 2, 3])
    together = votes(net, x, ids=ids, k=k, smoothing=smoothing)
    alone = votes(net, x[1:2], ids=["b"], k=2, smoothing=smoothing, batch=7)
    assert torch.equal(alone[0], together[1])
    assert together.sum(-1).unique(dim=1).flatten().tolist() == [1, 2, 3]
    other = votes(net, x, ids=ids, k=k, smoothing=replace(smoothing, seed=1))
    renamed = votes(net, x, ids=["d", "e", "f"], k=k, smoothing=smoothing)
    assert not torch.equal(other, together) and not torch.equal(renamed, together)


def test_the_noise_has_the_asked_deviation_and_is_not_clipped():
    seen = []

    class Recording(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x.clone())
            return x.flatten(1)[:, :4]

    smoothing = Smoothing(sigma=0.5, draws=400, choosing=10)
    votes(Recording().eval(), torch.ones(1, 3, 4, 4), ids=["a"], k=1, smoothing=smoothing)
    noise = torch.cat(seen) - 1  # 19 200 numbers
    assert abs(float(noise.std()) - 0.5) < 0.5 * 4 / (2 * noise.numel()) ** 0.5
    assert abs(float(noise.mean())) < 0.5 * 4 / noise.numel() ** 0.5
    assert float(noise.max()) > 0.5


def test_shares_sum_to_k_and_a_tie_counts_for_the_label():
    rows = torch.tensor([[[1, 1, 0, 0], [1, 0, 1, 0]]]).bool()
    assert vote_shares(rows).tolist() == [[1.0, 0.5, 0.5, 0.0]]
    assert smoothed_top_k(rows).tolist() == [[True, True, True, False]]


# --- the theorem ------------------------------------------------------------------------------


def test_a_duel_is_exact_for_parallel_half_spaces():
    sigma = 0.5
    model = Strips(np.array([-0.7, -0.2, 0.1]), [(1, 2), (2, 3), (0, 1), (0, 2)], 4)
    r = float(contest_radius(model.tails(sigma, 0, [1], 1), sigma=sigma))
    a, b = model.strips(0.0, sigma)[3], model.strips(0.0, sigma)[0]  # s alone, rival alone
    assert r == pytest.approx(sigma / 2 * (ndtri(a) - ndtri(b)))
    # strips of one alone, apart from those of both or neither: a worst case, and it is attained
    assert not model.above(-0.999 * r, sigma, 0)[1]
    worst = Strips(np.array([-0.7, 0.3]), [(1, 2), (2, 3), (0, 2)], 4)
    r = float(contest_radius(worst.tails(sigma, 0, [1], 1), sigma=sigma))
    assert not worst.above(-0.999 * r, sigma, 0)[1] and worst.above(-1.001 * r, sigma, 0)[1]


def test_a_group_is_exact_where_its_rivals_share_the_votes_and_beats_duels():
    # s and one of two rivals by a coin, or both rivals: p_s = p, and p_j = p / 2 + 1 - p for both
    p, sigma = 0.9, 0.3
    group = float(contest_radius([p, p, p, 0.0], sigma=sigma))  # g is 1 or -2
    assert group == pytest.approx(sigma * (ndtri(p) - ndtri(2 / 3)))
    for r, stays in ((0.999 * group, True), (1.001 * group, False)):
        own = ndtr(ndtri(p) - r / sigma)
        assert (own >= own / 2 + 1 - own) == stays
    assert group > 1.2 * contest_radius([p, p / 2], sigma=sigma)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_a_contest_with_all_others_is_the_rule_of_the_sum(k):
    p, sigma = 0.97, 0.25
    tails = [p] * (k + 1) + [0.0] * (k - 1)  # g is 1 or -k
    radius = float(contest_radius(tails, sigma=sigma))
    assert radius == pytest.approx(sigma * (ndtri(p) - ndtri(k / (k + 1))))


def test_a_duel_is_never_weaker_than_separate_bounds_on_both_labels():
    source = np.random.default_rng(0)
    a, b, both, _ = source.dirichlet(np.ones(4), size=500).T
    duel = contest_radius(np.stack([1 - b, a], -1), sigma=1.0)
    separate = np.maximum(0, (ndtri(a + both) - ndtri(b + both)) / 2)
    assert (duel >= separate - 1e-9).all()
    assert (duel > separate + 0.01).any()


def test_within_a_contest_s_radius_too_few_rivals_get_above():
    sigma, worth = 0.8, 0
    for seed in range(150):
        source, k = np.random.default_rng([seed, 1]), 1 + seed % 3
        model = random_strips(seed, k=k)
        s, *others = np.argsort(-model.shares(0.0, sigma)).tolist()
        rivals = source.permutation(others)[: source.integers(1, 6)].tolist()
        places = int(source.integers(1, min(k, len(rivals)) + 1))
        r = float(contest_radius(model.tails(sigma, s, rivals, places), sigma=sigma))
        if r > 0:  # at 0 nothing is said, not even of the image itself
            worth += 1
            for shift in np.linspace(-min(r, 10), min(r, 10), 41):
                assert model.above(shift, sigma, s)[rivals].sum() < places
    assert worth > 75


def test_degenerate_tails():
    assert contest_radius([1.0, 1.0], sigma=0.1) == np.inf  # always s alone
    assert contest_radius([1.0, 0.0], sigma=0.1) == np.inf  # never one without the other
    assert contest_radius([0.4, 0.3], sigma=0.1) == 0  # already behind


@pytest.mark.parametrize("seed", range(30))
def test_the_chosen_contests_prove_the_theorem(seed):
    source = np.random.default_rng(seed)
    k, classes = int(source.integers(1, 5)), 9
    logits = source.normal(size=(50, classes)) + 2 * source.normal(size=classes)
    rows = ballots(torch.from_numpy(logits), k).numpy()
    s = int(rows.sum(0).argmax())
    contests = choose_contests(rows, s, k, draws=500, alpha=0.01)
    named = [j for contest in contests for j in contest.rivals]
    assert len(set(named)) == len(named) and s not in named
    conceded = classes - 1 - len(named)
    assert conceded + sum(contest.places - 1 for contest in contests) <= k - 1
    assert all(len(contest.counted) == 2 * contest.places for contest in contests)


# --- confidence -------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0.05, 0.001])
def test_the_lower_bound_is_exact(level):
    n = 40
    x = np.arange(n + 1)
    bounds = lower_bound(x, n, level)
    assert bounds[0] == 0
    for p in (bounds[1:, None] + [[1e-9, -1e-9]]).flatten():
        wrong = binom.pmf(x, n, p)[bounds > p].sum()
        assert wrong <= level * (1 + 1e-6)
    # just below a bound the chance of that bound or a higher one is the level
    assert binom.sf(24, n, bounds[25]) == pytest.approx(level)


CASES = {
    "two labels": (Strips(np.array([-0.9]), [(1,), (0,)], 2), 1),
    "a duel": (Strips(np.array([-1.3, -0.9]), [(1, 2), (2, 3), (0, 2)], 5), 2),
    "many rivals": (Strips(np.array([-1.4, -1.0, 1.2]), [(1,), (2,), (0,), (3,)], 8), 1),
}


@pytest.mark.parametrize("case", CASES)
def test_a_certificate_is_wrong_at_most_as_often_as_alpha(case):
    model, k = CASES[case]
    smoothing, repeats = Smoothing(sigma=1.0, draws=150, choosing=50, alpha=0.1), 150
    source = np.random.default_rng(3)
    rows = torch.stack([model.draw(150, 1.0, source) for _ in range(repeats)])
    radii = certified_radius(rows, torch.zeros(repeats, dtype=torch.int64), smoothing=smoothing)
    truth = model.distance(1.0, 0, k)
    wrong = int((radii > truth).sum())
    assert wrong <= binom.isf(CHANCE, repeats, smoothing.alpha)
    assert float((radii > 0.3 * truth).double().mean()) > 0.5  # and it is worth something
    if case == "two labels":
        # a mutant that takes frequencies for probabilities is caught by the same count
        guessed = contest_radius(rows[:, :, :1].double().mean(1).expand(-1, 2), sigma=1.0)
        assert (guessed > truth).sum() > binom.isf(CHANCE, repeats, smoothing.alpha)


def test_nothing_is_certified_without_evidence():
    smoothing = Smoothing(draws=100, choosing=50)
    rows = torch.zeros(1, 100, 4, dtype=torch.bool)
    rows[:, ::2, 0] = rows[:, 1::2, 1] = True
    label = torch.tensor
    assert certified_radius(rows, label([0]), smoothing=smoothing).tolist() == [0]
    assert certified_radius(rows, label([3]), smoothing=smoothing).tolist() == [0]


def test_more_votes_certify_more_and_a_radius_is_in_units_of_sigma():
    source = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 500, 6, generator=source)
    radii = []
    for lead in (1.5, 3.0):
        logits[..., 2] += lead
        smoothing = Smoothing(sigma=0.1, draws=500, choosing=100)
        one = certified_radius(ballots(logits, 2), torch.tensor([2]), smoothing=smoothing)
        double = replace(smoothing, sigma=0.2)
        two = certified_radius(ballots(logits, 2), torch.tensor([2]), smoothing=double)
        assert two.item() == pytest.approx(2 * one.item())
        radii.append(one.item())
    assert 0 < radii[0] < radii[1]


# --- soundness under attack -------------------------------------------------------------------

ATTACKED = Smoothing(sigma=0.3, draws=2500, choosing=500, alpha=0.001)


def attacked_within(
    net: nn.Module, x: torch.Tensor, label: torch.Tensor, k: int, radius: torch.Tensor
) -> torch.Tensor:
    """Move images within their balls so that the label loses soft votes, by gradients (EOT)."""
    source = torch.Generator().manual_seed(7)
    ball = radius.float().reshape(-1, 1, 1, 1)
    moved = torch.zeros_like(x)

    def norms(v: torch.Tensor) -> torch.Tensor:
        return v.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1).clamp_min(1e-12)

    for step in range(40):
        noise = ATTACKED.sigma * torch.randn(100, 3, 4, 4, generator=source)
        soft = SoftVotes(net, noise, k, temperature=0.3)
        at = (x + moved).requires_grad_()
        scores = soft(at)
        own = scores.gather(1, label[:, None]).squeeze(1)
        rival = scores.scatter(1, label[:, None], -torch.inf).topk(k).values[:, -1]
        (gradient,) = torch.autograd.grad((own - rival).sum(), at)
        moved = moved - (0.5 if step < 20 else 0.1) * ball * gradient / norms(gradient)
        moved = moved * (ball / norms(moved)).clamp(max=1)
    return x + moved


@pytest.fixture(scope="module", params=[1, 2])
def certified(request) -> tuple:
    k, n = request.param, 12
    net, x = small_net(5), some_images(n, seed=2)
    label = net(x).argmax(1)
    ids = [str(i) for i in range(n)]
    rows = votes(net, x, ids=ids, k=k, smoothing=ATTACKED, batch=2500)
    return net, x, label, ids, k, rows


@pytest.mark.parametrize("mutant, sigma", [(False, 1.0), (True, 2.0)])
def test_no_attack_within_the_certified_radius_moves_the_label_out(certified, mutant, sigma):
    net, x, label, ids, k, rows = certified
    # the mutant believes in more noise than there was
    believed = replace(ATTACKED, sigma=sigma * ATTACKED.sigma)
    radius = certified_radius(rows, label, smoothing=believed)
    certain = radius > 0
    assert certain.sum() >= 4
    found = attacked_within(net, x, label, k, radius)
    reached = (found - x).flatten(1).norm(dim=1)
    assert (reached <= radius + 1e-5).all() and (reached[certain] > 0.9 * radius[certain]).all()
    judge = replace(ATTACKED, seed=99)
    seen = votes(net, found, ids=ids, k=k, smoothing=judge, batch=2500)
    broken = certain & (out_p_value(seen, label) <= CHANCE / len(x))
    assert (broken.sum() >= len(x) // 2) if mutant else not broken.any()


# --- the attack that looks for the least norm -------------------------------------------------


def test_soft_votes_approach_the_votes_and_have_a_gradient():
    net, x = small_net(1), some_images(2)
    noise = 0.3 * torch.randn(300, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    hard = ballots(net((x[:, None] + noise).flatten(0, 1)), 2).reshape(2, 300, -1)
    sharp = SoftVotes(net, noise, 2, temperature=1e-4)(x)
    assert torch.allclose(ndtr_of(sharp), vote_shares(hard).float(), atol=0.01)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(SoftVotes(net, noise, 2, temperature=0.5)(x)[:, 0].sum(), x)
    assert (gradient.flatten(1).norm(dim=1) > 0).all()


def ndtr_of(scores: torch.Tensor) -> torch.Tensor:
    return torch.special.ndtr(scores)


def test_the_test_for_being_out_is_valid_at_a_tie_and_sees_what_is_out():
    source = torch.Generator().manual_seed(0)
    ties = ballots(torch.randn(2000, 60, 3, generator=source), 1)  # all three have one third
    label = torch.zeros(2000, dtype=torch.int64)
    wrong = int((out_p_value(ties, label) <= 0.05).sum())
    assert wrong <= binom.isf(CHANCE, 2000, 0.05)
    clear = torch.zeros(1, 60, 4, dtype=torch.bool)
    clear[:, :, 1:3] = True
    assert out_p_value(clear, torch.tensor([0])).item() < 1e-9
    assert out_p_value(clear, torch.tensor([1])).item() == 1


def test_the_least_norm_is_above_the_certificate_and_near_the_truth_for_a_linear_model():
    # two logits, so that k = 1 and the border is a plane: its distance is known
    torch_source = torch.Generator().manual_seed(0)
    weight = torch.randn(48, generator=torch_source)
    weight /= weight.norm()
    x = 0.3 + 0.4 * some_images(4)
    away = torch.tensor([0.1, 0.15, 0.2, 0.25])
    x += (0.5 * weight.sum() + away - x.flatten(1) @ weight)[:, None].mul(weight).reshape(x.shape)
    assert 0 < float(x.min()) and float(x.max()) < 1

    class Plane(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            side = 20 * (x.flatten(1) - 0.5) @ weight
            return torch.stack([side, -side], 1)

    net, ids = Plane().eval(), list("abcd")
    label = torch.zeros(4, dtype=torch.int64)
    smoothing = Smoothing(sigma=0.2, draws=1000, choosing=100)
    radius = certified_radius(
        votes(net, x, ids=ids, k=1, smoothing=smoothing), label, smoothing=smoothing
    )
    norms, adversarial = smoothed_norm(
        net, x, torch.ones(4, 2, dtype=torch.bool), label, ids=ids, k=1, smoothing=smoothing,
        settings=SmoothedAttack(draws=64, max_iter=15, judged=1000),
    )  # fmt: skip
    assert (radius <= away).all() and (radius > 0.5 * away - 0.02).all()
    assert (norms >= radius).all() and (norms < 2 * away).all()
    assert torch.allclose((adversarial - x).flatten(1).norm(dim=1).double(), norms)


# --- bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind, settings, name",
    [
        (Smoothing, {"sigma": 0.0}, "sigma"),
        (Smoothing, {"draws": 1}, "draws"),
        (Smoothing, {"draws": 10, "choosing": 10}, "choosing"),
        (Smoothing, {"alpha": 1.0}, "alpha"),
        (Smoothing, {"seed": 0.5}, "seed"),
        (SmoothedAttack, {"draws": 0}, "draws"),
        (SmoothedAttack, {"temperature": 0}, "temperature"),
        (SmoothedAttack, {"margin": -1.0}, "margin"),
        (SmoothedAttack, {"level": 0}, "level"),
        (SmoothedAttack, {"scales": (1.0, 0.5)}, "scales"),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(kind, settings, name):
    with pytest.raises(ValueError, match=f"^{name}: "):
        kind(**settings)


def test_bad_input_is_refused_by_name():
    net, x = small_net(0), some_images(2)
    smoothing = Smoothing(draws=10, choosing=5)
    with pytest.raises(ValueError, match=r"^ids: "):
        votes(net, x, ids=["a"], k=1, smoothing=smoothing)
    with pytest.raises(ValueError, match=r"^k: "):
        votes(net, x, ids=["a", "b"], k=7, smoothing=smoothing)
    with pytest.raises(ValueError, match=r"^images: "):
        votes(net, x[0], ids=["a", "b", "c"], k=1, smoothing=smoothing)
    with pytest.raises(ValueError, match=r"^model: "):
        votes(small_net(0).train(), x, ids=["a", "b"], k=1, smoothing=smoothing)
    with pytest.raises(ValueError, match=r"^model: NaN"):
        votes(net, x * torch.nan, ids=["a", "b"], k=1, smoothing=smoothing)
    rows = votes(net, x, ids=["a", "b"], k=1, smoothing=smoothing)
    label = torch.tensor([0, 1])
    with pytest.raises(ValueError, match=r"^votes: expected 11 draws"):
        certified_radius(rows, label, smoothing=replace(smoothing, draws=11))
    with pytest.raises(ValueError, match=r"^label: "):
        certified_radius(rows, label.float(), smoothing=smoothing)
    with pytest.raises(ValueError, match=r"^label: "):
        certified_radius(rows, label + 5, smoothing=smoothing)
    rows[0, 0] = True
    with pytest.raises(ValueError, match=r"^votes: the draws"):
        certified_radius(rows, label, smoothing=smoothing)
