"""Promises of the hashes: what decides a result counts, and only that."""

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tkmia_utils import hashing

MODULES = {
    "__init__.py": "from tkmia_utils.used import call\n__version__ = '1'\n",
    "used.py": '"""Prose."""\nfrom tkmia_utils.parts import piece\n\ndef call(x):\n'
    '    """More."""\n    from tkmia_utils import late\n    return x + 1  # one\n',
    "late.py": "n = 1\n",
    "parts/__init__.py": "from tkmia_utils.parts.one import piece\nfrom .two import other\n",
    "parts/one.py": "from . import three\npiece = 1\n",
    "parts/two.py": "other = 1\n",
    "parts/three.py": "x = 1\n",
    "plugin.py": "x = 1\n",
    "unrelated.py": "x = 1\n",
}


class Package:
    """A small package, a notebook that uses it, and the notebook's hash."""

    def __init__(self, folder):
        self.folder, self.path = folder / "tkmia_utils", folder / "a.ipynb"
        for name, text in MODULES.items():
            self.write(name, text)
        self.cells("from tkmia_utils import call\ncall(1)")

    def write(self, name, text):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def cells(self, *sources, prose="# A"):
        cells = [new_markdown_cell(prose), *map(new_code_cell, sources)]
        nbformat.write(new_notebook(cells=cells), self.path)
        return self.hash

    @property
    def hash(self):
        return hashing.notebook_hash(self.path, package=self.folder)

    def follows(self, name):
        """Does the notebook's hash change with this module?"""
        before = self.hash
        self.write(name, MODULES[name] + "changed = 1\n")
        after = self.hash
        self.write(name, MODULES[name])
        assert self.hash == before
        return after != before


@pytest.fixture
def package(tmp_path):
    return Package(tmp_path)


def test_prose_and_formatting_change_no_key(package):
    first = package.hash
    package.write(
        "used.py",
        '"""Other prose."""\n\nfrom tkmia_utils.parts import (\n    piece,\n)\n\n\n'
        "def call(x):\n    # another comment\n    from tkmia_utils import late\n"
        "\n    return (x+1)\n",
    )
    assert package.hash == first
    said = "# use it\nfrom tkmia_utils import call\n\ncall( 1 )  # so"
    assert package.cells(said, "# nothing here", prose="Other") == first


@pytest.mark.parametrize("change", [("x + 1", "x + 2"), ("return", "x = x\n    return")])
def test_a_changed_literal_or_statement_of_a_used_module_does(package, change):
    first = package.hash
    package.write("used.py", MODULES["used.py"].replace(*change))
    assert package.hash != first


def test_modules_count_if_they_are_used_directly_or_through_others(package):
    used = {name for name in MODULES if package.follows(name)}
    assert used == {"used.py", "late.py", "parts/one.py", "parts/three.py"}


@pytest.mark.parametrize(
    ("cell", "used"),
    [
        ("import tkmia_utils.unrelated", {"unrelated.py"}),
        ("from tkmia_utils.parts import two", {"parts/two.py"}),
        ("from tkmia_utils.parts import other as o", {"parts/two.py"}),
        ("def f():\n    from tkmia_utils import plugin", {"plugin.py"}),
        ("from tkmia_utils import __version__", {"__init__.py"} | {"used.py", "late.py"}),
        ("import importlib\nimportlib.import_module('tkmia_utils.plugin')", {"plugin.py"}),
        ("import importlib\nimportlib.import_module(name)", set(MODULES)),
        ("%matplotlib inline\nfrom tkmia_utils import plugin", {"plugin.py"}),
        ("%%time\nfrom tkmia_utils import plugin", {"plugin.py"}),
        ("x = !ls\nfrom tkmia_utils import plugin", set(MODULES)),
        ("print(1)", set()),
    ],
)
def test_every_way_to_import_is_followed(package, cell, used):
    package.cells(cell)
    found = {name for name in MODULES if package.follows(name)}
    assert found - {"parts/one.py", "parts/three.py"} == used - {"parts/one.py", "parts/three.py"}


