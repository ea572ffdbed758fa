"""The programs of this folder are checked by mypy, not collected."""

collect_ignore = ["user_program.py", "wrong_calls.py"]
