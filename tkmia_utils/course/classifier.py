"""Exercises on notebook 04: two figures called mAP, and a net of one's own."""

from typing import Any

import numpy as np
import torch
from torch import nn

from tkmia_utils import measures
from tkmia_utils.course.exercise import Answer, Case, Exercise, mutant
from tkmia_utils.course.reading import Refused

_BUILDING = (TypeError, ValueError, RuntimeError)  # what a faulty layer raises


def _scored(rng: np.random.Generator) -> list[Case]:
    """Scores without ties; every class has an image, and every image a label."""
    cases: list[Case] = []
    for trial in range(10):
        images, classes = 4 + trial // 2, 3 + trial // 3
        scores = np.round(2 * rng.permutation(images * classes) / (images * classes) - 1, 2)
        scores = scores + np.arange(scores.size) * 1e-4  # what rounding made equal
        labels = rng.random((images, classes)) < 0.4
        labels[np.arange(images), rng.integers(0, classes, images)] = True
        labels[rng.integers(0, images, classes), np.arange(classes)] = True
        grid = scores.reshape(images, classes)
        cases.append((torch.from_numpy(grid), torch.from_numpy(labels)))
    return cases


def _both(scores: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    by_class = measures.class_average_precision(scores, labels)
    by_image = measures.average_precision_at_k(scores, labels, scores.shape[1])
    return by_class.mean(), by_image.mean()


def two_maps(scores: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
    """Class mAP and mean per-image AP."""

    def mean_ap(scores: torch.Tensor, labels: torch.Tensor) -> float:
        """Mean over rows of the average precision of a row's ranking."""
        hits = labels.gather(1, scores.argsort(dim=1, descending=True)).double()
        precision = hits.cumsum(1) / torch.arange(1, hits.shape[1] + 1)
        return float(((hits * precision).sum(1) / hits.sum(1)).mean())

    return mean_ap(scores.T, labels.T), mean_ap(scores, labels)


def _average(scores: np.ndarray, labels: np.ndarray) -> float:
    """Average precision of one ranking, place by place."""
    found, total = 0, 0.0
    for place, at in enumerate(np.argsort(-scores), start=1):
        if labels[at]:
            found += 1
            total += found / place
    return total / found


def _two_loops(scores: torch.Tensor, labels: torch.Tensor) -> list[float]:
    f, y = scores.numpy(), labels.numpy()
    rows = zip(f, y, strict=True)
    columns = zip(f.T, y.T, strict=True)
    return [float(np.mean([_average(*pair) for pair in pairs])) for pairs in (columns, rows)]


def _thresholded(scores: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
    """Rankings of what is above 0.5, which are no rankings."""
    hard = (scores > 0.5).double()
    by_class = measures.class_average_precision(hard, labels).mean()
    return float(by_class), float(measures.class_average_precision(hard.T, labels.T).mean())


def _precisions(scores: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
    """Precision at the number of relevant labels instead of the average precision."""

    def mean(scores: torch.Tensor, labels: torch.Tensor) -> float:
        return float(measures.precision_at_k(scores, labels, labels.sum(1)).mean())

    return mean(scores.T, labels.T), mean(scores, labels)


def _pooled(scores: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
    """One ranking of all images and classes."""
    every = _average(scores.flatten().numpy(), labels.flatten().numpy())
    return every, two_maps(scores, labels)[1]


def _channels(rng: np.random.Generator) -> list[Case]:
    """Numbers of classes, means and standard deviations of three channels, and seeds."""
    cases: list[Case] = []
    for _ in range(4):
        # apart from each other and from (0, 1), so that what is left out is seen
        mean = np.round(rng.permutation([0.25, 0.45, 0.65]) + rng.uniform(-0.04, 0.04, 3), 3)
        std = np.round(rng.permutation([0.2, 0.3, 0.45]) + rng.uniform(-0.02, 0.02, 3), 3)
        classes, seed = int(rng.integers(5, 12)), int(rng.integers(1, 1000))
        cases.append((classes, tuple(mean.tolist()), tuple(std.tolist()), seed))
    return cases


def own_net(classes: int, mean: tuple[float, ...], std: tuple[float, ...], seed: int) -> nn.Module:
    """A net from images (N, 3, H, W) in [0, 1] to logits (N, classes), ready to be attacked."""

    class Normalise(nn.Module):
        """Shift and scale each channel."""

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.tensor(mean).reshape(3, 1, 1))
            self.register_buffer("std", torch.tensor(std).reshape(3, 1, 1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x - self.mean) / self.std

    torch.manual_seed(seed)
    return nn.Sequential(
        Normalise(),  # the first layer, so that nobody can forget it
        *(nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.AdaptiveMaxPool2d(1), nn.Flatten()),  # the size of the image is gone
        nn.Linear(32, classes),  # logits: no sigmoid after it
    ).eval()


class _Mean(nn.Module):
    """Another net: a constant convolution normalises, and the mean pools."""

    def __init__(self, classes: int, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.normalise = nn.Conv2d(3, 3, 1, groups=3)
        scale = torch.tensor(std).reciprocal()
        self.normalise.weight = nn.Parameter(scale.reshape(3, 1, 1, 1), requires_grad=False)
        self.normalise.bias = nn.Parameter(-torch.tensor(mean) * scale, requires_grad=False)
        self.features = nn.Conv2d(3, 24, 5, stride=3)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(24, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits ``(N, classes)``."""
        features = nn.functional.silu(self.features(self.normalise(images)))
        return self.head(self.drop(features.mean((2, 3))))


def _another(classes: int, mean: tuple[float, ...], std: tuple[float, ...], seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return _Mean(classes, mean, std).eval()


def _asked(
    answer: Answer, classes: int, mean: tuple[float, ...], std: tuple[float, ...], seed: int
) -> Any:
    """Build a net, and see on images whether it is what was asked for."""

    def build(mean: tuple[float, ...], std: tuple[float, ...]) -> Any:
        try:
            return answer(classes, mean, std, seed)
        except NotImplementedError:  # a blank
            raise
        except _BUILDING as error:
            text = f"{type(error).__name__}: {error}"
            raise Refused(f"expected a torch.nn.Module, but making it raises {text}") from None

    with torch.random.fork_rng(devices=[]), torch.no_grad():  # an answer seeds the generator
        net = build(mean, std)
        if net is None or net is Ellipsis:
            return None
        if not isinstance(net, nn.Module):
            raise Refused(f"expected a torch.nn.Module, got a value of type {type(net).__name__}")
        twin, bare = build(mean, std), build((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
        x = torch.rand(6, 3, 48, 48, generator=torch.Generator().manual_seed(seed))
        f = net(x)
        if not isinstance(f, torch.Tensor) or f.shape != (6, classes) or f.isnan().any():
            raise Refused(f"expected logits (6, {classes}) of 6 images, without a NaN")
        # in training mode a net looks at the whole batch, or draws at random
        alone = torch.cat([net(one[None]).reshape(1, -1) for one in x])
        if net.training or not _near(f, alone) or not _near(f, net(x)):
            raise Refused("it is in training mode")
        if not _near(f, twin(x)):
            raise Refused("a second one of the same seed has other weights")
        m, s = (torch.tensor(values).reshape(3, 1, 1) for values in (mean, std))
        if _bounded(bare(300 * (x - m) / s)):
            raise Refused("its values are no logits")
        if not _near(f, bare((x - m) / s)):
            raise Refused("no normalisation" if _near(f, bare(x)) else "another normalisation")
        return _takes(net, classes)


def _near(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Equal up to rounding in float32, set beside the spread of the values."""
    if one.shape != other.shape:
        return False
    return float((one - other).abs().max()) <= 1e-4 * float(one.abs().max().clamp_min(1e-3))


def _bounded(values: torch.Tensor) -> bool:
    """Do all lie in [0, 1], or are all logarithms of shares that sum to 1?"""
    shares = values.double()
    summed = (shares.exp().sum(-1) - 1).abs().max() < 1e-3
    return bool(((shares >= 0) & (shares <= 1)).all() or summed)


def _takes(net: nn.Module, classes: int) -> bool:
    """Images of another size, and no square ones?"""
    try:
        return net(torch.rand(2, 3, 32, 80)).shape == (2, classes)
    except Exception:  # each layer raises its own
        return False


def _net(
    classes: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    seed: int | None,
    *,
    normed: bool = True,
    last: nn.Module | None = None,
    training: bool = False,
    one_size: bool = False,
) -> nn.Module:
    """A right net, unless an option makes a mistake."""
    if seed is not None:
        torch.manual_seed(seed)
    side = 24  # of the feature maps of images of 48 pixels
    pool = nn.Identity() if one_size else nn.AdaptiveMaxPool2d(1)
    layers = nn.Sequential(
        *(nn.Conv2d(3, 12, 3, stride=2, padding=1), nn.BatchNorm2d(12), nn.ReLU(), pool),
        *(nn.Flatten(), nn.Linear(12 * side * side if one_size else 12, classes)),
        last or nn.Identity(),
    )
    m, s = (torch.tensor(values).reshape(3, 1, 1) for values in (mean, std))

    class Net(nn.Module):
        """The layers behind a normalisation."""

        def __init__(self) -> None:
            super().__init__()
            self.layers = layers

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layers((x - m) / s if normed else x)

    return Net().train(training)


EXERCISES = (
    Exercise(
        name="two_maps",
        number="04.1",
        title="Two figures called mAP",
        task="`two_maps(scores, labels)`: class mAP and mean per-image AP, two numbers, from scores"
        " and bool labels `(N, C)`. No two scores tie; every class has an image, every image a"
        " label.",
        points=4,
        minutes=20,
        cases=_scored,
        expected=_both,
        solution=two_maps,
        others=(_two_loops,),
        parts=("class mAP", "the mean per-image AP"),
        mutants=(
            mutant(
                "The two have changed places: class mAP ranks the images of a class, and comes"
                " first.",
                lambda scores, labels: two_maps(scores, labels)[::-1],
            ),
            mutant(
                "There is no threshold in it: the average precision looks at the whole ranking.",
                _thresholded,
                lambda scores, labels: _thresholded(scores + 0.5, labels),
            ),
            mutant(
                "The first is one ranking of all images and classes: rank the images of each class"
                " and take the mean over classes.",
                _pooled,
            ),
            mutant(
                "That is one precision; the average precision is the mean of P@i over the hits i.",
                _precisions,
            ),
            mutant(
                "Both are the mean over images: for class mAP rank the images of each class.",
                lambda scores, labels: [two_maps(scores, labels)[1]] * 2,
            ),
            mutant(
                "Both are the mean over classes: for the second rank the classes of each image.",
                lambda scores, labels: [two_maps(scores, labels)[0]] * 2,
            ),
        ),
        hints=(
            "Both are means of average precisions. What is ranked in the one, what in the other?",
            "Write the mean AP over the rows of a table, then use it on `scores.T` as well.",
            "AP of a ranking: the mean, over its hits i, of the precision at i.",
        ),
    ),
    Exercise(
        name="own_net",
        number="04.4",
        title="A net of your own",
        task="`own_net(classes, mean, std, seed)`: a `torch.nn.Module`, of any architecture, from"
        " images `(N, 3, H, W)` in [0, 1] of any size from 32 pixels to logits `(N, classes)`. Its"
        " first layer subtracts `mean` and divides by `std`, three numbers each, one a channel. It"
        " is in evaluation mode, and `torch.manual_seed(seed)` decides its weights.",
        points=3,
        minutes=30,
        cases=_channels,
        expected=lambda classes, mean, std, seed: True,
        solution=own_net,
        others=(_another, _net),
        mutants=(
            mutant(
                "Nothing is normalised: subtract mean and divide by std inside the net.",
                lambda *case: _net(*case, normed=False),
            ),
            mutant(
                "It normalises in another way: (x - mean) / std, each channel with its own.",
                lambda c, mean, std, seed: _net(c, mean, (1.0, 1.0, 1.0), seed),
                lambda c, mean, std, seed: _net(c, (0.0, 0.0, 0.0), std, seed),
            ),
            mutant(
                "It is in training mode, so an image's logits depend on its batch: call .eval().",
                lambda *case: _net(*case, training=True),
            ),
            mutant(
                "These are no logits: leave out the sigmoid or softmax at the end.",
                lambda *case: _net(*case, last=nn.Sigmoid()),
                lambda *case: _net(*case, last=nn.Softmax(dim=1)),
                lambda *case: _net(*case, last=nn.LogSoftmax(dim=1)),
            ),
            mutant(
                "Two nets of one seed differ: call torch.manual_seed(seed) before the layers.",
                lambda c, mean, std, seed: _net(c, mean, std, None),
            ),
            mutant(
                "It takes images of one size only: pool over the image before the linear layer.",
                lambda *case: _net(*case, one_size=True),
            ),
        ),
        hints=(
            "The layers of section 2 are a beginning; fewer and narrower ones will do.",
            "Normalise in a module of its own: keep mean and std with `register_buffer`, in the"
            " shape `(3, 1, 1)`.",
            "Seed, build, and return `nn.Sequential(...).eval()`; a pooling over the image makes"
            " its size disappear, and nothing comes after the last linear layer.",
        ),
        imports=("import torch", "from torch import nn"),
        call=_asked,
    ),
)
