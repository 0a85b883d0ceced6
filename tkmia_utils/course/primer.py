"""Exercises on notebook 04b: the steps of which attacks are made."""

import numpy as np
import torch

from tkmia_utils.course.exercise import Case, Exercise, mutant


def _steps(rng: np.random.Generator) -> list[Case]:
    """Images, some pixels near black and white, a gradient with zeros, and a radius."""
    cases: list[Case] = []
    for side in (1, 2, 2, 3, 3, 4):
        image = rng.random((3, side, side))
        image.flat[0], image.flat[-1] = 0.01, 0.99
        gradient = 3 * rng.normal(size=image.shape)
        gradient.flat[0], gradient.flat[-1] = 2.0, -2.0  # out of the box without a clamp
        gradient.flat[1] = 0.0
        radius = float(rng.uniform(0.05, 0.3))
        cases.append((torch.tensor(image), torch.tensor(gradient), radius))
    return cases


def fgsm_step(image: torch.Tensor, gradient: torch.Tensor, radius: float) -> torch.Tensor:
    """One step of FGSM that makes the loss smaller; pixels (3, H, W) stay in [0, 1]."""
    return (image - radius * gradient.sign()).clamp(0, 1)


def _fgsm_where(image: torch.Tensor, gradient: torch.Tensor, radius: float) -> torch.Tensor:
    down = torch.where(gradient > 0, image - radius, image)
    moved = torch.where(gradient < 0, image + radius, down)
    return torch.minimum(torch.maximum(moved, torch.zeros_like(image)), torch.ones_like(image))


def _perturbations(rng: np.random.Generator) -> list[Case]:
    """Batches in which some perturbations lie within the ball and some outside of it."""
    cases: list[Case] = []
    for n, side in ((2, 1), (2, 2), (3, 2), (4, 3), (5, 4)):
        eps = rng.normal(size=(n, 3, side, side))
        eps /= np.sqrt((eps**2).sum(axis=(1, 2, 3), keepdims=True))
        radius = float(rng.uniform(0.5, 2.0))
        sizes = rng.uniform(0.2, 3.0, size=n)
        sizes[0], sizes[1] = 0.4, 2.5  # one within the ball, one outside of it
        cases.append((torch.tensor(eps * radius * sizes[:, None, None, None]), radius))
    return cases


def project_l2(eps: torch.Tensor, radius: float) -> torch.Tensor:
    """The nearest perturbations (N, 3, H, W) whose L2 norm is at most `radius`, each by itself."""
    norm = eps.flatten(1).norm(dim=1)[:, None, None, None]
    # what lies within the ball stays; a perturbation of norm 0 must not be divided by 0
    return eps * (radius / norm.clamp(min=1e-12)).clamp(max=1)


def _project_loop(eps: torch.Tensor, radius: float) -> torch.Tensor:
    kept = []
    for one in eps:
        norm = float((one**2).sum() ** 0.5)
        kept.append(one if norm <= radius else one * radius / norm)
    return torch.stack(kept)


def _gradients(rng: np.random.Generator) -> list[Case]:
    """Gradients of several steps, and a momentum."""
    sizes = ((2, 1), (3, 2), (4, 2), (5, 3), (8, 3))
    return [
        (torch.tensor(rng.normal(size=size)), float(rng.choice([0.5, 0.8, 0.9]))) for size in sizes
    ]


def velocity(gradients: torch.Tensor, momentum: float) -> torch.Tensor:
    """The velocity (D,) after steps with these gradients (T, D), the oldest first."""
    found = torch.zeros_like(gradients[0])
    for gradient in gradients:
        found = momentum * found + gradient
    return found


def _velocity_sum(gradients: torch.Tensor, momentum: float) -> torch.Tensor:
    ages = torch.arange(len(gradients) - 1, -1, -1, dtype=gradients.dtype)
    return (momentum**ages) @ gradients


