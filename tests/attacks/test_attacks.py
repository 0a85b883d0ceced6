"""Promises of the five attacks: each does what its equations say, and nothing else."""

import numpy as np
import pytest
import torch
from sweeps import attack
from test_engine import linear_victim, net, same, task
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from tkmia_utils import losses
from tkmia_utils.attacks import ATTACKS, AttackSpec, Iterate, build
from tkmia_utils.attacks.base import PixelDescent
from tkmia_utils.condition import condition, holds

LR, ALPHA, STEPS = 3e-2, 1e-2, 20
CALLS = [
    ("tkmia", {}),
    ("tkmia", {"scores": "sigmoid"}),
    ("tkmia", {"variant": "paper"}),
    ("tkmia", {"variant": "released"}),
    ("tkml_ap_u", {}),
    ("tkml_ap_u", {"scores": "sigmoid"}),
    ("ml_cw_u", {}),
    ("ml_cw_u", {"scores": "sigmoid"}),
    ("ml_cw_u", {"form": "printed"}),
    ("kfool", {}),
    ("kfool", {"overshoot": 0.02}),
    ("kfool", {"class_sum": "mean"}),
    ("gmla", {}),
]
NAMES = ["-".join([name, *map(str, options.values())]) for name, options in CALLS]


def world(n=6, side=16):
    model = net()
    images, labels, specified = task(model, n, k=3, m=2, side=side, classes=10)
    return model, images, labels, specified


def hard_world():
    """Nothing is idle: pixels at both ends of the box, an irrelevant label on top (so that y* is
    not the first), a relevant one far down (so that every hinge is open), several ks."""
    model = net()
    images = task(model, 6, side=16, classes=10)[0]
    images[:, :, :2], images[:, :, -2:] = 0.0, 1.0
    order = model(images).detach().argsort(descending=True)
    labels, specified = torch.zeros(2, 6, 10, dtype=torch.bool)
    labels = labels.scatter(1, order[:, [1, 2, 3, 5, 8]], True)
    specified = specified.scatter(1, order[:, [2, 3]], True)
    return model, images, labels, specified, torch.tensor([3, 3, 4, 4, 5, 5])


# --- the equations once more, literally: one image, plain loops, autograd through everything ---


def ranked(f):
    return sorted(range(len(f)), key=lambda i: -f[i].item())


def literal_loss(name, options, f, labels, specified, k, lam1, lam2):
    """Loss of one image as printed, from scores f (C,)."""
    c, order = len(f), ranked(f)
    relevant = [i for i in range(c) if labels[i]]
    irrelevant = [i for i in range(c) if not labels[i]]
    chosen = [i for i in relevant if specified[i]]
    others = [i for i in relevant if not specified[i]]
    highest = lambda group: f[max(group, key=lambda i: f[i].item())]  # noqa: E731
    lowest = lambda group: f[min(group, key=lambda i: f[i].item())]  # noqa: E731
    if name == "tkmia" and options.get("variant") == "paper":  # Eq. (6)
        loss = lam1 + lam2
        for i in range(c):
            loss = loss + torch.relu(highest(chosen) - f[i] - lam1) / (c - k)
            loss = loss + torch.relu(f[i] - lowest(others) - lam2) / k
        return loss
    if name == "tkmia":
        loss = highest(chosen) - lowest(others)
        for place, i in enumerate(order):
            loss = loss + (f[i] / k if place < k else -f[i] / (c - k))
        return loss
    if name == "tkml_ap_u":
        return highest(relevant) - sum(f[i] for i in order[k:]) / (c - k)
    if options.get("form") == "printed":
        return torch.relu(highest(irrelevant) - lowest(relevant))
    return torch.relu(highest(relevant) - lowest(irrelevant))


