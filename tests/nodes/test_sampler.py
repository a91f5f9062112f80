"""Processor time and memory of processes: of what they started too, of what has ended, and on machines that hide it."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
from conftest import wait_until

from perception.nodes import sampler as module
from perception.nodes.sampler import Sampler, usage
from perception.nodes.session import SessionError

BUSY = "import time; end = time.process_time() + {seconds}\nwhile time.process_time() < end: pass\n"


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SAMPLED", 0.02)


def test_processor_time_of_a_child_counts_after_its_end() -> None:
    child = [sys.executable, "-c", BUSY.format(seconds=0.4)]
    code = f"import subprocess, time; subprocess.run({child!r}); print('done', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        sampler = Sampler({"it": process.pid})
        sampler.start()
        try:
            assert process.stdout and process.stdout.readline() == "done\n"
            time.sleep(0.1)
        finally:
            process.kill()
        process.wait()
        time.sleep(0.1)
        rows = sampler.stop()["it"]
    spent = rows[:, 1]
    assert spent[-1] >= 0.3 and (np.diff(spent) >= -1e-6).all(), "it never runs back"
    assert rows[:, 2].max() > 5 and usage(rows)["cores"] > 0


def test_what_has_ended_before_is_said() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    with pytest.raises(SessionError, match="ended before it could be measured"):
        Sampler({"it": process.pid})


def test_a_machine_that_hides_its_clock_is_sampled_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def hidden() -> None:
        raise NotImplementedError("can't find current frequency file")

    monkeypatch.setattr(psutil, "cpu_freq", hidden)
    sampler = Sampler({"it": os.getpid()})
    sampler.start()
    wait_until(lambda: len(sampler._rows["it"]) > 3, what="samples")
    assert len(sampler.stop()["it"]) > 3 and sampler.weather()["clock_mhz"] is None
