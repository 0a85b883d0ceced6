"""Promises about what a killed writer leaves behind: nothing, from the next start on."""

import os
import signal
import subprocess
import sys

import pytest

from tkmia_utils import files

WRITER = """
import sys, time
from tkmia_utils.files import write_atomically

def slow(temporary):
    temporary.write_text("half")
    (temporary.parent / ".tmpXYZ").touch()  # as some libraries do
    print("writing", flush=True)
    sys.stdin.readline()
    temporary.write_text("whole")

write_atomically(sys.argv[1], slow)
"""


@pytest.fixture
def writer(tmp_path):
    """Another process in the middle of a write to ``a.txt``."""
    command = [sys.executable, "-c", WRITER, str(tmp_path / "a.txt")]
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with subprocess.Popen(command, **pipes) as process:
        assert process.stdout.readline() == "writing\n"
        yield process
        process.kill()


def temporary(folder):
    return [path for path in folder.iterdir() if path.name.startswith(".tmp-tkmia-")]


def test_what_a_killed_writer_left_goes_with_the_next_write(writer, tmp_path):
    assert len(temporary(tmp_path)) == 1
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    assert len(temporary(tmp_path)) == 1  # or nothing was tried
    path = files.write_atomically(tmp_path / "b.txt", lambda t: t.write_text("b"))
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_living_writer_writes_is_left_alone(writer, tmp_path):
    files.sweep(tmp_path)
    files.write_atomically(tmp_path / "b.txt", lambda t: t.write_text("b"))
    writer.communicate("go on\n")
    assert writer.returncode == 0
    assert (tmp_path / "a.txt").read_text() == "whole"
    assert {path.name for path in tmp_path.iterdir()} == {"a.txt", "b.txt"}


def test_what_others_left_is_left_alone(tmp_path):
    others = [".tmp-0123abcd-a.txt", ".tmp-tkmia-0123abcd-0123abcd.bak", ".tmp-tkmia", "a.tmp"]
    for name in others:
        (tmp_path / name).mkdir()
    files.sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(others)


def test_another_machines_leftover_goes_only_when_untouched_for_a_day(tmp_path):
    home = tmp_path / ".tmp-tkmia-00000000-0123abcd"
    home.mkdir()
    (home / files.LOCK).touch()
    files.sweep(tmp_path)
    assert home.is_dir()
    for path in (home / files.LOCK, home):
        os.utime(path, (0, 0))
    files.sweep(tmp_path)
    assert not home.exists()


def test_all_folders_below_are_swept(tmp_path):
    home = tmp_path / "a" / "b" / f".tmp-tkmia-{files._machine()}-0123abcd"
    home.mkdir(parents=True)
    files.sweep_all([tmp_path, tmp_path / "missing"])
    assert not home.exists() and home.parent.is_dir()


def test_a_writer_that_gets_its_lock_while_it_is_swept_stays(tmp_path, monkeypatch):
    """The sweep finds no lock; before it clears, the writer has made one and writes."""
    home = tmp_path / f".tmp-tkmia-{files._machine()}-00000000"
    home.mkdir()

    def too_late(path, flags, *mode):
        (home / files.LOCK).write_text("")
        (home / "mine.json").write_text("written")
        raise FileNotFoundError(path)

    monkeypatch.setattr(files.os, "open", too_late)
    files.sweep(tmp_path)
    assert (home / "mine.json").read_text() == "written"
    monkeypatch.undo()
    files.sweep(tmp_path)  # nobody holds that lock
    assert not home.exists()
