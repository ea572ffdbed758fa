"""Several students of one teacher: apart, in one program, or mapped over by vmap; in one interleaved run.

    python -m benchmarks.together                          4 students WRN-16-1 from WRN-16-2, batch 128
    python -m benchmarks.together --students=2 --method=at+kd --devices=2

"Apart" dispatches one program a student. "Unrolled" is at_jax.step.train_together: the teacher looks
once, the students stand one after the other. "vmap" maps the student over an axis of seeds, so that its
kernels have a batch axis. Prints a table, and the floor: passes of a student (3) and of its teacher (1),
weighed by their FLOPs.
"""

import functools
import json
import pathlib
import statistics
import time

from absl import app, flags

_STUDENTS = flags.DEFINE_integer("students", 4, "Students of one teacher.", lower_bound=2)
_PAIR = flags.DEFINE_string("pair", "wrn_16_1<-wrn_16_2", "Student and teacher.")
_METHOD = flags.DEFINE_string("method", "at", "Of all students.")
_BATCH = flags.DEFINE_integer("batch", 128, "Images a step, over all devices.", lower_bound=1)
_IMAGE_SIZE = flags.DEFINE_integer("image_size", 32, "Pixels a side.", lower_bound=8)
_DEVICES = flags.DEFINE_integer("devices", 1, "Devices that share a batch.", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Times that each is timed.", lower_bound=1)
_VMAP = flags.DEFINE_bool("vmap", True, "Time vmap too.")
_OUT = flags.DEFINE_string("out", "", "A JSON file for the result.")


def _mapped(objective, count, optimizer, weights):
    """The step with students along an axis: teacher and images are those of all."""
    import jax

    from at_jax import parallel, step

    def together(states, teacher_variables, key, batch):
        # As train_together: one look for all, outside what is mapped.
        taught = objective.teach(teacher_variables, batch["image"], batch["label"])

        def one(state):
            return step.train_step(
                state, taught, key, batch, objective=objective, optimizer=optimizer,
                weights=weights, prepare=_as_it_is, axis_name=parallel.AXIS_NAME,
            )  # fmt: skip

        return jax.vmap(one, axis_size=count)(states)

    return together


def _as_it_is(key, images, positions):
    return images


def _programs(setting, count: int):
    """Name -> (a compiled call, its arguments); the call returns what it can be given again."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax

    from at_jax import parallel, state, step
    from benchmarks.double_backprop.programs import OPTIMIZER, WEIGHTS, objective_of

    objective, optimizer = objective_of(_METHOD.value, setting), state.sgd(**OPTIMIZER)
    weights = {t: optax.constant_schedule(WEIGHTS[t]) for t in objective.weighted_terms}

    def fresh(seed):
        variables = setting.variables(setting.student, seed)
        params = {"student": variables["params"], "adapter": {}}
        return state.TrainState(
            jnp.zeros((), jnp.int32),
            params,
            variables.get("batch_stats", {}),
            optimizer.init(params),
        )

    states = jax.device_get(tuple(fresh(seed) for seed in range(count)))
    images, labels = setting.images()
    position = np.arange(setting.batch, dtype=np.int32)
    batch = parallel.shard(
        {"image": images, "label": labels, "position": position}, len(setting.devices)
    )
    rest = parallel.replicate(
        (setting.variables(setting.teacher, 100), jax.random.key(1)), setting.devices
    )
    learner = step.Learner(objective, optimizer, weights)
    shared = {"prepare": _as_it_is, "axis_name": parallel.AXIS_NAME}
    one = functools.partial(step.train_step, **learner._asdict(), **shared)
    unrolled = functools.partial(step.train_together, learners=(learner,) * count, **shared)
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *states)
    chosen = {"apart": (one, states[0]), "unrolled": (unrolled, states)}
    if _VMAP.value:
        chosen["vmap"] = (_mapped(objective, count, optimizer, weights), stacked)
    result = {}
    for name, (function, initial) in chosen.items():
        initial = parallel.replicate(initial, setting.devices)
        mapped = parallel.map_train(function, setting.devices)
        began = time.perf_counter()
        compiled = mapped.lower(initial, *rest, batch).compile()
        print(f"{name}: compiled in {time.perf_counter() - began:.0f} s", flush=True)
        result[name] = [compiled, initial, rest, batch]
    return result


def _time(program, times: int) -> float:
    """Seconds for so many calls; the state is handed on."""
    import jax

    compiled, states, rest, batch = program
    jax.block_until_ready(states)
    began = time.perf_counter()
    for _ in range(times):
        states, _ = compiled(states, *rest, batch)
    jax.block_until_ready(states)
    program[1] = states
    return time.perf_counter() - began


def main(_: list[str]) -> None:
    """Compile all, time them in turn, print the table."""
    import jax

    jax.config.update("jax_num_cpu_devices", _DEVICES.value)
    from at_jax import parallel
    from benchmarks.double_backprop.programs import Setting

    student, _, teacher = _PAIR.value.partition("<-")
    devices = parallel.devices(_DEVICES.value, _BATCH.value)
    setting = Setting(student, teacher, _IMAGE_SIZE.value, _BATCH.value, "float32", devices)
    count = _STUDENTS.value
    programs = _programs(setting, count)
    seconds = {name: [] for name in programs}
    for round_ in range(_ROUNDS.value + 1):
        for name, program in programs.items():
            # Apart, one program serves all students: what it costs does not depend on their numbers.
            taken = _time(program, count if name == "apart" else 1)
            if round_:  # the first warms up
                seconds[name].append(taken)
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    print(f"\n{count} students {_PAIR.value}, {_METHOD.value}, batch {_BATCH.value}, "
          f"{parallel.describe(devices)}, jax {jax.__version__}\n")  # fmt: skip
    print("| | ms a step of all | to apart |\n|---|---:|---:|")
    ratios = {}
    for name in programs:
        # Round by round, so that a machine that slows down meanwhile slows all.
        pairs = zip(seconds[name], seconds["apart"], strict=True)
        ratios[name] = statistics.median(ours / apart for ours, apart in pairs)
        print(f"| {name} | {1e3 * medians[name]:.0f} | {ratios[name]:.2f} |")
    if _OUT.value:
        result = {"students": count, "pair": _PAIR.value, "method": _METHOD.value,
                  "batch": _BATCH.value, "device": parallel.describe(devices),
                  "jax": jax.__version__, "seconds": medians, "ratios": ratios}  # fmt: skip
        pathlib.Path(_OUT.value).write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    app.run(main)
