"""report.html: complete, self-contained, escaped."""

import html.parser
import re
import shutil
import subprocess

import numpy as np
import pytest

from at_jax.figures import report_page, style
from at_jax.figures.report_page import Agreement, Picture

RESULT = {
    "student": "wrn_10_1", "method": "at", "test_error": 4.25, "best_test_error": 4.0,
    "teacher_test_error": 0.5, "evaluated_on": "test", "parameters": 77562, "epochs": 100, "seed": 3,
    "images_per_second": None, "wall_seconds": 400.0, "device": "1 x cpu",
    "versions": {"jax": "0.10.2"}, "commit": None,
}  # fmt: skip


def page(tmp_path, **changes):
    figure, _ = style.figure(2, 1)
    style.save(figure, tmp_path / "a.png")
    given = {
        "result": RESULT,
        "keys": {"at.beta": 50.0, "transfer.points": ["a<-b"], "data.data_dir": "https://x.org"},
        "pictures": {"Curves": Picture(tmp_path / "a.png", style.stacked_png([figure]))},
        "class_names": ["cat", "<script>", "dog"],
        "confusion": np.array([[5, 0, 1], [0, 4, 0], [2, 0, 3]]),
        "agreement": Agreement(0.875, 0.0625, {"group1": 0.5, "group2": -0.25}),
        "fingerprint": "run 1234",
    }
    return report_page.page(**given | changes)


class Reader(html.parser.HTMLParser):
    """Collects tags and attributes, and checks that every tag is closed."""

    VOID = ("meta", "link", "img", "source")

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.open = [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_loads_nothing_from_a_network(tmp_path):
    text = page(tmp_path)
    reader = Reader(text)
    assert not {"script", "iframe", "object", "embed", "base", "form"} & set(reader.tags)
    for name, value in reader.attributes:
        assert not name.startswith("on")
        if name in ("src", "href", "srcset", "data", "action"):
            assert value.startswith("data:"), value
    styles = "".join(re.findall(r"<style>.*?</style>", text, re.S))
    assert not re.search(r"url\(|@import|//", styles)
    # The browser refuses everything else.
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in text


def test_images_shrink_to_narrow_windows_and_tables_scroll(tmp_path):
    text = page(tmp_path)
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in text
    assert text.count("<table") == len(re.findall(r'class="scroll"><table', text))
    assert "img { display: block; max-width: 100%; height: auto; }" in text
    assert "min-width: " not in text
    assert not re.search(r'class="scroll">\s*<img', text)


def test_narrow_windows_have_a_picture_of_their_own(tmp_path):
    text = page(tmp_path)
    found = re.findall(r'<source media="\(max-width: 40rem\)" srcset="data:image/png;base64,', text)
    assert len(found) == text.count("<img ") == 1
    assert "@media (max-width: 40rem)" in text


def test_a_comparison_is_a_table(tmp_path):
    rows = [("labels only", "6.76 %", "5.92 %"), ("<at> (this run)", "4.25 %", "4.00 %"),
            ("teacher", "0.50 %", "")]  # fmt: skip
    text = page(tmp_path, comparison=rows)
    assert "<th>method</th><th>last test error</th><th>best test error</th>" in text
    assert "<td>labels only</td><td>6.76 %</td><td>5.92 %</td>" in text
    assert "<td>&lt;at&gt; (this run)</td>" in text
    assert "Comparison" not in page(tmp_path)


def test_the_page_states_results_agreement_config_and_versions(tmp_path):
    text = page(tmp_path)
    for words in (
        "wrn_10_1, attention transfer", "test error 4.25 %", "4.00 %", "teacher error</td><td>0.50 %",
        "77,562", "6:40", "not measured", "top-1 agreement</td><td>87.50 %", "0.0625 nats",
        "group2</td><td>-0.250", "at.beta</td><td>50.0", "a&lt;-b", "jax</td><td>0.10.2",
        "commit</td><td>unknown", "15 test images", "<!-- run 1234 -->", "true \\ predicted",
    ):  # fmt: skip
        assert words in text, words
    assert "<th>&lt;script&gt;</th>" in text


def test_a_page_without_a_teacher_mentions_none(tmp_path):
    alone = RESULT | {"teacher_test_error": None, "method": "none"}
    text = page(tmp_path, agreement=None, result=alone, pictures={})
    assert "labels only" in text
    assert "Agreement" not in text and "teacher" not in text


def test_a_teacher_of_other_classes_has_no_error_and_no_agreement_of_classes(tmp_path):
    result = RESULT | {"teacher_test_error": None}
    text = page(tmp_path, result=result, agreement=Agreement(None, None, {"group1": 0.5}))
    assert "teacher error</td><td>not defined (different classes)" in text
    assert "top-1" not in text and "KL" not in text
    assert "correlation of maps at group1</td><td>0.500" in text


def test_many_classes_give_their_most_frequent_mistakes(tmp_path):
    counts = np.diag(np.full(30, 7))
    counts[4, 9], counts[5, 1] = 3, 6
    text = page(tmp_path, class_names=[f"c{i}" for i in range(30)], confusion=counts)
    assert "true \\ predicted" not in text
    first, second = "c5 predicted as c1</td><td>6", "c4 predicted as c9</td><td>3"
    assert text.index(first) < text.index(second)
    assert "predicted as c0" not in text


def test_a_confusion_that_is_too_wide_for_a_phone_is_a_list_there(tmp_path):
    counts = np.diag(np.full(15, 7))
    counts[4, 9] = 3
    text = page(tmp_path, class_names=[f"c{i}" for i in range(15)], confusion=counts)
    assert re.search(r'<div class="wide">.*true \\ predicted', text)
    assert re.search(r'<div class="narrow">.*c4 predicted as c9</td><td>3', text)
    assert 'class="narrow"' not in page(tmp_path)  # 3 classes fit


def test_digits_in_dark_cells_are_white(tmp_path):
    text = page(tmp_path)
    assert re.search(r"rgb\(0,72,128\);color:#fff\">4<", text)  # all 4 of their class
    assert "<td></td>" in text  # zeros are left out


@pytest.mark.skipif(
    not any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
    reason="Chromium is not installed",
)
def test_chromium_opens_the_page_without_errors(tmp_path):
    browser = next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome")))
    )
    (tmp_path / "report.html").write_text(page(tmp_path), encoding="utf-8")
    for width in (400, 1400):
        done = subprocess.run(
            [browser, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
             "--host-resolver-rules=MAP * ~NOTFOUND", f"--window-size={width},900",
             f"--user-data-dir={tmp_path / 'profile'}", f"--screenshot={tmp_path / f'{width}.png'}",
             (tmp_path / "report.html").as_uri()],
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0 and (tmp_path / f"{width}.png").exists(), done.stderr
        assert "CONSOLE" not in done.stderr
