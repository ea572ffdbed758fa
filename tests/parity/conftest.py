"""Scripts of this folder that are run by hand or by a test, never collected."""

collect_ignore = [
    "make_fixture.py",
    "make_second_order.py",
    "check_float64.py",
    "check_second_order.py",
]