def literal(steps, name, options, model, image, labels, specified, k):
    """So many steps on one image; returns logits and the perturbation in the paper's pixels."""
    released = options.get("variant") == "released"
    z = 2 * image - 1
    variable, velocity = torch.zeros_like(z), torch.zeros_like(z)
    lam1, lam2 = torch.tensor(0.0), torch.tensor(0.0)
    clean = None

    def picture(v):
        return (torch.tanh(z + v) + 1) / 2 if released else image + v / 2

    for _ in range(steps):
        v = variable.clone().requires_grad_()
        l1, l2 = lam1.clone().requires_grad_(), lam2.clone().requires_grad_()
        f = model(picture(v)[None])[0]
        clean = f.detach() if clean is None else clean
        if name == "kfool":
            variable = literal_kfool_step(options, model, picture, v, f, clean, labels, k)
            variable = (z + variable).clamp(-1, 1) - z
            continue
        if name == "gmla":
            target = sum(bce(f[i], torch.tensor(0.0)) for i in range(len(f)) if specified[i])
            rest = sum(bce(f[i], (clean[i] > 0).float()) for i in range(len(f)) if not specified[i])
            (a,) = torch.autograd.grad(target, v, retain_graph=True)
            (b,) = torch.autograd.grad(rest, v)
            gradient = a - (a * b).sum() / (b * b).sum() * b
        else:
            sigmoid = options.get("scores") == "sigmoid" or options.get("variant") == "paper"
            scores = f.sigmoid() if sigmoid else f
            loss = literal_loss(name, options, scores, labels, specified, k, l1, l2)
            gradient, g1, g2 = torch.autograd.grad(loss, (v, l1, l2), allow_unused=True)
            if g1 is not None:
                lam1, lam2 = (lam1 - LR * g1).clamp(0, 1), (lam2 - LR * g2).clamp(0, 1)
        velocity = 0.9 * velocity + gradient + ALPHA * variable
        variable = variable - LR * velocity
        if not released:
            variable = (z + variable).clamp(-1, 1) - z
    return model(picture(variable)[None])[0].detach(), variable


def literal_kfool_step(options, model, picture, v, f, clean, labels, k):
    star = max((i for i in range(len(f)) if labels[i]), key=lambda i: float(clean[i]))
    direction, distance, count = torch.zeros_like(v), 0.0, 0
    for j in ranked(f)[: k + 1]:
        if j == star:
            continue
        (w,) = torch.autograd.grad(f[j] - f[star], v, retain_graph=True)
        direction = direction + w / w.norm()
        distance = distance + float((f[j] - f[star]).detach().abs() / w.norm())
        count += 1
    if options.get("class_sum") == "mean":
        distance /= count
    step = distance * (1 + options.get("overshoot", 0.0)) * direction / direction.norm()
    return (v + step).detach()


@pytest.mark.parametrize(("name", "options"), CALLS, ids=NAMES)
def test_twenty_steps_equal_a_literal_transcription(name, options):
    model, images, labels, specified, k = hard_world()
    rates = {} if name == "kfool" else {"lr": LR, "alpha": ALPHA}
    result = attack(
        model, images, labels, specified, k,
        method=name, max_iter=STEPS, slots=3, **rates, **options,
    )  # fmt: skip
    # an image that succeeds on the way is frozen there: the transcription takes as many steps
    assert result.iterations.max() == STEPS and (result.iterations > 1).all()
    assert ((result.adversarial_logits - result.clean_logits).abs().amax(1) > 0.02).all()
    for i, steps in enumerate(result.iterations.tolist()):
        logits, variable = literal(
            steps, name, options, model, images[i], labels[i], specified[i], int(k[i])
        )
        torch.testing.assert_close(result.adversarial_logits[i], logits, atol=1e-5, rtol=0)
        if options.get("variant") == "released":
            picture = (torch.tanh(2 * images[i] - 1 + variable) + 1) / 2
            assert float(result.l2_paper[i]) == pytest.approx(float(variable.norm()), rel=1e-4)
        else:
            picture = images[i] + variable / 2
        torch.testing.assert_close(result.adversarial[i], picture, atol=1e-5, rtol=0)


# --- gradients written by hand ---


def scores_and_sets(n=40, c=9, seed=0):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(n, c, generator=generator, dtype=torch.float64)
    labels = torch.rand(n, c, generator=generator) < 0.4
    labels[:, :2], labels[:, -1] = True, False
    specified = torch.zeros_like(labels)
    specified[:, 0] = True
    return scores, labels, specified


