"""Documentation: code blocks run, commands name what exists, numbers come from committed results."""

import importlib.util
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import types

import commands
import jax
import pytest
import shell_lines

from at_jax.terms import TERMS
from at_jax.training.settings import SECTIONS

ROOT = pathlib.Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
PAGES = [page for page in PAGES if "_build" not in page.parts]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
# An optional comment above a block, the language, and the text.
BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<reason>[^\n]+) -->\n)?^```(?P<language>\w+)\n(?P<text>.*?)^```$",
    re.M | re.S,
)
# Overrides with which the slow test trains.
SMALL = (
    "--config.epochs=2 --config.student=wrn_10_0.25 --config.teacher.model=wrn_10_0.25 "
    "--config.data.train_examples=60 --config.teacher.train_examples=60 --config.teacher.epochs=1 "
    "--config.batch_size=20 --config.teacher.drop_epochs=()"
)


def blocks(page, *languages):
    """(language, text, line, reason why it is not run or None) of the code blocks of a page."""
    content = page.read_text()
    for match in BLOCK.finditer(content):
        if match["language"] in languages:
            inside = re.search(r"^# not run: (.+)$", match["text"], re.M)
            reason = match["reason"] or (inside and inside[1])
            line = content.count("\n", 0, match.start("text"))
            yield match["language"], match["text"], line, reason


def shell(text):
    """Commands of a shell block; a backslash continues a line."""
    lines = text.replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


@pytest.fixture
def page_module(monkeypatch, tmp_path):
    """An empty module in which the blocks of a page run, in an empty folder."""
    module = types.ModuleType("documentation_page")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.chdir(tmp_path)
    return module


def run_python(page, text, line, module):
    code = compile("\n" * line + text, str(page), "exec")
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # the defaults
        exec(code, module.__dict__)


def with_python(page):
    return any(reason is None for _, _, _, reason in blocks(page, "python"))


def with_commands(page):
    return any(reason is None for _, _, _, reason in blocks(page, "bash", "console"))


@pytest.mark.usefixtures("compiled_once")
@pytest.mark.parametrize(
    "page", [p for p in PAGES if with_python(p)], ids=lambda page: str(page.relative_to(ROOT))
)
def test_python_blocks_of_a_page_run(page, page_module):
    for _, text, line, reason in blocks(page, "python"):
        if reason is None:
            run_python(page, text, line, page_module)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_shell_blocks_name_what_exists(page):
    for _, text, _, reason in blocks(page, "bash", "console", "shell"):
        for line in shell(text):
            shell_lines.check_line(line, runs=reason is None)


def test_shell_checks_find_mistakes():
    for line in (
        "make trian",
        "make train ARGSS=x",
        "at-jax trian",
        "at-jax predict --tpo 3",
        "at-jax train --config.at.bata=1",
        "at-jax tables --set at.bata=1",
        "python -m at_jax.figures maps --workdirs RUN",
        'gcloud --command "at-jax train --workdri=x"',
        'pip install ".[trian]"',
        "python -m benchmarks.gpus",
        "python -m benchmarks.together --divices=2",
    ):
        with pytest.raises(AssertionError):
            shell_lines.check_line(line, runs=False)
    with pytest.raises(AssertionError):
        shell_lines.check_line("curl address", runs=True)
    assert shell_lines.check_error("digts") and shell_lines.check_error("digits:metod=at")
    assert shell_lines.check_error("digits:method=att") and not shell_lines.check_error("digits")


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_flags_and_keys_in_the_text_exist(page):
    text = page.read_text()
    for key in re.findall(r"--config\.([\w.]*\w)", text):
        assert key in shell_lines.KEYS | {"KEY"}, f"there is no key {key}"
    sections = "|".join([*SECTIONS, *TERMS])
    for key in re.findall(rf"`((?:{sections})\.\w+)(?:=[^`]*)?`", text):
        assert key in shell_lines.KEYS, f"there is no key {key}"
    prose = BLOCK.sub("", text)
    for flag in re.findall(r"`(--[a-z]\w*)(?=[ =`])", prose):
        assert flag in shell_lines.all_flags() | {"--config", "--signal"}, (
            f"there is no flag {flag}"
        )


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_blocks_have_a_known_language(page):
    # A block of another language would be neither run nor checked.
    opened = re.findall(r"^```(?!$)(\{?[\w-]+\}?)", page.read_text(), re.M)
    assert set(opened) <= {
        *("python", "bash", "console", "json", "text"),
        *("{toctree}", "{results}", "{include}", "{code-cell}", "{at-jax-settings}"),
    }


