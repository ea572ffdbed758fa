"""Scripts of this folder are run manually or by a test, not collected."""

collect_ignore = [
    "make_efficientnet.py",
    "make_fixture.py",
    "make_second_order.py",
    "check_float64.py",
    "check_second_order.py",
]
