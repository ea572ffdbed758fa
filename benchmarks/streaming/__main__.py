"""Photographs per second of at_jax's streaming path and of PyTorch's DataLoader with torchvision.

    python -m benchmarks.streaming --folder=DIR --torch_python=PYTHON [--sides=300,500] [--rounds=5]

DIR has the layout of an image folder; --sides measures on copies of its images, enlarged to about so many
pixels. PYTHON has torch and torchvision, which at_jax never needs. Every program decodes training images,
resizes a random crop of each to 224 pixels, mirrors half of them, and normalizes; at_jax does the last two
in a jitted function. Programs run in turn, each in a process of its own, and are idle while another one is
measured. --out=DIR writes streaming.md and streaming.json.
"""

import json
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

from absl import flags

from at_jax.errors import UserError
from benchmarks import command
from benchmarks.streaming import cpu_time

_FOLDER = flags.DEFINE_string("folder", "", "Image folder, DIR/{train,test}/<class>/<images>.")
_TORCH = flags.DEFINE_string("torch_python", "", "Python with torch and torchvision.")
_SIDES = flags.DEFINE_list(
    "sides", [], "Longer sides that images are enlarged to; none: as they are."
)
_IMAGES = flags.DEFINE_integer("images", 600, "Training images to enlarge.", lower_bound=2)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Timings of each program.", lower_bound=1)
_BATCHES = flags.DEFINE_integer("batches", 12, "Batches per timing.", lower_bound=1)
_BATCH = flags.DEFINE_integer("batch", 64, "Images of a batch.", lower_bound=1)
_WORKERS = flags.DEFINE_integer("workers", 2, "Worker processes.", lower_bound=1)
_OUT = flags.DEFINE_string("out", "", "Directory for streaming.md and streaming.json.")

_TITLE = """# Streaming photographs

`python -m benchmarks.streaming`: random resized crop to 224 pixels, mirroring and normalization of JPEG
files, without a network. at_jax mirrors and normalizes in a jitted function on the CPU; PyTorch's
DataLoader does all of it in its workers, with torchvision's RandomResizedCrop, RandomHorizontalFlip,
ToTensor and Normalize."""
_NOTE = (
    "Speed ratio: median over the rounds of the speed divided by that of the DataLoader in the same "
    "round. Other programs may have shared the cores: the ratio counts, not the speed."
)
_WAIT = 8  # batches before a timing: more than any program has decoded ahead while it was idle
_OURS = pathlib.Path(__file__).with_name("ours.py")
_THEIRS = pathlib.Path(__file__).with_name("pytorch.py")