EXERCISES = (
    Exercise(
        name="fgsm_step",
        number="04b.1",
        title="One step of FGSM",
        task="`fgsm_step(image, gradient, radius)`: the image `(3, H, W)` after one step of FGSM"
        " that makes the loss smaller; `gradient` is that of the loss with respect to the image,"
        " `radius` is in [0, 1] pixels. The result is an image again.",
        points=3,
        minutes=10,
        cases=_steps,
        expected=fgsm_step,
        solution=fgsm_step,
        others=(_fgsm_where,),
        mutants=(
            mutant(
                "It goes up: the loss is to become smaller, so the step is against the gradient.",
                lambda image, gradient, radius: (image + radius * gradient.sign()).clamp(0, 1),
            ),
            mutant(
                "Pixels leave [0, 1]: clamp them, or it is no image.",
                lambda image, gradient, radius: image - radius * gradient.sign(),
            ),
            mutant(
                "It steps along the gradient itself: FGSM takes its sign, so that every pixel moves"
                " by the same amount.",
                lambda image, gradient, radius: (image - radius * gradient).clamp(0, 1),
            ),
            mutant(
                "It divides the gradient by its L2 norm: that is the longest step in an L2 ball."
                " FGSM takes the sign, for an L-infinity ball.",
                lambda image, gradient, radius: (image - radius * gradient / gradient.norm()).clamp(
                    0, 1
                ),
            ),
        ),
        hints=(
            "Which of +1, 0, -1 does each pixel get? torch has a function for it.",
            "Subtract radius times the sign, then clamp to [0, 1].",
        ),
    ),
    Exercise(
        name="project_l2",
        number="04b.2",
        title="Back into the ball",
        task="`project_l2(eps, radius)`: for each perturbation of a batch `(N, 3, H, W)` the"
        " nearest one whose L2 norm is at most `radius`. One within the ball stays as it is.",
        points=4,
        minutes=15,
        cases=_perturbations,
        expected=project_l2,
        solution=project_l2,
        others=(_project_loop,),
        mutants=(
            mutant(
                "It scales every perturbation to the radius: one within the ball stays as it is.",
                lambda eps, radius: eps * radius / eps.flatten(1).norm(dim=1)[:, None, None, None],
            ),
            mutant(
                "It takes the norm of the whole batch: each image has a budget of its own.",
                lambda eps, radius: eps * min(1.0, radius / float(eps.norm())),
            ),
            mutant(
                "It cuts each value at the radius: that is the L-infinity ball, a cube.",
                lambda eps, radius: eps.clamp(-radius, radius),
            ),
            mutant(
                "It takes a norm for each channel: the norm of an image is over all its values.",
                lambda eps, radius: (
                    eps * (radius / eps.flatten(2).norm(dim=2)).clamp(max=1)[:, :, None, None]
                ),
            ),
        ),
        hints=(
            "The nearest point of a ball lies on the line to its centre: scale eps.",
            "The factor is min(1, radius / norm), one for each image; flatten(1) helps.",
        ),
    ),
    Exercise(
        name="velocity",
        number="04b.3",
        title="What a velocity remembers",
        task="`velocity(gradients, momentum)`: the velocity after steps with these gradients"
        " `(T, D)`, the oldest first, as section 5 has it; before the first step it is 0.",
        points=3,
        minutes=10,
        cases=_gradients,
        expected=velocity,
        solution=velocity,
        others=(_velocity_sum,),
        mutants=(
            mutant(
                "It multiplies the new gradient by 1 - momentum: that is a running mean, and the"
                " first steps become very short.",
                lambda gradients, momentum: (1 - momentum) * _velocity_sum(gradients, momentum),
            ),
            mutant(
                "The oldest gradient counts most: each step must weaken what was there before.",
                lambda gradients, momentum: _velocity_sum(gradients.flip(0), momentum),
            ),
            mutant(
                "It is the sum of all gradients: nothing is forgotten.",
                lambda gradients, momentum: gradients.sum(0),
            ),
            mutant(
                "It is the last gradient: nothing is remembered.",
                lambda gradients, momentum: gradients[-1],
            ),
        ),
        hints=(
            "Go through the gradients in order and keep one vector.",
            "At each step: velocity = momentum * velocity + gradient.",
        ),
    ),
)