@pytest.mark.parametrize("k", [1, 3, torch.arange(40) % 8 + 1])
def test_gradients_by_hand_are_autograds(k):
    scores, labels, specified = scores_and_sets()
    scores.requires_grad_()
    lam1 = torch.linspace(0, 1, 40, dtype=torch.float64).requires_grad_()
    lam2 = torch.linspace(1, 0, 40, dtype=torch.float64).requires_grad_()
    sets = (labels, specified, k)
    pairs = [
        (losses.tkmia(scores, *sets), losses.tkmia_gradient(scores, *sets)),
        (losses.tkml_ap_u(scores, labels, k), losses.tkml_ap_u_gradient(scores, labels, k)),
        (losses.ml_cw_u(scores, labels), losses.ml_cw_u_gradient(scores, labels)),
        (
            losses.ml_cw_u(scores, labels, form="printed"),
            losses.ml_cw_u_gradient(scores, labels, form="printed"),
        ),
    ]
    for loss, by_hand in pairs:
        (wanted,) = torch.autograd.grad(loss.sum(), scores)
        torch.testing.assert_close(by_hand, wanted, atol=1e-12, rtol=0)
    loss = losses.tkmia_eq6(scores, *sets, lam1, lam2)
    wanted = torch.autograd.grad(loss.sum(), (scores, lam1, lam2))
    by_hand = losses.tkmia_eq6_gradients(scores, *sets, lam1.detach(), lam2.detach())
    for ours, theirs in zip(by_hand, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=0)


# --- what every method shares ---


@pytest.mark.parametrize(("name", "options"), CALLS, ids=NAMES)
def test_every_method_but_the_printed_one_succeeds_on_a_linear_victim(name, options):
    model = linear_victim()
    images, labels, specified = task(model, 8, k=2)
    result = attack(
        model, images, labels, specified, 2, method=name, lr=1e-2, max_iter=500, **options
    )
    if options.get("form") == "printed":
        assert not result.success.any()
        return
    # kFool only knows y*, which is the specified label here, and steps right over the borders
    assert result.success.all()
    assert (result.l2 > 0).all()


def test_kfools_first_step_on_a_linear_victim_is_its_formula():
    model = linear_victim()
    images, labels, specified = task(model, 4, k=2)
    result = attack(model, images, labels, specified, 2, method="kfool", max_iter=1, record=True)
    weight = model[1].weight.detach().double().numpy() / 2  # in the paper's pixels
    for i in range(4):
        f = model(images[i : i + 1])[0].detach().double().numpy()
        order = np.argsort(-f)
        star, others = order[0], order[1:3]
        normals = [(weight[j] - weight[star]) for j in others]
        direction = sum(w / np.linalg.norm(w) for w in normals)
        length = sum(
            abs(f[j] - f[star]) / np.linalg.norm(w) for j, w in zip(others, normals, strict=True)
        )
        step = length * direction / np.linalg.norm(direction)
        wanted = images[i].flatten().double().numpy() + step / 2
        found = result.adversarial[i].flatten().double().numpy()
        np.testing.assert_allclose(found, wanted.clip(0, 1), atol=1e-5)


@pytest.mark.parametrize("side", [16, 13], ids=["even", "odd"])  # odd: a row ends in mid-vector
@pytest.mark.parametrize(("name", "options"), CALLS, ids=NAMES)
def test_neither_batch_nor_order_nor_neighbours_matter(name, options, side):
    model, images, labels, specified = world(7, side)
    k = torch.tensor([1, 2, 3, 3, 2, 1, 3])
    rates = {} if name == "kfool" else {"lr": 0.05}

    def run(rows, slots, max_iter=20):
        return attack(
            model, images[rows], labels[rows], specified[rows], k[rows],
            method=name, max_iter=max_iter, slots=slots, **rates, **options,
        )  # fmt: skip

    whole = run(torch.arange(7), 3)
    order = torch.tensor([4, 2, 6, 0, 5, 1, 3])
    same(whole, run(order, 3), order)
    for i in (0, 5):  # alone, kFool's largest k is another, and so is its number of passes
        same(whole, run(torch.tensor([i]), 3), torch.tensor([i]))
    # kFool comes to rest on a border and steps on by rounding errors divided by themselves, so over
    # many steps another batch size, which rounds differently, is another path: compare the first
    steps = 2 if name == "kfool" else 20
    whole, other = run(torch.arange(7), 3, steps), run(torch.arange(7), 7, steps)
    assert torch.equal(other.success, whole.success)
    torch.testing.assert_close(other.adversarial, whole.adversarial, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("name", "options"), CALLS, ids=NAMES)
