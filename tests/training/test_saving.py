"""Saving before a run stops for an image that can no longer be read, or for a callback."""

import types

import pytest

from at_jax.errors import UserError
from at_jax.training import saving


class Log:
    """Stands for a RunLog: collects what it is told."""

    def __init__(self, calls):
        self._calls = calls

    def save_unless_saved(self, state):
        self._calls.append(("save", state.step))


def test_saved_on_error_saves_every_run_after_collecting_and_says_so():
    calls = []
    states = [types.SimpleNamespace(step=7), types.SimpleNamespace(step=7)]
    logs = [Log(calls), Log(calls)]
    with (
        pytest.raises(
            UserError, match=r"^image x: gone \(saved after step 7: run the same command"
        ),
        saving.saved_on_error(logs, states, lambda: calls.append("collect")),
    ):
        raise UserError("image x: gone")
    assert calls == ["collect", ("save", 7), ("save", 7)]
    calls.clear()
    with pytest.raises(ZeroDivisionError), saving.saved_on_error(logs, states):
        raise ZeroDivisionError  # a bug is not saved
    with saving.saved_on_error(logs, states):
        pass
    assert calls == []


def test_saved_on_error_of_one_of_several_processes_does_not_wait_for_the_others(monkeypatch):
    monkeypatch.setattr(saving.processes, "is_multiprocess", lambda: True)
    calls = []
    saved = saving.saved_on_error([Log(calls)], [types.SimpleNamespace(step=7)])
    with pytest.raises(UserError, match="^image x: gone$"), saved:
        raise UserError("image x: gone")
    assert calls == []


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
def test_error_of_a_callback_saves_every_run(error):
    calls = []

    class Failing(Log):
        def call_callbacks(self):
            raise error

    states = [types.SimpleNamespace(step=7), types.SimpleNamespace(step=7)]
    with pytest.raises(error):
        saving.call_callbacks([Failing(calls)], [Log(calls), Log(calls)], states)
    assert calls == [("save", 7), ("save", 7)]