class Program:
    """A process that decodes batches when it is told to."""

    def __init__(self, python: str, script: pathlib.Path, folder: str, workers: int):
        arguments = [python, str(script), folder, str(_BATCH.value), str(workers)]
        root = str(script.parents[2])
        self._process = subprocess.Popen(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root
        )
        self.versions = json.loads(self._line())

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise UserError(f"{self._process.args}: expected a program that answers, got none")
        return line

    def measure(self) -> tuple[float, float]:
        """Seconds of a timing, and CPU seconds of an image, over all processes of the program."""
        assert self._process.stdin is not None
        before = cpu_time.of_tree(self._process.pid)
        self._process.stdin.write(f"{_WAIT} {_BATCHES.value}\n")
        self._process.stdin.flush()
        seconds = float(self._line())
        used = cpu_time.of_tree(self._process.pid) - before
        return seconds, used / ((_WAIT + _BATCHES.value) * _BATCH.value)

    def close(self) -> None:
        """End the process, by the end of its input."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)


def main() -> None:
    """Measure the programs in turn, and print the result."""
    if not _FOLDER.value or not _TORCH.value:
        raise UserError("expected --folder and --torch_python, see --help")
    results = []
    for side in map(int, _SIDES.value or ["0"]):
        with tempfile.TemporaryDirectory() as temporary:
            folder = temporary if side else _FOLDER.value
            if side:
                _enlarge(pathlib.Path(_FOLDER.value), pathlib.Path(temporary), side)
            results.append(_measure(folder) | {"side": side})
    text = "\n\n".join([_TITLE, *map(_markdown, results), _NOTE])
    print(text)
    if _OUT.value:
        out = pathlib.Path(_OUT.value)
        out.mkdir(parents=True, exist_ok=True)
        (out / "streaming.json").write_text(json.dumps(results, indent=2) + "\n")
        (out / "streaming.md").write_text(text + "\n")


def _enlarge(source: pathlib.Path, target: pathlib.Path, side: int) -> None:
    """Save JPEG files with a longer side of so many pixels, of various shapes."""
    from PIL import Image

    rng = random.Random(0)
    for split, count in (("train", _IMAGES.value), ("test", max(2, _IMAGES.value // 10))):
        files = sorted((source / split).glob("*/*"))
        classes: dict[str, list[pathlib.Path]] = {}
        for path in files:
            classes.setdefault(path.parent.name, []).append(path)
        each = -(-count // len(classes))
        for path in (path for of_class in classes.values() for path in of_class[:each]):
            long, short = side, round(side * rng.uniform(0.65, 1))
            size = (long, short) if rng.random() < 0.7 else (short, long)
            to = target / split / path.parent.name / f"{path.stem}.jpg"
            to.parent.mkdir(parents=True, exist_ok=True)
            with Image.open(path) as image:
                larger = image.convert("RGB").resize(size, Image.Resampling.BICUBIC)
                larger.save(to, quality=85)


def _measure(folder: str) -> dict[str, Any]:
    programs = {
        f"at_jax, {_WORKERS.value} worker processes": Program(
            sys.executable, _OURS, folder, _WORKERS.value
        ),
        "at_jax, threads": Program(sys.executable, _OURS, folder, -1),
        f"PyTorch DataLoader, {_WORKERS.value} worker processes": Program(
            _TORCH.value, _THEIRS, folder, _WORKERS.value
        ),
    }
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in programs}
    for round_ in range(_ROUNDS.value):
        # Each program is first, second and last in turn.
        names = list(programs)
        for name in names[round_ % 3 :] + names[: round_ % 3]:
            samples[name].append(programs[name].measure())
    versions: dict[str, str] = {}
    for program in programs.values():
        versions |= program.versions
        program.close()
    images = _BATCHES.value * _BATCH.value
    *_, theirs = programs
    rows = {}
    for name, measured in samples.items():
        ratios = [b / a for (a, _), (b, _) in zip(measured, samples[theirs], strict=True)]
        rows[name] = {
            "images_per_second": [images / seconds for seconds, _ in measured],
            "cpu_ms_per_image": statistics.median(1e3 * cpu for _, cpu in measured),
            "speed_ratio": statistics.median(ratios),
        }
    return {
        "date": time.strftime("%Y-%m-%d"),
        "device": cpu_time.device(),
        "versions": versions,
        "files": _files(pathlib.Path(folder)),
        "batch": _BATCH.value,
        "rows": rows,
    }


def _files(folder: pathlib.Path) -> dict[str, float]:
    from PIL import Image

    paths = sorted(folder.glob("train/*/*"))
    pixels = []
    for path in paths:
        with Image.open(path) as image:
            pixels.append(image.width * image.height)
    return {
        "images": len(paths),
        "mean_kilobytes": round(statistics.mean(path.stat().st_size for path in paths) / 1e3, 1),
        "mean_megapixels": round(statistics.mean(pixels) / 1e6, 3),
    }


def _markdown(result: dict[str, Any]) -> str:
    files, versions = result["files"], result["versions"]
    side = result["side"]
    enlarged = f", enlarged to a longer side of {side} pixels" if side else ""
    head = (
        f"{files['images']} JPEG files, on average {files['mean_megapixels']} megapixels and "
        f"{files['mean_kilobytes']} kB{enlarged}; batch {result['batch']}; "
        f"{result['device']}; "
        f"{', '.join(f'{name} {version}' for name, version in versions.items())}; {result['date']}."
    )
    rows = []
    for name, row in result["rows"].items():
        speeds = row["images_per_second"]
        spread = f"{min(speeds):.0f} - {max(speeds):.0f}"
        cells = [name, f"{statistics.median(speeds):.0f}", spread]
        rows.append([*cells, f"{row['cpu_ms_per_image']:.1f}", f"{row['speed_ratio']:.2f}"])
    columns = ["program", "images/s, median", "(range)", "CPU ms per image", "speed ratio"]
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
    body = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return f"{head}\n\n{body}"


if __name__ == "__main__":
    command.run(main)
