"""A worker gives way: stopped while somebody is recognised, and for a moment after, since captures come in bursts.

The process is stopped by a signal (SIGSTOP), so that it costs recognition nothing from that instant on, whatever it is
in the middle of. A worker whose device dies meanwhile dies with it: `confinement` sees to that.
"""

from __future__ import annotations

import signal
import subprocess
import threading
import time

from device_sim.activity import Activity


class GivingWay:
    """Stops and continues one process by the `activity` of a device, until `end`; safe for several threads."""

    def __init__(self, process: subprocess.Popen[bytes], activity: Activity, rest_s: float) -> None:
        """Let `process` run only when nobody was recognised for `rest_s` seconds."""
        self._process, self._activity, self._rest_s = process, activity, rest_s
        self._changed = threading.Condition()
        self._stopped_s: float | None = None
        self._stopped_before_s, self._ended = 0.0, False
        self._thread = threading.Thread(target=self._run, name="giving-way", daemon=True)
        activity.watch(self.give_way)
        self._thread.start()

    @property
    def stopped_s(self) -> float:
        """Seconds that the process was stopped, all together."""
        with self._changed:
            now = 0.0 if self._stopped_s is None else time.monotonic() - self._stopped_s
            return self._stopped_before_s + now

    def give_way(self) -> None:
        """Stop the process until it is quiet again."""
        with self._changed:
            if self._stopped_s is None and not self._ended:
                self._process.send_signal(signal.SIGSTOP)
                self._stopped_s = time.monotonic()
                self._changed.notify_all()

    def end(self) -> None:
        """Leave the process alone from now on, running."""
        self._activity.unwatch(self.give_way)
        with self._changed:
            self._ended = True
            self._go_on()
            self._changed.notify_all()
        self._thread.join()

    def _go_on(self) -> None:
        if self._stopped_s is not None:
            self._process.send_signal(signal.SIGCONT)
            self._stopped_before_s += time.monotonic() - self._stopped_s
            self._stopped_s = None

    def _run(self) -> None:
        """Continue the process whenever it has been quiet for long enough."""
        with self._changed:
            while not self._ended:
                if self._stopped_s is None:
                    self._changed.wait()
                elif (rest_s := self._rest_s - self._activity.idle_s) > 0.0:
                    self._changed.wait(rest_s)
                else:
                    self._go_on()
