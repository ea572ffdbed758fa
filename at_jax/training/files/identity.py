"""Identity of a run: its ID, the data it is trained on, and the weights of its teacher.

Identity does not depend on paths. A run therefore resumes after its data, its teacher or its own directory
were moved, and is refused if they differ.
"""

import hashlib
import pathlib
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from at_jax import data
from at_jax.data.identity import Identity, class_difference
from at_jax.errors import UserError
from at_jax.training.console import log
from at_jax.training.files import config_record, run_files

__all__ = [
    "check_checkpoint", "check_classes", "check_data", "check_initial", "check_same_data", "check_teacher",
    "note_other_images", "of_data", "of_teacher", "of_weights", "run_id",
]  # fmt: skip


def of_weights(variables: Any) -> str:
    """Compute a digest of the variables of a network, 16 hexadecimal digits.

    >>> of_weights({"params": {"w": np.zeros(2, np.float32)}})
    'd276169c6caffbbc'
    """
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(jax.device_get(variables)):
        leaf = np.ascontiguousarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {leaf.dtype} {leaf.shape}".encode())
        digest.update(leaf.tobytes())
    return digest.hexdigest()[:16]


def check_data(
    workdir: pathlib.Path, dataset: data.Dataset, *, allow_changes: bool
) -> dict[str, Any]:
    """Check that a run is resumed with the data that it was started with.

    Args:
      workdir: of the run; it may hold none yet.
      dataset: that the run is trained on.
      allow_changes: continue with other images of the same classes.

    Returns:
      The identity of the run, JSON for config.json: a new one, or the one that is stored.

    Raises:
      UserError: naming the first class that differs, or the numbers of images.
    """
    stored, now = _stored(workdir), dataset.identity
    if "data" in stored:
        before = Identity.from_json(stored["data"])
        _check_names(workdir, before.class_names, now.class_names)
        if not allow_changes:
            _check_images(workdir, before, now)
        elif before != now:
            log(f"The images of {dataset.name} have changed: epochs are counted with the new ones.")
    return {"run": stored.get("run") or uuid.uuid4().hex, **stored, "data": now.to_json()}


def _stored(workdir: pathlib.Path) -> dict[str, Any]:
    """Identity of the run in a workdir; empty without config.json, or for a run of an older version."""
    return run_files.read_identity(workdir) if run_files.has_config(workdir) else {}


def _check_names(workdir: pathlib.Path, before: Sequence[str], now: Sequence[str]) -> None:
    if difference := class_difference(before, now, ("in the run", "in the data")):
        raise UserError(
            f"the classes of the data are not those of the run in {workdir}: {difference}: restore their "
            "names and order, or choose another --workdir"
        )


def _check_images(workdir: pathlib.Path, before: Identity, now: Identity) -> None:
    for kind in ("train", "test"):
        there, here = getattr(before, kind), getattr(now, kind)
        if there == here:
            continue
        what = (
            f"{there.images} {kind} images there, {here.images} now"
            if there.images != here.images
            else f"names, labels or pixels of its {kind} images differ"
        )
        raise UserError(
            f"the images of the run in {workdir} have changed ({what}): restore them, choose another "
            "--workdir, or resume with the new ones, --config.data.allow_changes=True"
        )


def check_teacher(
    workdir: pathlib.Path, identity: Mapping[str, Any], variables: Any, source: str
) -> dict[str, Any]:
    """Check that a network is the teacher that a run was started with.

    Args:
      workdir: of the run.
      identity: of the run, as it is stored or from :func:`check_data`.
      variables: of the teacher.
      source: of the teacher, for the message.

    Returns:
      The identity of the run, with that of the teacher.

    Raises:
      UserError: for other weights.
    """
    now = of_weights(variables)
    if identity.get("teacher", now) != now:
        raise UserError(
            f"the run in {workdir} was started with another teacher, got one with other weights "
            f"({source}): pass the same teacher, or choose another --workdir"
        )
    return {**identity, "teacher": now}


def check_initial(
    workdir: pathlib.Path, identity: Mapping[str, Any], fingerprint: str | None
) -> dict[str, Any]:
    """Check that a student starts from the weights that its run was started with.

    Args:
      workdir: of the run; it may hold none yet.
      identity: of the run, from :func:`check_data`.
      fingerprint: of the weights, see :func:`of_weights`; None for a random start.

    Returns:
      The identity, with that of the weights.

    Raises:
      UserError: for other weights.
    """
    stored = _stored(workdir)
    if stored and stored.get("init") != fingerprint:
        raise UserError(
            f"the run in {workdir} was started from different weights than init.weights: pass the same "
            "weights, or choose another --workdir"
        )
    return {**identity, **({"init": fingerprint} if fingerprint else {})}


def check_classes(
    workdir: pathlib.Path, described: Mapping[str, Any], dataset: data.Dataset
) -> None:
    """Raise unless a data set has the classes of a run, in their order.

    Args:
      workdir: of the run.
      described: its ``class_names``, as in the description of a network or the identity of the data.
      dataset: that is used now.

    Raises:
      UserError: naming the first class that differs.
    """
    _check_names(workdir, described["class_names"], dataset.class_names)


def note_other_images(workdir: pathlib.Path, dataset: data.Dataset) -> None:
    """Print a line if the test images are not those of the run, and how they were chosen."""
    stored, here = of_data(workdir), dataset.identity.test
    if stored and stored.test != here:
        counts = f"({stored.test.images} there, {here.images} here)"
        for note in (f"the test images differ from the run's {counts}", *dataset.notes):
            log(f"note: {note}", is_note=True)


def of_data(workdir: pathlib.Path) -> Identity | None:
    """Read the identity of the data of a run; None without config.json, or of an older version."""
    stored = _stored(workdir)
    return Identity.from_json(stored["data"]) if "data" in stored else None


def check_same_data(found: Iterable[tuple[str, Identity | None]]) -> None:
    """Raise unless all data sets are the same.

    Args:
      found: places for messages, and identities; those that are not known are left out.

    Raises:
      UserError: naming two places, and the first class that differs, or the numbers of images.
    """
    known = [(place, images) for place, images in found if images is not None]
    for place, now in known[1:]:
        first, before = known[0]
        where = (f"in {first}", f"in {place}")
        difference = class_difference(before.class_names, now.class_names, where)
        if not difference and before != now:
            images = [f"{each.train.images} + {each.test.images}" for each in (before, now)]
            difference = (
                f"{images[0]} images {where[0]} and {images[1]} {where[1]} are not the same"
            )
        if difference:
            raise UserError(
                f"runs of one table must have the same data, got {difference}: give the same data, or "
                "choose another --out"
            )


def run_id(workdir: pathlib.Path) -> str:
    """Read the ID of a run; empty for a run of an older version, or without config.json."""
    return _stored(workdir).get("run", "")


def of_teacher(workdir: pathlib.Path) -> str | None:
    """Read the digest of the weights of a run's teacher, see :func:`of_weights`; None without one."""
    return _stored(workdir).get("teacher")


def check_checkpoint(expected: str, meta: Mapping[str, Any]) -> None:
    """Raise if a checkpoint is of another run than config.json.

    Args:
      expected: ID of the run; empty accepts all.
      meta: of the checkpoint. Older versions stored no ID.

    Raises:
      UserError: naming both runs.
    """
    found = meta.get("config", {}).get(config_record.IDENTITY, {}).get("run", expected)
    if expected and found != expected:
        raise UserError(
            f"the checkpoints of this workdir are those of another run ({found[:8]}, config.json is of "
            f"{expected[:8]}): restore the files of one run, or choose another --workdir"
        )