def measured():
    """The module of the tables, which needs no Sphinx."""
    spec = importlib.util.spec_from_file_location("measured", DOCS / "extensions" / "measured.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def result_files():
    """(kind, file) of every committed result that a table can be made of."""
    results = ROOT / "results"
    yield from (("errors", path) for path in sorted(results.glob("*/table.json")))
    yield from (("trials", path) for path in sorted(results.rglob("search/table.json")))
    yield "cpu", results / "double_backprop.json"
    for path in sorted(results.glob("gpu/*.json")):
        yield from (("gpu-steps", path), ("gpu-convolutions", path))


@pytest.mark.parametrize(
    ("kind", "path"), list(result_files()), ids=lambda v: getattr(v, "stem", v)
)
def test_table_of_the_site_has_the_numbers_of_the_report(kind, path):
    # The Markdown next to the JSON was written by the program that measured.
    report = path.with_suffix(".md").read_text()
    header, rows = measured().KINDS[kind][0](json.loads(path.read_text()))
    assert rows and all(len(row) == len(header) for row in rows)
    for row in rows:
        for number in re.findall(r"(?<![\w.])\d+(?:\.\d+)(?![\w.])", " ".join(row[1:])):
            assert number in report, (row[0], number)


def test_table_of_errors_by_hand():
    path = ROOT / "results" / "cifar10_activation_15_epochs" / "table.json"
    _, rows = measured().errors(json.loads(path.read_text()))
    at = next(row for row in rows if row[0].endswith("(at)"))
    assert at[1:] == ["15.88", "15.61 to 16.03", "3", "-1.20 ± 0.90"]


# Column of the README's table to the study, and the condition of its rows.
COLUMNS = {
    "CIFAR-10 (JPEG q75)": ("cifar10_activation_15_epochs", ""),
    "same, 200 epochs": ("cifar10_activation_200_epochs", ""),
    "same, 500 labels": ("cifar10_few_labels", "500 labels"),
    "digits, 200 labels": ("digits_searched", ""),
}


def test_table_of_the_readme_has_the_means_of_its_studies():
    text = (ROOT / "README.md").read_text()
    lines = text[text.index("Test error in percent, means") :].splitlines()
    header, _, *rows = (
        [c.strip() for c in line.split("|")[1:-1]] for line in lines if line[:1] == "|"
    )
    assert header[1:] == list(COLUMNS)
    rows = rows[: [row[0] for row in rows].index("teacher") + 1]
    for column, (study, condition) in enumerate(COLUMNS.values(), 1):
        table = json.loads((ROOT / "results" / study / "table.json").read_text())
        means = {
            row["label"]: f"{row['mean']:.2f}"
            for row in table["rows"]
            if row["pair"].endswith(condition) and row["seeds"]
        }
        means["labels only"] = means["none"]
        means["teacher"] = f"{table['teachers'][0]['run']['test_error']:.2f}"
        shown = {re.sub("`|, temperature > 1", "", row[0]): row[column].strip("*") for row in rows}
        assert {k: v for k, v in shown.items() if v} == {k: means[k] for k, v in shown.items() if v}


def known_numbers():
    """Decimal numbers of results/: of its reports, and of the site's tables made of its JSON files."""
    texts = [path.read_text() for path in (ROOT / "results").rglob("*.md")]
    for kind, path in result_files():
        texts += [
            " ".join(row) for row in measured().KINDS[kind][0](json.loads(path.read_text()))[1]
        ]
    known = set(re.findall(r"(?<![\w.])\d+\.\d+(?![\w.])", " ".join(texts)))
    one_digit_image = f"{100 / 355:.2f}"
    beta_of_the_paper = f"{4 * 0.1 * 1000 / 64:.2f}"  # docs/methods.md derives it
    return known | {one_digit_image, beta_of_the_paper, "0.1"}


def test_readme_has_at_most_900_words():
    assert len((ROOT / "README.md").read_text().split()) <= 900


@pytest.mark.parametrize("name", ["README.md", "docs/results.md", "docs/double_backprop.md"])
def test_decimal_numbers_come_from_committed_results(name):
    text = BLOCK.sub("", (ROOT / name).read_text())
    text = re.sub(r"`[^`]*`|\]\([^)]*\)|arXiv:\S+", "", text)
    # Neither Python 3.11 nor jax 0.10.2 is a measurement.
    text = re.sub(r"(?:Python|jax|PyTorch|Apache|Flax) \d[\d.]*", "", text)
    found = set(re.findall(r"(?<![\w.])\d+\.\d+(?![\w.])", text))
    assert not found - known_numbers()


@pytest.mark.slow
def test_site_builds_without_warnings_and_needs_no_network(tmp_path):
    pytest.importorskip("myst_nb", reason="make docs installs requirements/docs.txt")
    nowhere = "http://127.0.0.1:9"
    environment = os.environ | {"http_proxy": nowhere, "https_proxy": nowhere, "no_proxy": ""}
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    done = subprocess.run(
        [*command, str(DOCS), str(tmp_path / "html")],
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    pages = list((tmp_path / "html").rglob("*.html"))
    assert len(pages) > 20
    loads = re.compile(
        r"<(?:script|img|link|iframe|source)\b[^>]*(?:src|href)=[\"']?(?:https?:)?//"
    )
    for path in [*pages, *(tmp_path / "html").rglob("*.css")]:
        text = path.read_text()
        assert not loads.search(text), path.name
        assert not re.search(r"url\([\"']?(?:https?:)?//|@import", text), path.name
    assert "<math" in (tmp_path / "html" / "methods.html").read_text()


@pytest.mark.slow
@pytest.mark.skipif(
    not (ROOT / "at_jax" / "__main__.py").exists(), reason="this version has no command at-jax"
)
@pytest.mark.usefixtures("compiled_once")
@pytest.mark.parametrize("page", [p for p in PAGES if with_commands(p)], ids=lambda p: p.name)
def test_blocks_of_a_page_with_commands_run(page, page_module, compiled):
    for language, text, line, reason in blocks(page, "python", "bash"):
        if reason is None and language == "python":
            run_python(page, text, line, page_module)
        elif reason is None:
            for command in shell(text):
                program, *words = shlex.split(command)
                assert program == "at-jax", command
                small = shlex.split(SMALL) if words[0] == "train" else []
                done = subprocess.run(
                    [sys.executable, "-m", "at_jax", *words, *small],
                    env=commands.environment(compiled), capture_output=True, text=True,
                )  # fmt: skip
                assert done.returncode == 0, done.stderr
