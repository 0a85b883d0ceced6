"""How victims are made: the paper's settings (Table 5), a modern recipe, others for two cores."""

from dataclasses import dataclass, replace

from tkmia_utils.validation import check_one_of


@dataclass(frozen=True)
class Recipe:
    """How a victim is made; everything here decides its weights, and nothing else does.

    Attributes
    ----------
    arch : str
        "small", "lite0" or a classifier of torchvision
        (:func:`tkmia_utils.victims.backbones.build`).
    weights : str
        Where it starts: "scratch", "imagenet", "download", or a file.
    widths : tuple of int
        Only for "small": channels of its 3x3 convolutions.
    epochs, batch : int
        Passes over the training set, and images a step over all devices together.
    head_epochs : int
        Passes that train only the last layer, on features computed once, before anything else.
    lr, weight_decay : float
        Of the optimiser.
    optimiser : {"adamw", "adam", "sgd"}
        SGD has momentum 0.9.
    schedule : {"onecycle", "constant"}
        The rate follows one cycle and peaks at lr, or stays.
    loss : {"bce", "asymmetric"}
        Binary cross-entropy a label, or the asymmetric loss (Ridnik et al., ICCV 2021; timm's).
    augment : {"shift", "crop", "mirror", "none"}
        Mirror half of the images; also shift by up to 4 pixels, or also zoom into a random part.
    freeze_norm : bool
        Leave the statistics of batch normalisation as they came: for few images.
    ema : float
        Decay of the exponential moving average of the weights, which is then kept; 0 is none.
    amp : bool
        Train in bfloat16 where that is safe (autocast); evaluation stays in float32.
    channels_last : bool
        Memory order of the weights, faster for large convolutions; kept with the victim.
    accumulate : int
        Parts a batch is cut into, one after the other, to fit the memory.
    seed : int
        Of the weights, the order of the images and the augmentation.
    """

    arch: str = "small"
    weights: str = "scratch"
    widths: tuple[int, ...] = (24, 48, 96, 96, 192)
    epochs: int = 14
    batch: int = 64
    head_epochs: int = 0
    lr: float = 4e-3
    weight_decay: float = 1e-2
    optimiser: str = "adamw"
    schedule: str = "onecycle"
    loss: str = "bce"
    augment: str = "shift"
    freeze_norm: bool = False
    ema: float = 0.0
    amp: bool = False
    channels_last: bool = False
    accumulate: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        check_one_of(self.optimiser, ("adamw", "adam", "sgd"), name="optimiser")
        check_one_of(self.schedule, ("onecycle", "constant"), name="schedule")
        check_one_of(self.loss, ("bce", "asymmetric"), name="loss")
        check_one_of(self.augment, ("shift", "crop", "mirror", "none"), name="augment")
        for name, least in (("epochs", 0), ("head_epochs", 0), ("batch", 1), ("accumulate", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{name}: expected an int >= {least}, got {value!r}")
        if not self.epochs + self.head_epochs:
            raise ValueError("epochs, head_epochs: expected at least one of them above 0")
        if self.batch % self.accumulate:
            raise ValueError(
                f"accumulate: expected a divisor of the batch of {self.batch}, "
                f"got {self.accumulate}"
            )
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema: expected a number in [0, 1), got {self.ema!r}")
        if not self.lr > 0 or not self.weight_decay >= 0:
            raise ValueError("lr, weight_decay: expected lr > 0 and weight_decay >= 0")


# Table 5 prints optimiser, batch, lr and weight decay, and Sec. B.3 the weights and the loss. It
# prints neither epochs nor schedule nor augmentation: those here are ours.
_PAPER = Recipe(
    arch="resnet101",
    weights="imagenet",
    epochs=20,
    lr=1e-4,
    weight_decay=1e-4,
    optimiser="adam",
    schedule="constant",
    augment="mirror",
)

RECIPES: dict[str, Recipe] = {
    "small": Recipe(channels_last=True),
    "voc": replace(_PAPER, arch="resnet50", optimiser="sgd", batch=32, epochs=30),
    "coco": replace(_PAPER, batch=128),
    "nus": replace(_PAPER, batch=64),
    "modern": Recipe(
        arch="resnet50",
        weights="imagenet",
        epochs=20,
        lr=2e-4,
        loss="asymmetric",
        augment="crop",
        ema=0.9997,
        amp=True,
        channels_last=True,
    ),
    "photos": Recipe(
        arch="lite0",
        weights="imagenet",
        head_epochs=10,
        epochs=3,
        batch=32,
        lr=3e-4,
        augment="mirror",
        freeze_norm=True,
        ema=0.98,
        channels_last=True,
    ),
}
"""By name: "small" for the embedded default, the paper's three, "modern", and "photos"."""


def recipe(name: str, **changes: object) -> Recipe:
    """A recipe by name, with some of its settings changed.

    Parameters
    ----------
    name : str
        One of :data:`RECIPES`.
    **changes
        Settings of :class:`Recipe`; None leaves one as it is.

    Raises
    ------
    ValueError
        An unknown name or setting, or a value out of range.
    """
    check_one_of(name, tuple(RECIPES), name="recipe")
    given = {key: value for key, value in changes.items() if value is not None}
    for key in given:
        check_one_of(key, tuple(Recipe.__dataclass_fields__), name="recipe: setting")
    return replace(RECIPES[name], **given)
