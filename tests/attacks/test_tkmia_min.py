"""Promises of the minimal-norm attack: near the optimum, on the lattice, each row on its own."""

import itertools
from dataclasses import fields

import numpy as np
import pytest
import torch
from scipy.optimize import LinearConstraint, minimize
from test_engine import linear_victim, minimal_norm, net, task

from tkmia_utils.attacks import AttackSpec, Iterate
from tkmia_utils.attacks.quadratic import least_norm_multipliers
from tkmia_utils.attacks.tkmia_min import MinimalTkMIA
from tkmia_utils.condition import Stop, condition, holds
from tkmia_utils.experiments.optimality import least_distance


def drive(
    model, images, labels, specified, k, *, steps, stop="imperceptible", bits=None, **options
):
    """Best norm in [0, 1] pixels and last image, by the smallest loop there is."""
    n, method = len(images), MinimalTkMIA(**options)
    clean = model(images).detach()
    asked = condition(clean, labels, specified, k, stop=stop)
    some, whole = torch.ones(n), torch.full((n,), k)
    rows = AttackSpec(labels, specified, whole, specified.sum(1), whole, some, some, some, k_max=k)
    state, best = method.begin(images), torch.full((n,), torch.inf)
    for _ in range(steps):
        x = method.image(images, state).detach().requires_grad_()
        logits = model(x)
        met = holds(logits.detach(), asked)
        norm = method.norm(images, x.detach(), state) / 2
        best = torch.where(met, torch.minimum(best, norm), best)

        def vjp(v, *, keep=False, logits=logits, x=x):
            return torch.autograd.grad(logits, x, v, retain_graph=keep)[0]

        point = Iterate(images, logits.detach(), clean, vjp, rows, asked, met, bits)
        state = method.step(point, state)
        assert all(state[name].isfinite().all() for name in method.watched)
    return best, method.image(images, state)


def world(n=6):
    model = net()
    return model, *task(model, n, k=3, m=2, side=16, classes=10)


def test_multipliers_solve_the_quadratic_programme():
    random = np.random.default_rng(0)
    g, r = random.normal(size=(5, 4, 30)), random.normal(size=(5, 4)) + 0.5
    gram = torch.from_numpy(g @ g.transpose(0, 2, 1))
    counts = torch.ones(5, 4, dtype=torch.bool)
    found = least_norm_multipliers(
        gram, torch.from_numpy(r), counts, torch.zeros(5, 4), sweeps=200, reach=1e3
    )
    for i in range(5):
        best = minimize(
            lambda d: d @ d, np.linalg.pinv(g[i]) @ r[i], jac=lambda d: 2 * d,
            constraints=LinearConstraint(g[i], lb=r[i]), method="SLSQP",
        )  # fmt: skip
        np.testing.assert_allclose(found[i].numpy() @ g[i], best.x, atol=1e-5)


def test_a_programme_without_solution_or_gradient_stays_finite():
    gram = torch.tensor([[[1.0, -1], [-1, 1]], [[0, 0], [0, 0]]]).double()
    wanted, counts = torch.ones(2, 2).double(), torch.ones(2, 2, dtype=torch.bool)
    found = least_norm_multipliers(gram, wanted, counts, wanted, sweeps=50, reach=3.0)
    assert found.isfinite().all() and (found <= 3).all() and (found[1] == 0).all()


@pytest.mark.parametrize("k", [1, 2, 3])
def test_on_a_linear_victim_the_norm_is_within_a_hundredth_of_the_optimum(k):
    model = linear_victim()
    images, labels, specified = task(model, 8, k=k)
    best, _ = drive(model, images, labels, specified, k, steps=100, stop="excluded")
    least = [
        minimal_norm(model, image, int(s.nonzero()), k)
        for image, s in zip(images, specified, strict=True)
    ]
    ratio = best / torch.tensor(least)
    assert (ratio > 0.999).all() and (ratio <= 1.01).all(), ratio


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("stop", [Stop(gap=0.8), Stop(below=2), Stop(gap=0.8, below=1)], ids=str)
def test_with_a_gap_or_depth_it_is_near_the_optimum_of_a_linear_victim_too(k, stop):
    model = linear_victim()
    images, labels, specified = task(model, 6, k=k)
    best, _ = drive(model, images, labels, specified, k, steps=100, stop=stop)
    least = [
        least_with(model, image, int(s.nonzero()), k, stop)
        for image, s in zip(images, specified, strict=True)
    ]
    ratio = best / torch.tensor(least)
    assert (ratio > 0.999).all() and (ratio <= 1.02).all(), ratio


