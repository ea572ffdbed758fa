"""Identity of a data set."""

import unicodedata

import numpy as np
import pytest

from at_jax.data.identity import Identity, class_difference, identify

LABELS = np.array([0, 1, 1], np.int32)
SIDES = ("there", "here")


def test_identify_depends_on_labels_names_and_order():
    names = ["a/1", "b/2", "b/3"]
    same = identify(LABELS.astype(np.int64), iter(names))
    assert same == identify(LABELS, names) and same.images == 3
    others = [
        identify(LABELS[::-1], names),
        identify(LABELS, names[::-1]),
        identify(LABELS, [*names[:2], "b/4"]),
        identify(LABELS[:2], names[:2]),
        identify(LABELS),
        identify(LABELS, images=np.zeros((3, 2, 2, 1), np.uint8)),
        identify(LABELS, images=np.zeros((3, 1, 4, 1), np.uint8)),
    ]
    assert len({same, *others}) == 8


def test_identify_and_class_difference_ignore_the_unicode_form():
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    assert composed != decomposed
    assert identify(LABELS[:1], [composed]) == identify(LABELS[:1], [decomposed])
    assert class_difference([composed], [decomposed], SIDES) is None


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("ab", "ab", None),
        ("ab", "ba", "class 0 is 'a' there and 'b' here"),
        ("abc", "ab", "3 classes there and 2 here: class 2 is 'c' there"),
        ("ab", "abc", "2 classes there and 3 here: class 2 is 'c' here"),
        ("abc", "axbc", "class 1 is 'b' there and 'x' here"),
    ],
)
def test_class_difference_names_the_first(first, second, expected):
    assert class_difference(first, second, SIDES) == expected


def test_identity_survives_json():
    identity = Identity(("a", "b"), identify(LABELS), identify(LABELS[:1]))
    assert Identity.from_json(identity.to_json()) == identity
