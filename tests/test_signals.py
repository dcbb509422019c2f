"""`deferred_interrupts` records signals and restores their handlers."""

import os
import signal

from nnjax.train.engine.signals import deferred_interrupts


def test_an_ignored_signal_stays_ignored_and_handlers_are_restored():
    own = signal.signal(signal.SIGINT, signal.SIG_IGN)
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with deferred_interrupts() as interrupted:
            os.kill(os.getpid(), signal.SIGINT)
            assert not interrupted()
            os.kill(os.getpid(), signal.SIGTERM)
            assert interrupted()
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGINT, own)
        signal.signal(signal.SIGTERM, before)


def test_a_handler_that_python_did_not_set_is_left(monkeypatch):
    real = signal.signal
    monkeypatch.setattr(signal, "signal", lambda number, handler: real(number, handler) and None)
    own = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        with deferred_interrupts():
            pass
    finally:
        monkeypatch.undo()
        for number, handler in zip((signal.SIGINT, signal.SIGTERM), own, strict=True):
            signal.signal(number, handler)
