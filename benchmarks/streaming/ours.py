"""The streaming path: prints its versions, then the seconds of the batches that a line asks for."""

import json
import os
import platform
import sys
import time

os.environ["JAX_PLATFORMS"] = "cpu"
sys.path.insert(0, os.getcwd())

_SIZE, _RESIZE = 224, 256


def main() -> None:
    """Arguments: folder, batch size, worker processes (-1: threads)."""
    import grain
    import jax
    import PIL

    from at_jax import data

    folder, batch_size, workers = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    options = {"image_size": _SIZE, "resize": _RESIZE, "random_crop": True}
    dataset = data.load("folder", data_dir=folder, **options)
    batches = data.TrainBatches(dataset.train, batch_size, seed=0, random_crop=True)
    stream = data.Stream(batches, workers=workers)

    @jax.jit
    def prepare(key, images, position):
        mirrored = data.augment(key, images, position, pad=0, mirror=True)
        return data.normalize(mirrored, dataset.mean, dataset.std)

    step = 0

    def run(count: int) -> None:
        nonlocal step
        for _ in range(count):
            batch = stream.batch(step)
            prepare(jax.random.key(step), batch["image"], batch["position"]).block_until_ready()
            step += 1

    run(1)
    versions = {"jax": jax.__version__, "grain": grain.__version__, "pillow": PIL.__version__}
    print(json.dumps({"Python": platform.python_version(), **versions}), flush=True)
    for line in sys.stdin:
        wait, count = map(int, line.split())
        run(wait)
        began = time.perf_counter()
        run(count)
        print(time.perf_counter() - began, flush=True)
    stream.close()


if __name__ == "__main__":
    main()