def test_one_run_answers_for_a_shorter_limit(name, options):
    model, images, labels, specified, k = hard_world()
    call = dict(method=name, slots=4, **({} if name == "kfool" else {"lr": LR}), **options)
    whole = attack(model, images, labels, specified, k, max_iter=40, snapshots=[10], **call).at(10)
    short = attack(model, images, labels, specified, k, max_iter=10, **call)
    assert (short.iterations == 10).any()
    for one in ("success", "iterations", "clean_logits", "adversarial_logits", "l2", "l2_paper"):
        assert torch.equal(getattr(whole, one), getattr(short, one)), one
    assert torch.equal(whole.adversarial[short.success], short.adversarial[short.success])


def test_kfool_with_many_ks_equals_kfool_alone():
    model, images, labels, specified = world(4)
    k = torch.tensor([1, 2, 3, 3])
    together = attack(model, images, labels, specified, k, method="kfool", max_iter=30, slots=2)
    for i in range(4):
        one = slice(i, i + 1)
        alone = attack(
            model, images[one], labels[one], specified[one], int(k[i]),
            method="kfool", max_iter=30, slots=2,
        )  # fmt: skip
        assert alone.success == together.success[one]
        assert torch.equal(alone.adversarial, together.adversarial[one])


def test_ml_cw_u_as_printed_raises_what_it_should_lower():
    model, images, labels, specified = world(8)
    # some relevant labels rank low, or the printed loss would be zero from the start
    low = model(images).detach().argsort(-1)[:, :2]
    labels = labels.scatter(1, low, True)
    call = dict(method="ml_cw_u", lr=0.05, max_iter=300)
    lowered = attack(model, images, labels, specified, 3, **call)
    raised = attack(model, images, labels, specified, 3, form="printed", delta=1, **call)
    best, worst = losses.highest, losses.lowest
    assert lowered.success.all() and not raised.success.any()
    assert (best(lowered.adversarial_logits, labels) < best(lowered.clean_logits, labels)).all()
    assert (worst(raised.adversarial_logits, labels) > worst(raised.clean_logits, labels)).all()
    rise = (raised.adversarial_logits - raised.clean_logits).masked_fill(~labels, 0).sum(-1)
    assert (rise > 0).all()  # of all relevant labels together; delta=1: not one of S was hidden


def test_the_released_variant_sees_a_paler_image():
    model, images, labels, specified = world(4)
    result = attack(model, images, labels, specified, 3, variant="released", max_iter=5)
    paler = ((2 * images - 1).tanh() + 1) / 2
    torch.testing.assert_close(model(paler).detach(), result.clean_logits, atol=1e-5, rtol=0)
    assert (result.l2_paper < 2 * result.l2).all()  # the squash alone is farther than the attack


def rows_for(labels, specified, k, lr):
    n = len(labels)
    full = torch.full((n,), k)
    one = torch.ones(n)
    return AttackSpec(labels, specified, full, full, full, lr * one, 0 * one, 0 * one, k_max=k)


def iterate(images, logits, clean, vjp, rows):
    asked = condition(clean, rows.labels, rows.specified, rows.k, stop="excluded")
    return Iterate(images, logits, clean, vjp, rows, asked, holds(logits, asked))