def test_what_a_cell_shows_counts(package):
    hashes = {package.cells(*cells) for cells in (["'a'"], ["'b'"], ["1"], ["1;"], ["%time 1"])}
    assert len(hashes) == 5


def test_a_module_that_is_not_there_is_refused(package):
    with pytest.raises(ValueError, match=r"modules: there is no module 'tkmia_utils.gone'"):
        package.cells("from tkmia_utils.gone import x")
    for call in (["tkmia_utils.gone"], ["gone"]):
        with pytest.raises(ValueError, match="modules: there is no module"):
            hashing.code_hash(call, package=package.folder)
        with pytest.raises(ValueError, match="modules: there is no module"):
            hashing.code_hash([], alone=call, package=package.folder)


def test_the_package_holds_no_data_beside_its_code_that_a_hash_would_miss():
    other = {
        path.parent.relative_to(hashing.PACKAGE).as_posix()
        for path in hashing.PACKAGE.rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }
    # parameters of profiles are in the pipeline's key; the explorer's page computes nothing
    assert other == {"pipeline/profiles", "explorer"}


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.setattr(hashing, "SETTLED", 0)
    paths = [tmp_path / name for name in "abc"]
    for path in paths:
        path.write_text(path.name)
    return paths


def test_a_file_that_was_not_touched_is_not_read_again(files, tmp_path, monkeypatch):
    known = tmp_path / "known.json"
    first = hashing.file_hashes(files, known=known)
    assert first == [hashing.file_hash(path) for path in files]
    read, real = [], hashing.file_hash
    monkeypatch.setattr(hashing, "file_hash", lambda path: read.append(path) or real(path))
    assert hashing.file_hashes(files, known=known) == first and not read
    date = files[1].stat().st_mtime_ns
    files[1].write_text("B")
    os.utime(files[1], ns=(date, date))  # as a copy that keeps the date
    os.utime(files[2])
    again = hashing.file_hashes(files, known=known)
    assert [a == b for a, b in zip(again, first, strict=True)] == [True, False, True]
    assert read == [str(path) for path in files[1:]]
    files[0].unlink()
    assert hashing.file_hashes(files[:1], known=known) == ["missing"]


def test_a_file_just_written_is_not_trusted_to_keep_its_date(files, tmp_path, monkeypatch):
    monkeypatch.setattr(hashing, "SETTLED", 3_600_000_000_000)
    hashing.file_hashes(files, known=tmp_path / "known.json")
    assert not (tmp_path / "known.json").exists()


def test_broken_memory_is_made_anew(files, tmp_path):
    known = tmp_path / "known.json"
    known.write_text('{"half')
    assert hashing.file_hashes(files, known=known) == hashing.file_hashes(files)
    assert len(json.loads(known.read_text())) == 3


def test_two_processes_may_remember_at_once(files, tmp_path):
    code = (
        "import sys; from tkmia_utils import hashing; hashing.SETTLED = 0\n"
        "known, *paths = sys.argv[1:]\n"
        "for path in paths * 30:\n    print(hashing.file_hashes([path], known=known)[0])\n"
        "    import os; os.utime(path)\n"
    )
    call = [sys.executable, "-c", code, str(tmp_path / "known.json")]
    root = str(Path(hashing.PACKAGE).parent)
    runs = [
        subprocess.Popen(
            [*call, *map(str, paths)], stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": root},
        )
        for paths in (files, files[::-1])
    ]  # fmt: skip
    said = [run.communicate(timeout=120)[0].split() for run in runs]
    wanted = hashing.file_hashes(files)
    assert said == [wanted * 30, wanted[::-1] * 30]
    assert set(json.loads((tmp_path / "known.json").read_text())) <= set(map(str, files))
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".tmp")]
