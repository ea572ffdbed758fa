"""Numbers reported in the paper: CIFAR-10 test error in percent, median of 5 runs.

Source: arXiv:1612.03928, tables 1 to 3. ``VERIFIED`` numbers were compared with a second, independent
printing of them. ``UNVERIFIED`` numbers are quoted from memory and still have to be compared.
"""

from typing import NamedTuple

__all__ = [
    "ACTIVATION", "GRADIENT", "MAPPINGS", "PAPER", "UNVERIFIED", "VERIFIED", "PaperResult", "Source",
]  # fmt: skip

VERIFIED, UNVERIFIED = "verified", "unverified"


class PaperResult(NamedTuple):
    """A published number.

    Attributes:
      error: test error in percent.
      status: ``VERIFIED`` or ``UNVERIFIED`` for the paper; another word for other sources.
    """

    error: float
    status: str


class Source(NamedTuple):
    """Where the published results of a table are from.

    Attributes:
      name: in a sentence, such as "the paper".
      label: for headings.
      statistic: of several runs; empty if it is not stated there.
    """

    name: str
    label: str
    statistic: str = ""

    @property
    def heading(self) -> str:
        """Heading of a column, in Markdown.

        >>> PAPER.heading
        '**paper**, median of 5'
        """
        return f"**{self.label}**" + (f", {self.statistic}" if self.statistic else "")


PAPER = Source("the paper", "paper", "median of 5")


# (student, teacher) -> method -> result; "teacher" is the teacher's own error.
ACTIVATION: dict[tuple[str, str], dict[str, PaperResult]] = {
    ("nin_thin_bn", "nin_wide_bn"): {
        "none": PaperResult(9.38, UNVERIFIED),
        "at": PaperResult(8.93, UNVERIFIED),
        "f_actt": PaperResult(9.05, UNVERIFIED),
        "kd": PaperResult(8.55, UNVERIFIED),
        "at+kd": PaperResult(8.33, UNVERIFIED),
        "teacher": PaperResult(7.28, UNVERIFIED),
    },
    ("wrn_16_1", "wrn_16_2"): {
        "none": PaperResult(8.77, VERIFIED),
        "at": PaperResult(7.93, UNVERIFIED),
        "f_actt": PaperResult(8.51, UNVERIFIED),
        "kd": PaperResult(7.41, UNVERIFIED),
        "at+kd": PaperResult(7.51, UNVERIFIED),
        "teacher": PaperResult(6.31, VERIFIED),
    },
    ("wrn_16_1", "wrn_40_1"): {
        "none": PaperResult(8.77, VERIFIED),
        "at": PaperResult(8.25, VERIFIED),
        "f_actt": PaperResult(8.62, UNVERIFIED),
        "kd": PaperResult(8.39, VERIFIED),
        "at+kd": PaperResult(8.01, UNVERIFIED),
        "teacher": PaperResult(6.58, VERIFIED),
    },
    ("wrn_16_2", "wrn_40_2"): {
        "none": PaperResult(6.31, VERIFIED),
        "at": PaperResult(5.85, VERIFIED),
        "f_actt": PaperResult(6.24, UNVERIFIED),
        "kd": PaperResult(6.08, VERIFIED),
        "at+kd": PaperResult(5.71, UNVERIFIED),
        "teacher": PaperResult(5.23, VERIFIED),
    },
}

# WRN-16-1 with teacher WRN-16-2, for several attention maps: (kind, p) -> result.
MAPPINGS: dict[tuple[str, float], PaperResult] = {
    ("sum", 1.0): PaperResult(7.99, UNVERIFIED),
    ("sum", 2.0): PaperResult(7.93, UNVERIFIED),
    ("sum", 4.0): PaperResult(8.09, UNVERIFIED),
    ("max", 1.0): PaperResult(8.08, UNVERIFIED),
}

# NIN-thin with teacher NIN-wide, without batch normalization, horizontal flips as the only augmentation:
# method -> result.
GRADIENT: dict[str, PaperResult] = {
    "none": PaperResult(13.5, UNVERIFIED),
    "min_l2": PaperResult(12.5, UNVERIFIED),
    "gradient_at": PaperResult(12.1, UNVERIFIED),
    "kd": PaperResult(12.1, UNVERIFIED),
    "flip_symmetry": PaperResult(11.8, UNVERIFIED),
    "at": PaperResult(11.2, UNVERIFIED),
}
