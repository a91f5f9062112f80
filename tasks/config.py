"""The configuration of a model: the numbers that exporter, engine, node and harness all read."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # so that a command can know a default without loading NumPy
    from perception.tasks.decoders import Decoder

INTERPOLATIONS = ("nearest", "linear", "area")
COLOR_ORDERS = ("rgb", "bgr")
LETTERBOXES = ("", "center", "corner")
TENSOR_DTYPES = ("float32", "uint8")
GREY = 128
WEIGHTS_SUFFIX = ".safetensors"
"""Of files that training writes, and that stand for a model wherever a name is asked for."""
PAD_GRID = 8
"""Pixels of a network's image, of which the part that a padded view covers is a multiple: so do its corners lie on
pixels of outputs of up to a quarter of the size."""
DEPTH_MODEL = "fastdepth_mobilenet_v2"
DETECTION_MODEL = "ssdlite_mobilenet_v2_robot"
ENHANCEMENT_MODEL = "ugdc_compact"
SEGMENTATION_MODEL = "ffnet_mobilenet_v2_indoor"
"""The models that run where nobody names another; config/pipelines says them too."""


@dataclass(frozen=True)
class Tensor:
    """A tensor of a model: its name, shape (batch first), unit ("m", "logit", "class", ...) and type."""

    name: str
    shape: tuple[int, ...]
    unit: str
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.dtype not in TENSOR_DTYPES:
            kind = type(self).__name__.lower()
            raise ValueError(f"dtype {self.dtype!r} of {kind} {self.name!r} is unknown; accepted: {TENSOR_DTYPES}")


class Input(Tensor):
    """A tensor that goes into a model."""


class Output(Tensor):
    """A tensor that comes out of a model."""


@dataclass(frozen=True)
class Part:
    """A part of a network that is an engine of its own.

    The network has a method called as the part, which takes `inputs`, by names of the network's inputs, an image first,
    and of outputs of parts before it, and gives `outputs`, in this order.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class ModelConfig:
    """Everything about a model that is not its weights. Travels in the ONNX metadata and beside every engine."""

    name: str
    task: str
    input_size: tuple[int, int]
    """(height, width) of the network's image in pixels."""
    outputs: tuple[Output, ...]
    more_inputs: tuple[Input, ...] = ()
    """What the network takes beside the image, in this order; or, if it `sees` none, in its place."""
    sees: bool = True
    """Whether an image is among the inputs."""
    parts: tuple[Part, ...] = ()
    """All parts of a network of which not all is computed equally often: engines are built of each."""
    part: str = ""
    """The part that this is the configuration of; empty: of a whole network."""
    color: str = "rgb"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Subtracted from the image scaled to [0, 1], channel by channel in the order `color`."""
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    interpolation: str = "linear"
    letterbox: str = ""
    """How an image of another aspect lies in the network's: "" stretched over all of it; otherwise undistorted with
    `pad_value` around, in the "center", or in the top left "corner"."""
    pad_value: int = GREY
    """What lies around an image that does not cover the network's input, in every channel."""
    size_divisor: int = 1
    """Height and width of the input must be multiples of this."""
    focal: tuple[float, float] | None = None
    """Training focal length over input size: (fx / width, fy / height). None: the task does not depend on the lens."""
    pads_narrow_views: bool = False
    """Whether an image that shows less than the training view is laid into it, grey around, as training did; otherwise
    it is stretched over the whole input. See `Fit`. Needs `focal`, and sides that are multiples of 8."""
    labels: tuple[str, ...] = ()
    """Names of the classes by number."""
    decoder: Decoder | None = None
    """How the outputs of a detector become boxes."""
    licence: str = "Apache-2.0"
    data_licence: str = ""
    """Licence of the data that the weights were trained on; empty for untrained models."""
    weights: str = ""
    """File name below models/weights; empty for untrained models."""
    weights_sha256: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    """Accuracy as measured on the evaluation split, e.g. {"delta1": 0.7}."""

    def __post_init__(self) -> None:
        height, width = self.input_size
        if height <= 0 or width <= 0 or height % self.size_divisor or width % self.size_divisor:
            raise ValueError(
                f"input size {height}x{width} of model {self.name!r} is not possible: "
                f"height and width must be positive multiples of {self.size_divisor}"
            )
        if self.pads_narrow_views and (self.focal is None or height % PAD_GRID or width % PAD_GRID):
            raise ValueError(
                f"model {self.name!r} cannot pad narrow views with focal {self.focal} and input size {height}x{width}: "
                f"give the training camera's focal, and a height and width that are multiples of {PAD_GRID}"
            )
        if self.color not in COLOR_ORDERS:
            raise ValueError(f"color {self.color!r} of model {self.name!r} is unknown; accepted: {COLOR_ORDERS}")
        if self.interpolation not in INTERPOLATIONS:
            raise ValueError(
                f"interpolation {self.interpolation!r} of model {self.name!r} is unknown; accepted: {INTERPOLATIONS}"
            )
        if self.letterbox not in LETTERBOXES or (self.letterbox and self.pads_narrow_views):
            raise ValueError(
                f"letterbox {self.letterbox!r} of model {self.name!r} is not possible; accepted: {LETTERBOXES}, and "
                "none with pads_narrow_views"
            )
        if not 0 <= self.pad_value <= 255:
            raise ValueError(f"pad_value {self.pad_value} of model {self.name!r} must lie between 0 and 255")
        if any(value <= 0 for value in self.std):
            raise ValueError(f"std {self.std} of model {self.name!r} must be positive")

    @property
    def inputs(self) -> tuple[Input, ...]:
        """All that goes in, an image first: "image", uint8 (1, height, width, 3) in the order `color`."""
        image = Input("image", (1, *self.input_size, 3), "level", "uint8")
        return (image, *self.more_inputs) if self.sees else self.more_inputs

    def of_part(self, name: str) -> ModelConfig:
        """The configuration of a part.

        Raises:
            ValueError: there is none of that name.
        """
        part = next((part for part in self.parts if part.name == name), None)
        if part is None:
            known = ", ".join(part.name for part in self.parts) or "none"
            raise ValueError(f"model {self.name!r} has no part {name!r}; its parts: {known}")
        tensors = {tensor.name: tensor for tensor in (*self.outputs, *self.inputs)}
        inputs = [tensors[name] for name in part.inputs if name != "image"]
        return self.replace(
            part=name,
            sees="image" in part.inputs,
            more_inputs=tuple(Input(x.name, x.shape, x.unit, x.dtype) for x in inputs),
            outputs=tuple(output for name in part.outputs for output in self.outputs if output.name == name),
        )

    def replace(self, **changes: Any) -> ModelConfig:
        """A copy with some fields changed, checked like a new one."""
        return dataclasses.replace(self, **changes)

    def to_json(self) -> str:
        """One line of JSON, keys sorted, so that equal configurations are equal bytes."""
        fields = dataclasses.asdict(self)
        if self.decoder:
            fields["decoder"]["kind"] = self.decoder.kind
        return json.dumps(fields, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> ModelConfig:
        """The inverse of `to_json`.

        Raises:
            ValueError: the text is not a model configuration; the message says what is wrong with it.
        """
        try:
            fields = json.loads(text)
            fields["outputs"] = tuple(_made(Output, tensor) for tensor in fields["outputs"])
            fields["more_inputs"] = tuple(_made(Input, tensor) for tensor in fields.get("more_inputs", ()))
            fields["parts"] = tuple(_made(Part, part) for part in fields.get("parts", ()))
            for name in ("input_size", "mean", "std", "focal", "labels"):
                if fields.get(name) is not None:
                    fields[name] = tuple(fields[name])
            if fields.get("decoder"):
                from perception.tasks.decoders import make_decoder

                fields["decoder"] = make_decoder(fields["decoder"])
            return cls(**fields)
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a model configuration of this version of perception: {error!r}") from error


def _made(kind: Callable[..., Any], fields: Mapping[str, Any]) -> Any:
    """Lists of JSON are tuples."""
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()})
