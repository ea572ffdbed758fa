"""Signals of a command line and of a library: a small program that loops in place of a training run."""

import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import commands
import pytest

from at_jax import signals
from at_jax.training.interrupt import Interrupted

REPOSITORY = pathlib.Path(__file__).parents[1]
PROGRAM = """
import hashlib, signal, sys, time
from at_jax import output, signals

def busy():
    print("ready", flush=True)
    # Runs for minutes without the interpreter's lock, as XLA does: Python runs no handler meanwhile.
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)

if {watches}:
    output.secure()
    signals.watch(resumes=True)
{body}
"""
DEFERS = """
with signals.deferred("stopping ({name})") as received:
    print("ready", flush=True)
    while not received():
        time.sleep(0.01)
    if {quickly}:
        sys.stdin.read()
        sys.exit(f"saved {received()}")
    busy()
"""


def start(body, *, watches=True, before=""):
    program = PROGRAM.format(watches=watches, body=body)
    return subprocess.Popen(
        [sys.executable, "-c", before + program],
        cwd=REPOSITORY,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def wait_until_ready(process):
    assert process.stdout.readline() == "ready\n"


def end(process):
    (end,) = commands.finish([process])
    return end


def end_after_the_first_signal(process):
    """What is left when its announcement has been read; the thread that prints it may be late."""
    assert process.stdout.readline() == "stopping (SIGTERM)\n"
    return end(process)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_while_c_code_runs_prints_one_line_and_the_command(number):
    process = start("busy()")
    wait_until_ready(process)
    process.send_signal(number)
    code, out, err = end(process)
    assert (code, out) == (128 + number, "")
    assert err.startswith(f"Stopped at once by {number.name}: run the same command to resume: ")
    assert len(err.splitlines()) == 1 and "python" in err


def test_first_signal_is_deferred_and_carried_by_the_exit_code():
    process = start(DEFERS.replace("{quickly}", "True"))
    wait_until_ready(process)
    process.send_signal(signal.SIGTERM)
    assert end_after_the_first_signal(process) == (1, "", "saved 15\n")
    assert [Interrupted("", n).exit_code for n in (1, 2, 15)] == [129, 130, 143]


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_second_signal_stops_at_once(second):
    process = start(DEFERS.replace("{quickly}", "False"))
    wait_until_ready(process)
    process.send_signal(signal.SIGTERM)
    # The announcement, which a thread prints, and the program computes.
    lines = [process.stdout.readline() for _ in range(2)]
    assert sorted(lines) == ["ready\n", "stopping (SIGTERM)\n"]
    process.send_signal(second)
    code, out, err = end(process)
    assert (code, out) == (128 + second, "")
    assert err.startswith(f"Stopped at once by {second.name}")


def test_signal_that_came_too_late_to_be_acted_on_stops_afterwards():
    late = (
        "with signals.deferred('') as received:\n    while not received(): time.sleep(0.01)\nbusy()"
    )
    process = start("print('ready', flush=True)\n" + late)
    wait_until_ready(process)
    process.send_signal(signal.SIGINT)
    code, out, err = end(process)
    assert (code, out.strip(), len(err.splitlines())) == (130, "", 1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("watches", [True, False])
def test_signal_that_the_parent_ignored_stays_ignored(number, watches):
    # As nohup does, and a shell without job control for a command that ends with &.
    ignore = f"import signal; signal.signal({int(number)}, signal.SIG_IGN)\n"
    process = start(DEFERS.replace("{quickly}", "True"), before=ignore, watches=watches)
    wait_until_ready(process)
    process.send_signal(number)
    time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert end_after_the_first_signal(process) == (1, "", "saved 15\n")


def test_signal_during_the_restart_arrives_afterwards():
    again = "import os, sys\nfrom at_jax import signals\nif len(sys.argv) == 1:\n    with signals.hold():\n"
    again += "        os.kill(os.getpid(), 2)\n"
    again += "        os.execv(sys.executable, [sys.executable, '-c', sys.orig_argv[2], 'again'])\n"
    code, out, err = end(start("busy()", before=again))
    assert (code, len(err.splitlines())) == (130, 1)
    assert "ready\n".startswith(out)  # it may stop before, after or while it prints that
    assert err.startswith("Stopped at once by SIGINT")


def test_forked_child_has_the_default_handlers():
    body = """
import os, warnings
warnings.simplefilter("ignore")
child = os.fork()
if not child:
    time.sleep(60)
    os._exit(0)
os.kill(child, signal.SIGTERM)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    code, out, err = end(start(body))
    assert (code, out, err) == (0, "-15\n", "")


def test_deferred_in_a_library_restores_the_handlers():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted), signals.deferred("{name}") as received:
        assert received() == 0
        os.kill(os.getpid(), signal.SIGINT)
        assert received() == signal.SIGINT
        # A second Ctrl-C has the effect that it had before.
        assert signal.getsignal(signal.SIGINT) is before
        raise Interrupted("saved", received())
    assert signal.getsignal(signal.SIGINT) is before
    with pytest.raises(KeyboardInterrupt), signals.deferred(""):  # too late: delivered at the end
        os.kill(os.getpid(), signal.SIGINT)


def test_deferred_in_another_thread_leaves_signals_alone():
    found = []

    def run():
        with signals.deferred("") as received:
            found.append((signal.getsignal(signal.SIGTERM), received()))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [(before, 0)]
