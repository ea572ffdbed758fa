"""Scripts of this folder are run by hand or by a test, not collected."""

collect_ignore_glob = ["make_*.py", "check_*.py"]