def test_learned_lambdas_stay_in_their_interval():
    method = build("tkmia", variant="paper")
    model, images, labels, specified = world(4)
    state, rows = method.begin(images), rows_for(labels, specified, 3, lr=0.7)
    seen = []
    for _ in range(12):
        x = method.image(images, state).detach().requires_grad_()
        logits = model(x)

        def vjp(v, *, keep=False, logits=logits, x=x):
            return torch.autograd.grad(logits, x, v, retain_graph=keep)[0]

        state = method.step(iterate(images, logits.detach(), logits.detach(), vjp, rows), state)
        seen.append(torch.stack([state["lam1"], state["lam2"]]))
    seen = torch.stack(seen)
    assert seen.min() >= 0 and seen.max() <= 1 and seen.unique().numel() > 4


def test_gmla_leaves_the_other_labels_loss_alone_to_first_order():
    model, images, labels, specified = world(5)
    x = images.clone().requires_grad_()
    logits = model(x)
    clean = logits.detach() + torch.randn(logits.shape, generator=torch.Generator().manual_seed(1))

    def vjp(v, *, keep=False):
        return torch.autograd.grad(logits, x, v, retain_graph=True)[0]

    rows = rows_for(labels, specified, 3, lr=1.0)
    direction = build("gmla").loss_gradient(iterate(images, logits.detach(), clean, vjp, rows), {})
    others = bce(logits, (clean > 0).float(), reduction="none")[~specified].sum()
    (gradient,) = torch.autograd.grad(others, x, retain_graph=True)
    for a, b in zip(direction.flatten(1), gradient.flatten(1), strict=True):
        assert abs(float(a @ b)) <= 1e-4 * float(a.norm() * b.norm())
    (target,) = torch.autograd.grad(bce(logits, 0 * clean, reduction="none")[specified].sum(), x)
    assert (torch.cosine_similarity(target.flatten(1), gradient.flatten(1)).abs() > 1e-2).all()
    assert (direction.flatten(1).norm(dim=1) > 0).all()


@pytest.mark.parametrize("name", ATTACKS)
def test_options_a_method_does_not_have_are_refused_by_name(name):
    with pytest.raises(ValueError, match=r"^stepsize: "):
        build(name, stepsize=1.0)
    with pytest.raises(ValueError, match=r"^method: "):
        build(build(name), scores="logits")


@pytest.mark.parametrize(
    ("name", "options", "bad"),
    [
        ("tkmia", {"variant": "printed"}, "variant"),
        ("tkmia", {"variant": "paper", "scores": "softmax"}, "scores"),
        ("tkml_ap_u", {"scores": "softmax"}, "scores"),
        ("ml_cw_u", {"form": "targeted"}, "form"),
        ("kfool", {"overshoot": -1.0}, "overshoot"),
        ("kfool", {"overshoot": float("inf")}, "overshoot"),
        ("kfool", {"overshoot": "a"}, "overshoot"),
        ("kfool", {"class_sum": "max"}, "class_sum"),
    ],
)
def test_unknown_values_are_refused_by_name(name, options, bad):
    with pytest.raises(ValueError, match=f"^{bad}: "):
        build(name, **options)


def test_a_method_of_your_own_runs_in_the_same_engine():
    class Lower(PixelDescent):
        """Push the specified labels down, and nothing else."""

        def score_gradient(self, scores, rows, state):
            return rows.specified.to(scores.dtype)

    model = linear_victim()
    images, labels, specified = task(model, 4, k=2)
    assert attack(model, images, labels, specified, 2, method=Lower(), lr=1e-2).success.all()


@pytest.mark.parametrize("name", ATTACKS)
def test_one_call_drives_every_method_on_logits(name):
    model, images, labels, specified = world(3)
    call = dict(method=name, lr=0.02, max_iter=5, slots=3)
    same(
        attack(model, images, labels, specified, 3, **call),
        attack(model, images, labels, specified, 3, scores="logits", **call),
    )
    if name in ("kfool", "gmla"):
        with pytest.raises(ValueError, match=r"^scores: "):
            attack(model, images, labels, specified, 3, scores="sigmoid", **call)
