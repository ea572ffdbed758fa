"""The errors of a run and of its comparison runs, as text."""

from collections.abc import Iterable, Mapping
from typing import Any

from at_jax import terms

__all__ = ["table"]


def table(results: Iterable[Mapping[str, Any]]) -> str:
    """Format the errors of a comparison, one method per line, and that of the teacher.

    Args:
      results: content of each result.json, in the order of the lines.

    >>> alone = {"method": "none", "test_error": 6.76, "best_test_error": 6.5, "teacher_test_error": None,
    ...          "evaluated_on": "test"}
    >>> print(table([alone, alone | {"method": "at", "test_error": 4.23, "teacher_test_error": 0.56}]))
                                test error     best
      labels only                   6.76 %   6.50 %
      attention transfer (at)       4.23 %   6.50 %
      teacher                       0.56 %
    """
    results = list(results)
    methods = [each["method"] for each in results]
    names = [terms.title(m) + ("" if m == "none" else f" ({m})") for m in methods]
    width = max(map(len, names))
    lines = [f"  {'':<{width}}  {results[0]['evaluated_on'] + ' error':>11}     best"]
    for name, result in zip(names, results, strict=True):
        errors = f"{result['test_error']:>9.2f} %  {result['best_test_error']:>5.2f} %"
        lines.append(f"  {name:<{width}}  {errors}")
    teacher = [r["teacher_test_error"] for r in results if r["teacher_test_error"] is not None]
    if teacher:
        lines.append(f"  {'teacher':<{width}}  {teacher[0]:>9.2f} %")
    return "\n".join(lines)
