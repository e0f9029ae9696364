"""What a training run is told, checked.

`TrainOptions` is the one place with default values; each field is an option of the command line and a key of
the configuration file, by the same name. What a network, a loss, a schedule or an optimiser refuses is said
where it is made: their own options are built here of the fields that have their names.
"""

from __future__ import annotations

import math
import tomllib
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Final, TypeVar

from tiler.errors import UsageError
from tiler.toml import to_toml
from train.data.options import LAYOUTS, AugmentOptions, DataOptions, SampleOptions
from train.losses.options import ACTIVATIONS, BY_PIXEL, LossOptions
from train.models.options import ACTIVATIONS as NONLINEARITIES
from train.models.options import BLOCKS, DOWNS, DROPOUTS, HALVINGS, NORMS, PADDINGS, SHUFFLES, UPS
from train.models.presets import NetworkOptions
from train.optimizers import OPTIMIZERS, OptimizerOptions
from train.report.palette import PALETTES
from train.schedules import SCHEDULES, ScheduleOptions
from train.stages import Stage
from train.told import told

if TYPE_CHECKING:
    from train.models.geometry import Geometry

PRECISIONS: Final = ("no", "bf16", "fp16")
MEANS: Final = ("mean-iou", "mean-dice")
DATA, CROPS, NETWORK, LOSS, OPTIMISER, RUN = "Data", "Crops", "Network", "Loss", "Optimiser", "Run"
GROUPS: Final = (DATA, CROPS, NETWORK, LOSS, OPTIMISER, RUN)
"""Headings of the help, in its order."""
FREE: Final = ("device", "threads", "workers", "recompute", "report", "palette", "tensorboard")
"""A run may be carried on with others of these."""
S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """Everything that determines a run, but for where it writes; its fields say what they are."""

    # --- data
    classes: tuple[str, ...] = told(
        (), "Names of the mask's values 0, 1, ...; 255 is not known.", DATA, metavar="NAME,NAME"
    )
    data: tuple[str, ...] = told(
        (), "A folder in a known layout; may be repeated.", DATA, metavar="DIR", repeated=True
    )
    layout: str = told("auto", "Of those folders.", DATA, choices=LAYOUTS)
    pair: tuple[tuple[str, str], ...] = told(
        (), "A raster and its labels; may be repeated.", DATA, metavar="RASTER LABELS"
    )
    images: str | None = told(None, "Folder of images, each one a whole.", DATA, metavar="DIR")
    masks: str | None = told(None, "Folder of their masks: NAME.* or NAME_mask.*.", DATA, metavar="DIR")
    manifest: str | None = told(None, "CSV of the columns image, mask, part.", DATA, metavar="FILE")
    coding: str = told("index", "What values mean; tiler labels --help says.", DATA, metavar="TEXT")
    independent: bool = told(False, "Classes may overlap: a yes or no for each.", DATA)
    field: str | None = told(None, "Attribute of polygons that tells their class.", DATA, metavar="NAME")
    outside: str = told("", "Class of pixels in no polygon.  [the first]", DATA, metavar="CLASS")
    bands: tuple[int, ...] | None = told(
        None, "Band numbers, from 1.  [all but alpha]", DATA, metavar="N,N.."
    )
    rgb: bool = told(False, "Grey images become three equal bands.", DATA)
    nodata: float | None = told(None, "Value of invalid pixels, over what files say.", DATA)
    resolution: float | None = told(None, "Metres per pixel to train at.  [the rasters' own]", DATA)
    mpp: float | None = told(None, "Micrometres per pixel of slides.  [level 0]", DATA)
    resize: str | None = told(None, "Of pictures: 0.5, stretch:96 or letterbox:512.", DATA, metavar="HOW")
    val: float = told(0.15, "Share of the data that chooses the best epoch.", DATA)
    test: float = told(0.25, "Share of the data kept unseen for the end.", DATA)
    attribution: str = told("", "Origin and licence of the data, kept in the model.", DATA, metavar="TEXT")

    # --- crops
    crop: int = told(192, "Side of a training crop, pixels.", CROPS)
    crops_per_epoch: int = told(320, "Crops per pass, up to whole batches; 0: cover the data.", CROPS)
    balance: float = told(0.0, "Share of crops at a pixel of a class drawn evenly.", CROPS)
    border_weight: float = told(0.0, "Pixels between objects count up to this more.", CROPS)
    border_sigma: float = told(5.0, "Width of such gaps, pixels.", CROPS)
    weigh_classes: bool = told(False, "Classes count alike, however frequent.", CROPS)
    flip_horizontal: float = told(0.5, "Probability of exchanging left and right.", CROPS)
    flip_vertical: float = told(0.0, "Probability of exchanging top and bottom.", CROPS)
    quarter_turns: float = told(1.0, "Probability of quarter turns.", CROPS)
    zoom: tuple[float, ...] = told((1.0, 1.0), "Range of the magnification.", CROPS, metavar="A,B")
    aspect: float = told(0.0, "Height against width, 1 +- this.", CROPS)
    rotate: float = told(0.0, "Largest angle, degrees.", CROPS)
    shift: float = told(0.0, "Largest shift, share of the crop's side.", CROPS)
    elastic: float = told(0.0, "Deviation of a bent 3 x 3 grid, pixels.", CROPS)
    hue: float = told(0.0, "Largest change of hue, turns; of RGB.", CROPS)
    saturation: float = told(0.0, "Saturation times 1 +- this; of RGB.", CROPS)
    value: float = told(0.0, "Value (of HSV) times 1 +- this; of RGB.", CROPS)
    contrast: float = told(0.25, "Contrast up to times 1 + this.", CROPS)
    brightness: float = told(0.25, "Largest brightness added, deviations.", CROPS)
    band_contrast: float = told(0.0, "Contrast of each band by itself.", CROPS)
    band_brightness: float = told(0.15, "Deviation of what is added to each band.", CROPS)
    noise: float = told(0.0, "Deviation of noise added to each pixel.", CROPS)
    shuffle_bands: float = told(0.0, "Probability of any order of bands.", CROPS)

    # --- network
    preset: str = told("unet", "A known network and its recipe; see --list-presets.", NETWORK, metavar="NAME")
    width: int | None = told(None, "Channels of its first block.", NETWORK)
    depth: int | None = told(None, "How often its sides are halved, 1 to 6.", NETWORK)
    up: str | None = told(None, "How it grows back.", NETWORK, choices=UPS)
    down: str | None = told(None, "How its sides are halved.", NETWORK, choices=DOWNS)
    padding: str | None = told(None, "Of 3x3 convolutions.", NETWORK, choices=PADDINGS)
    norm: str | None = told(None, "After convolutions.", NETWORK, choices=NORMS)
    nonlinearity: str | None = told(None, "After norms.", NETWORK, choices=NONLINEARITIES)
    slope: float | None = told(None, "Of leaky below zero.", NETWORK)
    dropout: float | None = told(None, "Share dropped after each convolution.", NETWORK)
    dropout_kind: str | None = told(None, "What is dropped.", NETWORK, choices=DROPOUTS)
    bias: bool | None = told(None, "Convolutions before a norm have a bias.", NETWORK)
    halving: str | None = told(None, "Where interpolation halves channels.", NETWORK, choices=HALVINGS)
    skip_first: bool | None = told(None, "Skips are joined before what has grown.", NETWORK)
    head_kernel: int | None = told(None, "Side of the last convolution, 1 or 3.", NETWORK)
    odd: bool | None = told(None, "It takes any size, and pads on the way up.", NETWORK)
    block: str | None = told(None, "Two convolutions, or more links.", NETWORK, choices=BLOCKS)
    dilation: int | None = told(None, "Of the bottom's convolutions.", NETWORK)
    attention: bool | None = told(None, "Skips pass gates.", NETWORK)
    upscale: int | None = told(None, "Scores per pixel along a side.", NETWORK)
    shuffle: str | None = told(None, "Order of channels of --upscale.", NETWORK, choices=SHUFFLES)
    supervision: bool | None = told(None, "UNet++: a head on every node of the first row.", NETWORK)
    init: str = told("default", "default, normal, xavier, kaiming or orthogonal.", NETWORK, metavar="KIND")
    weights: str | None = told(
        None, "Weights to start from: a checkpoint or a state dict.", NETWORK, metavar="FILE"
    )

    # --- loss
    loss: str = told("ce+dice", "A sum of terms like 0.5*bce+dice-image.", LOSS, metavar="TERMS")
    activation: str = told(
        "softmax", "Classes exclude each other, or (sigmoid) do not.", LOSS, choices=ACTIVATIONS
    )
    class_weights: tuple[float, ...] = told((), "Of each class, in ce, bce and focal.", LOSS, metavar="W,W..")
    focal_gamma: float = told(2.0, "How fast focal forgets what is learnt.", LOSS)
    dice_smooth: float = told(0.0, "Pixels added to both sides of a Dice.", LOSS)
    dice_absent: bool = told(False, "Classes that do not occur count in Dice.", LOSS)

    # --- optimiser
    optimizer: str = told("adamw", "Its kind.", OPTIMISER, choices=OPTIMIZERS)
    lr: float = told(0.005, "Peak learning rate.", OPTIMISER)
    weight_decay: float = told(0.01, "Weight decay.", OPTIMISER)
    decay_all: bool = told(True, "Biases and norms decay too.", OPTIMISER)
    momentum: float = told(0.9, "Of sgd and rmsprop; of Adam the first beta.", OPTIMISER)
    beta2: float = told(0.999, "Second beta of Adam; rmsprop's share of the old.", OPTIMISER)
    nesterov: bool = told(False, "Momentum of sgd that looks ahead.", OPTIMISER)
    lr_batch: int = told(0, "Batch that --lr is for: others scale it. 0: none does.", OPTIMISER)
    lr_least: float = told(0.0, "Least peak after scaling.", OPTIMISER)
    lr_most: float = told(math.inf, "Largest peak after scaling.", OPTIMISER)
    schedule: str = told(
        "one-cycle",
        f"How the rate changes: {', '.join(SCHEDULES)}.",
        OPTIMISER,
        choices=tuple(SCHEDULES),
        metavar="NAME",
    )
    schedule_per: str = told("step", "When it changes.", OPTIMISER, choices=("step", "epoch"))
    warmup_epochs: float = told(0.0, "Length of a rise at the beginning.", OPTIMISER)
    warmup_start: float = told(1e-3, "Factor that the rise begins with.", OPTIMISER)
    warmup_power: float = told(1.0, "1: straight, 2: a parabola.", OPTIMISER)
    floor: float = told(0.0, "Factor that cosine, stairs and plateau end at.", OPTIMISER)
    floor_epochs: float = told(0.0, "How long cosine stays there.", OPTIMISER)
    power: float = told(0.9, "Of poly.", OPTIMISER)
    stairs: int = told(10, "Number of stairs.", OPTIMISER)
    gamma: float = told(0.5, "Factor of step, multistep and plateau.", OPTIMISER)
    step_epochs: float = told(20.0, "Epochs between steps.", OPTIMISER)
    milestones: tuple[float, ...] = told((), "Epochs of multistep.", OPTIMISER, metavar="E,E..")
    tail_epochs: float = told(0.0, "Length of the fall of linear-tail.", OPTIMISER)
    patience: int = told(5, "Evaluations that plateau waits for a better one.", OPTIMISER)
    batch: int = told(8, "Crops per step, of all processes together.", OPTIMISER)
    accumulate: int = told(1, "Pieces that a batch is computed in, to save memory.", OPTIMISER)
    clip: float = told(1.0, "Largest norm of the gradients. 0: any.", OPTIMISER)
    freeze_epochs: int = told(0, "First epochs, in which the encoder is frozen.", OPTIMISER)
    freeze_lr: float | None = told(None, "Peak learning rate in them.  [--lr]", OPTIMISER)
    freeze_batch: int | None = told(None, "Crops per step in them.  [--batch]", OPTIMISER)
    freeze_norm: bool = told(False, "Batch norms keep their statistics, in all epochs.", OPTIMISER)
    sync_norm: bool = told(False, "Batch norms see all processes' samples (GPUs only).", OPTIMISER)
    average: float = told(0.1, "Weights are averaged over this share of all steps.", OPTIMISER)

    # --- run
    epochs: int = told(30, "Passes.", RUN)
    eval_every: int = told(1, "Epochs between evaluations on the validation part.", RUN)
    best_by: str = told("mean-iou", "mean-iou, mean-dice, or a class: its IoU.", RUN, metavar="NAME")
    early_stop: int = told(0, "Stop after N evaluations without a better one. 0: never.", RUN, metavar="N")
    keep_every: int = told(0, "Keep the weights of every N-th epoch. 0: of none.", RUN, metavar="N")
    seed: int = told(0, "Of everything random.", RUN)
    precision: str = told("no", "Mixed precision.", RUN, choices=PRECISIONS)
    recompute: bool = told(False, "Compute activations twice, to save memory.", RUN)
    device: str = told("auto", "Where to compute.", RUN, choices=("auto", "cpu", "cuda"))
    threads: int | None = told(None, "CPU threads.  [as PyTorch chooses]", RUN)
    workers: int = told(0, "Processes that read crops; they share 1 GiB.", RUN)
    tta: bool = told(False, "The final evaluation averages over flips and turns.", RUN)
    report: bool = told(True, "Write OUTDIR/report too: tables, charts, pictures.", RUN)
    palette: str = told("own", "Colours of the report.", RUN, choices=PALETTES)
    tensorboard: bool = told(False, "Write OUTDIR/tensorboard too.", RUN)

    def __post_init__(self) -> None:
        self._check_loop()
        self._check_stages()
        # Each of these checks its own.
        self.data_options()
        self.augment_options()
        self.sample_options()
        self._check_crop()
        self._check_activation()
        self._check_weights()
        self.loss_options().check_channels(self.channels)
        self.optimizer_options()
        self.schedule_options().check_epochs(self.epochs)

    def _check_loop(self) -> None:
        self._check_least(1, "crop", "batch", "accumulate", "epochs", "eval_every", "threads")
        self._check_least(0, "crops_per_epoch", "early_stop", "keep_every", "workers", "clip")
        if self.precision not in PRECISIONS:
            raise UsageError(f"--precision is one of {', '.join(PRECISIONS)}, got {self.precision!r}")
        if not 0 <= self.average <= 1:
            raise UsageError(f"--average is a share of all steps, 0 to 1, got {self.average}")
        if self.best_by not in (*MEANS, *self.classes):
            raise UsageError(f"--best-by is {', '.join((*MEANS, *self.classes))}, got {self.best_by!r}")

    def _check_activation(self) -> None:
        if self.independent and self.activation != "sigmoid":
            raise UsageError("--independent classes go with --activation sigmoid, and a --loss like bce+dice")
        if self.independent and self.weigh_classes:
            raise UsageError("--weigh-classes is for classes that exclude each other, not --independent ones")
        if self.activation == "sigmoid" and not self.independent and len(self.classes) != 2:
            raise UsageError(
                f"--activation sigmoid is for two classes, or any number of --independent ones, "
                f"got {len(self.classes)}; use softmax, or --independent"
            )

    def _check_weights(self) -> None:
        """Refuse weights that have no effect."""
        for name in ("class_weights", "weigh_classes", "border_weight"):
            if getattr(self, name) and not self.loss_options().by_pixel:
                raise UsageError(
                    f"{_flag(name)} is of {', '.join(BY_PIXEL)}, got {self.loss!r}; "
                    "add one of them to --loss, or do without it"
                )

    def _check_crop(self) -> None:
        """A crop's pixels are those of its labels: a network of finer scores is fed their means."""
        geometry = self._geometry
        fed = f", which is fed 1 of {geometry.scale} pixels along a side" if geometry.scale > 1 else ""
        if self.crop % geometry.scale:
            raise UsageError(f"--crop is a multiple of --upscale {geometry.scale}, got {self.crop}")
        try:
            geometry.out_size(self.crop // geometry.scale)
        except UsageError as error:
            raise UsageError(f"--crop {self.crop} does not suit the network{fed}: {error}") from None
        least = 2 * geometry.stride * geometry.scale
        alone = min(self.batch, self.freeze_batch or self.batch) <= self.accumulate
        if self.crop < least and not geometry.margin and (alone or self.norm == "instance"):
            raise UsageError(
                f"--crop {self.crop} leaves one pixel at the bottom of the network, which has no deviation "
                f"to be normalised by; use at least {least}"
            )

    def _check_stages(self) -> None:
        if not 0 <= self.freeze_epochs <= self.epochs:
            raise UsageError(f"--freeze-epochs is 0 to --epochs {self.epochs}, got {self.freeze_epochs}")
        for name in ("freeze_lr", "freeze_batch"):
            value = getattr(self, name)
            if value is not None and not self.freeze_epochs:
                raise UsageError(f"{_flag(name)} is of --freeze-epochs, got none; give them, or leave it out")
            if value is not None and not value > 0:
                raise UsageError(f"{_flag(name)} is above 0, got {value}")
        if self.freeze_norm and self.sync_norm:
            raise UsageError("--freeze-norm and --sync-norm exclude each other, got both; give one")

    def _check_least(self, least: int, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            if value is not None and not value >= least:
                raise UsageError(f"{_flag(name)} is at least {least}, got {value}")

    def data_options(self) -> DataOptions:
        """Of the data alone."""
        return self._part(DataOptions)

    def augment_options(self) -> AugmentOptions:
        """Of the augmentation alone."""
        return self._part(AugmentOptions)

    def sample_options(self) -> SampleOptions:
        """Of the choice and the weights of samples alone."""
        return self._part(SampleOptions)

    def network_options(self) -> NetworkOptions:
        """Of the network alone; what it calls activation is told as ``nonlinearity``."""
        return self._part(NetworkOptions, activation=self.nonlinearity)

    def loss_options(self) -> LossOptions:
        """Of the loss alone."""
        return self._part(LossOptions)

    def optimizer_options(self) -> OptimizerOptions:
        """Of the optimiser alone."""
        return self._part(OptimizerOptions)

    def schedule_options(self) -> ScheduleOptions:
        """Of the schedule alone."""
        return self._part(ScheduleOptions)

    def _part(self, kind: type[S], **other: Any) -> S:  # noqa: ANN401 - values of options
        names = {f.name for f in fields(kind)} - other.keys()  # type: ignore[arg-type] # a dataclass
        return kind(**{name: getattr(self, name) for name in names}, **other)

    @property
    def channels(self) -> int:
        """Scores per pixel: one per class, or under ``sigmoid`` a single one for the no and yes of two."""
        return 1 if self.activation == "sigmoid" and not self.independent else len(self.classes)

    @property
    def _geometry(self) -> Geometry:
        """Of the network, whatever the number of bands."""
        return self.network_options().options(1, self.channels).geometry

    @property
    def margin(self) -> int:
        """Pixels at each side of a crop that get no score."""
        return self._geometry.margin * self._geometry.scale

    @property
    def stages(self) -> tuple[Stage, ...]:
        """One, or two if the encoder is frozen first."""
        optimizer = self.optimizer_options()
        batch = self.freeze_batch or self.batch
        lr = self.freeze_lr or optimizer.peak(batch)
        first = Stage(range(self.freeze_epochs), True, batch, lr, self._steps(batch))
        rest = range(self.freeze_epochs, self.epochs)
        second = Stage(rest, False, self.batch, optimizer.peak(self.batch), self._steps(self.batch))
        return tuple(stage for stage in (first, second) if stage.epochs)

    def _steps(self, batch: int) -> int:
        return math.ceil(self.crops_per_epoch / batch)

    @property
    def steps(self) -> int:
        """Of the optimizer, in the whole run."""
        return sum(stage.steps * len(stage.epochs) for stage in self.stages)

    def to_toml(self) -> str:
        """One ``key = value`` line per option that is set; the file can be given as ``--config``."""
        return to_toml(asdict(self))

    def check_same(self, before: dict[str, Any]) -> None:
        """Refuse to carry on a run that began with other options, as its file holds them.

        Raises
        ------
        UsageError
            naming the first option that differs.
        """
        now = tomllib.loads(self.to_toml())
        for key in sorted((before.keys() | now.keys()) - set(FREE)):
            if not _same(before.get(key), now.get(key)):
                raise UsageError(
                    f"a run is carried on with the options it began with: {_flag(key)} was "
                    f"{before.get(key, 'not given')}, got {now.get(key, 'nothing')}; "
                    "give the old value, or --overwrite to start anew"
                )


def _same(one: object, other: object) -> bool:
    """Whether two values are equal: NaN, which nodata may be, to itself, and an empty list to none at all."""
    nothing = one in (None, []) and other in (None, [])
    return nothing or one == other or (one != one and other != other)  # noqa: PLR0124


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
