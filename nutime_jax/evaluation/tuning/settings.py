"""What can be chosen about fine-tuning."""

import dataclasses
import math
from dataclasses import dataclass

from nutime_jax.errors import InputError

CHOICES = {
    "strategy": ("full", "head"),
    "head_norm": ("batch", "layer", "none"),
    "readout": ("cls", "mean", "cls+mean", "all"),
    "channels": ("fusion", "independent"),
    "reduction": ("variance", "pca"),
    "selection": ("train", "published"),
}


@dataclass(frozen=True)
class TuningSettings:
    """The choices of fine-tuning; those that are refused are told at once.

    strategy: "full" trains everything, "head" what is fresh alone: the head, its norm and the fusion of channels.
    head_norm: what normalises the feature before the linear head: "batch", "layer" or "none". Features of an encoder that
        has seen little hardly differ from case to case: with "none", a frozen one's validation loss was 0.65 on GunPoint and
        0.98 on ArrowHead (quickstart's untrained twin), with "batch" 0.35 and 0.81.
    readout: the feature, see `models.readouts.read_out`; "cls" is published.
    channels: "fusion" (published) or "independent"; see `models.heads.Classifier`.
    max_channels: sets with more channels are brought down to so many.
    reduction: how: the channels of largest "variance", or "pca"; see `evaluation.tuning.channels`.
    epochs: passes over the training cases, at most; the learning rate reaches 0 at the last.
    least_updates: where so many passes make fewer updates than this, as many are made as make these, and `patience` grows alike.
    batch_size: cases an update. A small set is gone through more than once in its last batch.
    rates: peak learning rates, tried side by side; the one that validates best is kept, for each member.
    members: networks of different seeds whose probabilities are averaged.
    warmup: share of all updates in which the learning rate rises.
    weight_decay: of AdamW, on all that is trained.
    layer_decay: factor of the learning rate from one block to the block below it; 1 is none.
    smoothing: share of a label that is spread over all classes.
    crop: smallest and largest share of a series that a training view keeps; (1, 1) is no augmentation.
    selection: "train" validates on cases carved from the training split. "published" validates on the *test* split, as
        the paper's numbers were made: what it reports is not an estimate of anything, and is marked.
    validation: share of every class that is carved from the training split.
    patience: epochs without improvement after which a member stops; 0 is never.
    shifts: how often a case is cut into windows when it is labelled, a share of a window further on each time; probabilities are
        averaged. Training and validation take one cut: crops of training begin anywhere.
    refit: whether the networks are trained anew on all training cases once rate and epoch are chosen, those that validate best
        on average over the members. Otherwise a member has never seen the cases that it was validated on.
    """

    strategy: str = "full"
    head_norm: str = "batch"
    readout: str = "cls"
    channels: str = "fusion"
    max_channels: int = 32
    reduction: str = "variance"
    epochs: int = 60
    least_updates: int = 0
    batch_size: int = 16
    rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3)
    members: int = 1
    warmup: float = 0.1
    weight_decay: float = 0.05
    layer_decay: float = 1.0
    smoothing: float = 0.0
    crop: tuple[float, float] = (0.8, 1.0)
    selection: str = "train"
    validation: float = 0.2
    patience: int = 20
    shifts: int = 1
    refit: bool = False

    def __post_init__(self):
        object.__setattr__(self, "rates", tuple(float(rate) for rate in self.rates))
        object.__setattr__(self, "crop", tuple(float(share) for share in self.crop))
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise InputError(f"{name} {getattr(self, name)!r} is unknown; choose one of {', '.join(choices)}")
        for name in ("max_channels", "epochs", "batch_size", "members", "shifts"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; choose 1 or more")
        if not self.rates or not all(0 < rate < math.inf for rate in self.rates):
            raise InputError(f"rates are {self.rates}; give one or more numbers above 0")
        if len(set(self.rates)) < len(self.rates):
            raise InputError(f"rates are {self.rates}; name each once")
        if not 0 < self.layer_decay <= 1:
            raise InputError(f"layer_decay is {self.layer_decay}; choose a number above 0, up to 1 (none)")
        for name in ("patience", "weight_decay", "least_updates"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} is {getattr(self, name)}; choose 0 or more")
        for name in ("warmup", "smoothing", "validation"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; choose a share from 0 to below 1")
        if len(self.crop) != 2 or not 0 < self.crop[0] <= self.crop[1] <= 1:
            raise InputError(f"crop is {self.crop}; give two shares, low <= high, above 0 and up to 1")

    def lengthened(self, cases: int) -> "TuningSettings":
        """The same, with as many epochs as make `least_updates` with so many training cases."""
        updates = self.epochs * math.ceil(cases / self.batch_size)
        factor = max(1.0, self.least_updates / updates)
        return dataclasses.replace(self, epochs=math.ceil(self.epochs * factor), patience=math.ceil(self.patience * factor))

    def words(self) -> str:
        """The strategy, and whatever differs from the defaults: what a row of results says of its setting."""
        other = [f for f in dataclasses.fields(self) if f.name != "strategy" and getattr(self, f.name) != f.default]
        parts = [f"strategy={self.strategy}"]
        for field in other:
            value = getattr(self, field.name)
            parts.append(f"{field.name}={','.join(f'{one:g}' for one in value) if isinstance(value, tuple) else value}")
        return " ".join(parts)
