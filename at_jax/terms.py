"""The terms beside the cross-entropy: their names, by which they are weighed, and their options."""

import dataclasses

ATTENTION = "attention"
ACTIVATION = "activation"
GRADIENT_AT = "gradient_at"
FLIP_SYMMETRY = "flip_symmetry"
MIN_L2 = "min_l2"


@dataclasses.dataclass(frozen=True)
class Distillation:
    """Hinton's distillation in place of the cross-entropy.

    Attributes:
      temperature: T > 0.
      alpha: share of the soft targets, 0..1.
    """

    temperature: float = 4.0
    alpha: float = 0.9


@dataclasses.dataclass(frozen=True)
class Attention:
    """Activation-based attention transfer, summed over the transfer points.

    Attributes:
      kind: ``"sum"``, ``"max"`` or ``"channel"``.
      p: the exponent of the maps.
      convention: ``"code"`` or ``"paper"``.
    """

    kind: str = "sum"
    p: float = 2
    convention: str = "code"


@dataclasses.dataclass(frozen=True)
class InputGradient:
    """A term on the input gradient J of the cross-entropy. Training on it differentiates twice.

    Attributes:
      squared: half the square of the l2 norm in place of half the norm.
    """

    squared: bool = False
