"""Promises about Ctrl-C: a command ends in time and leaves no process behind."""

import json
import os
import pty
import signal
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from pathlib import Path
from urllib.request import urlopen

import nbformat
import psutil
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_notebook

ROOT = Path(__file__).parents[1]
MARK = "TKMIA_TEST_MARK"
SLACK = (
    6  # the promise is 10 s on a quiet machine; nobody's laptop is more than so many times slower
)
pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals as on Unix")


class Command:
    """A command in a session of its own, whose processes are known by a mark."""

    def __init__(
        self, *command: str, cwd: Path = ROOT, stdin: int = subprocess.DEVNULL, **environment: str
    ) -> None:
        self.mark = uuid.uuid4().hex
        path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
        self.process = subprocess.Popen(
            command, cwd=cwd, start_new_session=True, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=stdin,
            env={**os.environ, MARK: self.mark, "PYTHONPATH": path, **environment},
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip

    def alive(self) -> list[str]:
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == self.mark and process.status() != "zombie":
                    found.append(f"{process.pid} {' '.join(process.cmdline())[:80]}")
            except psutil.Error:
                pass
        return found

    def wait_for(self, sign: Path) -> None:
        end = time.monotonic() + 240
        while not sign.exists():
            assert self.process.poll() is None, self.process.stdout.read()[-2000:]
            assert time.monotonic() < end, "it never came to its heavy part"
            time.sleep(0.05)

    def interrupt(self) -> tuple[int, str]:
        """Ctrl-C as a terminal gives it; returns code and output when all is gone."""
        os.killpg(self.process.pid, signal.SIGINT)
        begun = time.monotonic()
        try:
            said, _ = self.process.communicate(timeout=10 * SLACK)
            while self.alive() and time.monotonic() - begun < 10 * SLACK:
                time.sleep(0.05)
            assert not self.alive()
        finally:
            for line in self.alive():
                os.kill(int(line.split()[0]), signal.SIGKILL)
        return self.process.returncode, said


def recipe(target: str, word: str, *variables: str) -> list[str]:
    """The line of a Makefile's target that holds a word, for this interpreter."""
    said = subprocess.run(
        ["make", "-n", target, f"RUN={sys.executable}", *variables],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    (line,) = (line for line in said.stdout.splitlines() if word in line)
    return line.split()


def test_ctrl_c_ends_a_run_and_the_kernel_with_what_it_began(tmp_path):
    sign = tmp_path / "began"
    cell = (
        "import pathlib, subprocess, time\n"
        "subprocess.Popen(['sleep', '600'], start_new_session=True)\n"
        f"pathlib.Path({str(sign)!r}).touch()\n"
        "time.sleep(600)"
    )
    (tmp_path / "notebooks").mkdir()
    book = new_notebook(cells=[new_code_cell(cell)])
    nbformat.write(book, tmp_path / "notebooks" / "01_a.ipynb")
    profile = {"name": "tiny", "time_limit": 600, "notebooks": [{"notebook": "01_a"}]}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(profile))
    command = recipe("reproduce", "tkmia_utils.pipeline", f"PROFILE={tmp_path / 'tiny.yaml'}")
    run = Command(*command, "--root", str(tmp_path))
    run.wait_for(sign)
    assert len(run.alive()) >= 3
    code, said = run.interrupt()
    assert code == 130 and "stopped; the next run goes on from here" in said


RAY = """
import pathlib, time

def test_with_ray(monkeypatch):
    import os
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0")
    import ray
    from ray.cluster_utils import Cluster
    machines = Cluster(initialize_head=True, head_node_args=dict(num_cpus=1))
    ray.init(machines.address, log_to_driver=False, logging_level="ERROR")
    ray.get(ray.remote(lambda: 1).remote())
    pathlib.Path("began").touch()
    while True:
        try:
            time.sleep(600)
        except KeyboardInterrupt:  # as some library does
            pass
"""


def test_ctrl_c_ends_the_tests_while_ray_is_up_even_if_somebody_swallows_it(tmp_path):
    pytest.importorskip("ray")
    (tmp_path / "test_one.py").write_text(RAY)
    run = Command(
        sys.executable, "-m", "pytest", "-q", "-p", "conftest", "test_one.py", cwd=tmp_path
    )
    run.wait_for(tmp_path / "began")
    assert len(run.alive()) >= 4
    code, _ = run.interrupt()
    assert code


def test_ctrl_c_ends_jupyterlab_without_a_question(tmp_path):
    flags = "LAB_FLAGS=--no-browser --allow-root --port=0 --ServerApp.port_retries=0"
    keyboard, terminal = pty.openpty()  # it asks only where somebody could answer
    run = Command(
        *recipe("lab", "jupyter lab", flags), stdin=terminal,
        JUPYTER_RUNTIME_DIR=str(tmp_path), JUPYTER_CONFIG_DIR=str(tmp_path / "config"),
    )  # fmt: skip
    end = time.monotonic() + 240
    answered = False
    while not answered and time.monotonic() < end:
        time.sleep(0.2)
        for file in tmp_path.glob("jpserver-*.json"):
            with suppress(OSError, ValueError):  # not all written, or not yet listening
                urlopen(json.loads(file.read_text())["url"] + "api", timeout=10).close()
                answered = True
    code, said = run.interrupt()
    os.close(keyboard)
    os.close(terminal)
    assert code == 0 and "Shutting down" in said, said[-2000:]