def least_with(model, image, specified, k, stop):
    """Norm of the least perturbation: one least-distance problem a choice of the labels above."""
    weight, bias = (p.detach().double().numpy() for p in model[1].parameters())
    clean = weight @ image.flatten().double().numpy() + bias
    ranking = np.sort(clean)[::-1]
    gap, best = stop.gap * (ranking[k - 1] - ranking[k]), np.inf
    others = set(range(len(clean))) - {specified}
    for top in itertools.combinations(others, k):
        for more in itertools.combinations(others - set(top), stop.below):
            wanted = {(up, specified): 0.0 for up in (*top, *more)}
            if gap:
                wanted |= {
                    (up, down): gap for up in top for down in (others - set(top)) | {specified}
                }
            up, down = np.array(list(wanted)).T
            found = least_distance(
                weight[up] - weight[down], np.array(list(wanted.values())) - clean[up] + clean[down]
            )
            best = best if found is None else min(best, np.linalg.norm(found))
    return float(best)


@pytest.mark.parametrize("bits", [None, 8])
def test_every_image_meets_the_condition(bits):
    model, images, labels, specified = world()
    images = images.mul(255).round().div(255)
    best, last = drive(model, images, labels, specified, 3, steps=30, bits=bits)
    assert best.isfinite().all() and (best > 0).all()
    if bits:
        assert torch.equal(last, last.mul(255).round().div(255))


def test_neither_place_nor_neighbours_change_a_bit():
    model, images, labels, specified = world()
    turned = torch.tensor([4, 2, 5, 0, 3, 1])
    first, one = drive(model, images, labels, specified, 3, steps=14, bits=8)
    second, two = drive(
        model, images[turned], labels[turned], specified[turned], 3, steps=14, bits=8
    )
    assert torch.equal(first[turned], second) and torch.equal(one[turned], two)
    padded = torch.tensor([3, 0, 0, 0, 0, 0])
    third, three = drive(
        model, images[padded], labels[padded], specified[padded], 3, steps=14, bits=8
    )
    assert torch.equal(three[0], one[3]) and torch.equal(third[0], first[3])


def test_a_dead_victim_and_a_met_condition_leave_finite_images():
    images = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[True, True, True, False]]).expand(2, -1)
    specified = torch.tensor([[True, False, False, False], [False, False, True, False]])

    def dead(x):
        return 0 * x.flatten(1).sum(1, keepdim=True) + torch.tensor([4.0, 3, 2, 1])

    best, last = drive(dead, images, labels, specified, 2, steps=30)
    assert torch.equal(last, images) and best.tolist() == [torch.inf, 0]


def test_more_confidence_costs_more_norm():
    model, images, labels, specified = world()
    plain, _ = drive(model, images, labels, specified, 3, steps=25)
    sure, _ = drive(model, images, labels, specified, 3, steps=25, confidence=0.5)
    assert (sure > plain).all()


@pytest.mark.parametrize(
    "option",
    [{"confidence": -1}, {"confidence": float("inf")}, {"confidence": True}],
)  # fmt: skip
def test_options_out_of_range_are_refused(option):
    with pytest.raises(ValueError, match=next(iter(option))):
        MinimalTkMIA(**option)


def test_what_is_shown_of_an_image_is_a_new_tensor_and_the_shapes_stay():
    model, images, labels, specified = world(2)
    method, clean = MinimalTkMIA(), model(images).detach()
    asked = condition(clean, labels, specified, 3)
    state = method.begin(images)
    old, kept = method.image(images, state), method.image(images, state).clone()
    x = old.clone().requires_grad_()
    logits = model(x)
    point = Iterate(
        images, logits.detach(), clean, lambda v, keep=False: torch.autograd.grad(logits, x, v)[0],
        None, asked, holds(clean, asked), None,
    )  # fmt: skip
    before = {name: (value.shape, value.dtype) for name, value in state.items()}
    after = method.step(point, state)
    assert torch.equal(old, kept) and method.image(images, after) is not old
    assert before == {name: (value.shape, value.dtype) for name, value in after.items()}
    assert {f.name for f in fields(Iterate)} >= {"condition", "met", "bits"}
