"""The names of the methods: what the student learns from beside the labels."""

# What a method is made of, joined by '+' in any order.
PARTS = ("kd", "at", "f_actt", "gradient_at", "flip_symmetry", "min_l2")
# Those that ask the student alone.
WITHOUT_TEACHER = ("flip_symmetry", "min_l2")
# For messages: the parts alone, and the usual combinations.
METHODS = ("none", *PARTS, "at+kd", "gradient_at+kd")


def parts_of(method: str) -> tuple[str, ...]:
    """The parts of a method.

    Raises:
      ValueError: for a part that there is not, or one named twice.

    >>> parts_of("at+kd"), parts_of("none")
    (('at', 'kd'), ())
    """
    parts = () if method == "none" else tuple(method.split("+"))
    if len(set(parts)) < len(parts):
        raise ValueError(f"method must name each part once, got {method!r}: for example at+kd")
    if unknown := [part for part in parts if part not in PARTS]:
        raise ValueError(
            f"method must be one of {', '.join(METHODS)}, or other parts joined by '+', got {method!r}: "
            f"{unknown[0]!r} is none of {', '.join(PARTS)}"
        )
    return parts


def needs_teacher(method: str) -> bool:
    """Whether any part of a method compares the student with a teacher.

    >>> needs_teacher("flip_symmetry+kd"), needs_teacher("flip_symmetry")
    (True, False)
    """
    return any(part not in WITHOUT_TEACHER for part in parts_of(method))
