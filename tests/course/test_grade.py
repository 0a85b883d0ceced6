"""Promises of the grader: no submission stops it, and only values are believed."""

import csv
import inspect
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

import nbformat
import numpy as np
import psutil
import pytest
import torch
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tkmia_utils.course import check, report
from tkmia_utils.course.__main__ import course_items, main
from tkmia_utils.course.collect import collect
from tkmia_utils.course.grade import Graded, Item, grade, grade_folder
from tkmia_utils.course.sandbox import CannotStart, Limits, Sandbox
from tkmia_utils.course.strip import make_student

SECRET = 0.123456789  # what the answer must be, and is in the grader only


@dataclass(frozen=True)
class Result:
    status: str
    message: str
    points: float = 0.0


def verdict(function, *, wanted, arguments):
    """A check like the course's: refusals count as not attempted, errors as wrong."""
    try:
        got = function(*arguments)
    except NotImplementedError:
        return Result("not attempted", "still to do")
    except Exception as error:
        return Result("wrong", f"{type(error).__name__}: {error}")
    if got is None:
        return Result("not attempted", "nothing returned")
    same = torch.is_tensor(got) and got.shape == wanted.shape and torch.allclose(got, wanted)
    return Result("right", "as it should be") if same else Result("wrong", "another value")


def check_double(function):
    x = torch.tensor([1.0, 2.0, -3.0])
    return verdict(function, wanted=2 * x, arguments=(x,))


def check_shift(function):
    x = torch.arange(4.0)
    expected_secret = x + SECRET  # lies in a frame of the grader while the function runs
    return verdict(function, wanted=expected_secret, arguments=(x, SECRET))


def check_ascent(function):
    weight = torch.tensor([[1.0, -2.0, 0.5]])
    model = torch.nn.Linear(3, 1, bias=False)
    model.weight.data = weight
    x = torch.zeros(2, 3)
    return verdict(function, wanted=0.1 * weight.sign().expand(2, 3), arguments=(model, x))


EXERCISES = (
    Item("double", 2, check_double),
    Item("shift", 3, check_shift),
    Item("ascent", 5, check_ascent, hidden=True),
)
FAST = Limits(exercise=2.0, total=20.0)
HEAD = "import torch\nimport numpy as np"
DOUBLE = "def double(x):\n    return 2 * x"
SHIFT = "def shift(x, by):\n    return x + by"
ASCENT = """STEP = 0.1


def ascent(model, x):
    x = x.clone().requires_grad_()
    slope, = torch.autograd.grad(model(x).sum(), x)
    return STEP * slope.sign()"""
RIGHT = (HEAD, DOUBLE, "double(torch.ones(3))", SHIFT, ASCENT)


def save(path: Path, *cells: str) -> Path:
    notebook = new_notebook(cells=[new_markdown_cell("# Text"), *map(new_code_cell, cells)])
    nbformat.write(notebook, path)
    return path


def statuses(graded: Graded) -> list[str]:
    return [m.status for m in graded.marks]


def test_a_right_submission_in_any_order_has_all_points_in_all_three_reports(tmp_path):
    work = save(tmp_path / "right.ipynb", *reversed(RIGHT))
    graded = grade(work, EXERCISES, limits=FAST)
    assert statuses(graded) == ["right"] * 3 and graded.score == graded.max_score == 10
    assert graded.problems == () and all(m.notes == () for m in graded.marks)
    found = report.as_gradescope(graded)
    assert found["score"] == 10 and sum(t["max_score"] for t in found["tests"]) == 10
    assert [t["visibility"] for t in found["tests"]] == ["visible", "visible", "after_published"]
    hidden = report.as_gradescope(graded, visibility="hidden")["tests"][2]
    assert hidden["visibility"] == "hidden" and hidden["name"] == "ascent"
    assert "10 of 10" in report.as_markdown(graded) and "ascent" in report.as_markdown(graded)
    shown = report.as_markdown(graded, hidden=False)
    assert "5 of 5" in shown and "ascent" not in shown
    with pytest.raises(ValueError, match="visibility"):
        report.as_gradescope(graded, visibility="secret")


def test_cells_may_be_deleted_copied_broken_and_renamed(tmp_path):
    """One submission for each, all told in the report."""
    marked = [
        c.replace(":\n    ", ":\n    # begin solution\n    ", 1) for c in (DOUBLE, SHIFT, ASCENT)
    ]
    source = save(tmp_path / "source.ipynb", *[f"{c}\n    # end solution" for c in marked])
    make_student(source, tmp_path / "student.ipynb")
    blank = [c.source for c in nbformat.read(tmp_path / "student.ipynb", 4).cells[1:]]
    assert len(blank) == 3 and all("raise NotImplementedError" in c for c in blank)
    source.unlink()
    (tmp_path / "student.ipynb").unlink()
    loop = "while True:\n    pass"
    works = {
        "blank": (HEAD, *blank),
        "broken": (HEAD, DOUBLE, "def shift(x, by:\n    return x", "import no_such_thing", loop),
        "copied": (HEAD, "def double(x):\n    return x", SHIFT, "%matplotlib inline\n" + DOUBLE),
        "deleted": (HEAD, "print(1)"),
        "half": (HEAD, DOUBLE, blank[1], "def ascent(model, x):\n    return x"),
        "renamed": (HEAD, DOUBLE.replace("double", "doubled"), SHIFT),
    }
    for name, cells in works.items():
        save(tmp_path / f"{name}.ipynb", *cells)
    (tmp_path / "zero.ipynb").write_text("no notebook")
    found = {g.name.split(".")[0]: g for g in grade_folder(tmp_path, EXERCISES, limits=FAST)}
    missing = "not attempted"
    assert {name: statuses(g) for name, g in found.items()} == {
        "blank": [missing, missing, missing],
        "broken": ["right", missing, missing],
        "copied": ["right", "right", missing],
        "deleted": [missing, missing, missing],
        "half": ["right", missing, "wrong"],
        "renamed": [missing, "right", missing],
        "zero": [missing, missing, missing],
    }
    (problem,) = found["broken"].problems
    assert "code cell 3, line 1 is no Python" in problem
    assert found["copied"].problems == ("double is defined in code cells 2, 4: the last counts",)
    assert found["renamed"].marks[0].message.endswith("found: doubled")
    assert found["zero"].problems[0].startswith("not a notebook")
    rows = list(csv.DictReader(report.as_csv(list(found.values())).splitlines()))
    assert [row["submission"] for row in rows] == sorted(p.name for p in tmp_path.iterdir())
    assert [float(row["score"]) for row in rows] == [0, 2, 5, 0, 2, 3, 0]


def test_a_function_gets_what_it_needs_and_no_more(tmp_path):
    text = """import torch, no_such_thing
from math import *
table, rows = {}, []
for size in range(3):
    table[size] = size
    rows.append(size)
for k in range(8):
    x = slow(k)
double = lambda x, k=2: helper(x, k) if True else unknown
class Helper:
    scale = factor
    def run(self, v, k): return [v for v in (k,)][0] * self.scale * v
factor = 1; print("never"); factor = len(rows)
try:
    helper = missing
except NameError:
    def helper(v, k): return Helper().run(v, k) + table[0] + sqrt(4)
table.update(a=1)
print(double(1))
while True:
    y = double(3)
%time slow(3)
slow?"""
    submission = collect(save(tmp_path / "a.ipynb", text, "%%bash\nls", "%%time\nz = 1\nreturn z"))
    lines = [line for _, line, _ in submission.needed("double")]
    assert lines == [2, 3, 4, 9, 10, 13, 13, 14, 18]
    star = (1, 2, "from math import *")  # may bring anything
    assert submission.needed("z") == [star, (3, 2, "z = 1")] and submission.problems == ()


def test_a_value_by_the_name_of_a_function_neither_is_one_nor_undoes_it(tmp_path):
    cells = (HEAD, DOUBLE, "double = 3", "shift = 4", ASCENT, "ascent = torch.no_grad()(ascent)")
    graded = grade(save(tmp_path / "a.ipynb", *cells), EXERCISES, limits=FAST)
    assert statuses(graded) == ["right", "not attempted", "wrong"] and graded.problems == ()


def test_loops_exits_and_failing_imports_cost_their_exercise_only(tmp_path):
    cells = [
        HEAD,
        "def double(x):\n    while True:\n        pass",
        "import os\nimport no_such_thing",
        "def shift(x, by):\n    os._exit(0)",
        "import sys\nsys.exit()",
        "LIMIT = sys.exit('no')",
        ASCENT,
        "def leaves(x):\n    sys.exit(3)",
        "def needs(x):\n    return no_such_thing.f(x)",
        "def late(x):\n    return LIMIT",
        "def deep(x):\n    return deep(x)",
        "def big(x):\n    return torch.zeros(10**10)",
        "def huge(x):\n    return torch.zeros(3 * 10**6)",
    ]
    work = save(tmp_path / "loops.ipynb", *cells)
    more = [Item(n, 1, check_double) for n in ("leaves", "needs", "late", "deep", "big", "huge")]
    begin = time.monotonic()
    limits = Limits(exercise=1.0, total=20.0, reply=8 << 20, memory=1 << 30)
    graded = grade(work, [*EXERCISES, *more], limits=limits)
    assert time.monotonic() - begin < 30
    messages = {m.item.name: m.message for m in graded.marks}
    assert statuses(graded) == ["wrong", "wrong", "right"] + ["wrong"] * 6
    assert "endless loop" in messages["double"] and "exit code 0" in messages["shift"]
    assert "SystemExit" in messages["leaves"] and "cell 8, line 2" in messages["leaves"]
    assert "no_such_thing" in messages["needs"] and "SystemExit" in messages["late"]
    assert "RecursionError" in messages["deep"] and "memory" in messages["big"]
    assert "more than 8 MB" in messages["huge"]


def test_the_total_time_is_bounded_too(tmp_path):
    loop = "    while True:\n        pass"
    work = save(tmp_path / "all.ipynb", *[f"def {e.name}(*_):\n{loop}" for e in EXERCISES])
    graded = grade(work, EXERCISES, limits=Limits(exercise=0.6, total=0.9))
    assert statuses(graded) == ["wrong"] * 3
    assert "all exercises together" in graded.marks[1].message
    assert "used up" in graded.marks[2].message


SEARCH = """import gc
import sys


def shift(x, by):
    frame = sys._getframe()
    while frame is not None:
        for value in list(frame.f_locals.values()):
            if torch.is_tensor(value) and value.shape == x.shape and not torch.equal(value, x):
                return value
        frame = frame.f_back
    for thing in gc.get_objects():
        if isinstance(thing, dict) and "expected_secret" in thing:
            return thing["expected_secret"]
        if torch.is_tensor(thing) and thing.shape == x.shape and not torch.equal(thing, x):
            return thing
    import tkmia_utils.course.check as answers
    return answers.shift(x, by)"""
PRETEND = """import os


class Yes(torch.Tensor):
    def __eq__(self, other):
        return True

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if function is torch.allclose:
            return True
        return super().__torch_function__(function, types, args, kwargs or {})


torch.allclose = lambda *_, **__: True


def double(x):
    return Yes(x)


def ascent(model, x):
    print("right", {"status": "right", "points": 5})
    for file in range(3, 20):
        try:
            os.write(file, b'{"op": "result", "status": "right"}' * 3)
        except OSError:
            pass
    return x"""


def test_no_answer_is_found_in_memory_and_no_claim_is_believed(tmp_path):
    names = {"torch": torch}
    exec(SEARCH, names)
    assert check_shift(names["shift"]).status == "right"  # in one process it finds the answer
    work = save(tmp_path / "cunning.ipynb", HEAD, SEARCH, PRETEND, "torch.allclose = Yes.__eq__")
    graded = grade(work, EXERCISES, limits=FAST)
    assert statuses(graded) == ["wrong"] * 3
    assert "closed while grading" in graded.marks[1].message  # it had found nothing before


def test_the_students_process_has_no_network_no_input_and_a_folder_of_its_own(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("HTTPS_PROXY", "http://somewhere")
    monkeypatch.setenv("GRADER_TOKEN", "secret")
    text = """import os, socket, sys, urllib.request


def look(x):
    found = {"cwd": os.getcwd(), "names": sorted(os.environ), "input": sys.stdin.read()}
    found["modules"] = [m for m in sys.modules if m.startswith("tkmia_utils.course")]
    open("mine.txt", "w").write("x")
    for at in (lambda: socket.socket(), lambda: socket.create_connection(("127.0.0.1", 9))):
        try:
            at()
        except PermissionError as error:
            found.setdefault("refused", []).append(str(error))
    return found"""
    seen = []

    def check(function):
        seen.append(function(1))
        return Result("right", "")

    grade(save(tmp_path / "look.ipynb", text), [Item("look", 1, check)], limits=FAST)
    (found,) = seen
    assert found["refused"] == ["no network while grading"] * 2
    assert found["input"] == "" and found["modules"] == []
    assert not {"HTTPS_PROXY", "GRADER_TOKEN"} & set(found["names"])
    assert "tkmia-grade-" in found["cwd"] and not os.path.exists(found["cwd"])


def test_no_process_of_a_student_outlives_the_grading(tmp_path):
    text = """import os
import time


def stray(x):
    child = os.fork()
    if child == 0:
        os.setsid()
        time.sleep(100)
        os._exit(0)
    time.sleep(0.2)
    return child"""
    children = []

    def check(function):
        children.append(function(1))
        return Result("right", "")

    grade(save(tmp_path / "stray.ipynb", text), [Item("stray", 1, check)], limits=FAST)
    (child,) = children

    def alive():
        try:
            return psutil.Process(child).status() != "zombie"
        except psutil.NoSuchProcess:
            return False

    end = time.monotonic() + 10  # far less than it would sleep
    while alive() and time.monotonic() < end:
        time.sleep(0.02)
    assert not alive()


def test_megabytes_of_output_are_cut_and_do_not_make_an_answer_wrong(tmp_path):
    loud = DOUBLE.replace("    return", "    print('<|> \\x1b[31m' * 10**6)\n    return")
    work = save(tmp_path / "loud.ipynb", HEAD, loud)
    graded = grade(work, EXERCISES[:1], limits=Limits(exercise=5.0))
    assert statuses(graded) == ["right"]
    text = report.as_markdown(graded)
    assert len(text) < 1500 and "characters more" in text and "\x1b" not in text


def test_arguments_and_values_cross_as_they_would_in_one_process(tmp_path):
    text = """def mixed(*args, **named):
    return args, named


def scramble(array, tensor, generator, noise):
    array *= 2
    tensor.zero_()
    return torch.rand(2, generator=generator), noise.normal(size=2)


def loss(x):
    return (x**3).sum(), x * 2


def power(n):
    return lambda x: x**n


@torch.no_grad()
def signed(a, b=2, *c, d, **e):
    return a


def fails(x):
    raise KeyError("which")


def strange(x):
    return object()"""
    names = ["mixed", "scramble", "loss", "power", "signed", "fails", "strange"]
    submission = collect(save(tmp_path / "values.ipynb", HEAD, text))
    with Sandbox(Limits(exercise=10.0)) as sandbox:

        def using(name, use):
            return sandbox.run(name, submission.needed(name), lambda f: use(f.as_function()))

        values = [1, 2.5, float("inf"), None, True, "é|\n", ..., 1j, range(3), {1, 2}, (1, [2])]
        values += [torch.float32, torch.device("cpu"), {"a": {3: "b"}}, np.float32(2), np.int64(3)]
        args, named = using("mixed", lambda f: f(*values, key=[1]))
        assert list(args) == values and named == {"key": [1]}
        assert [type(a) for a in args] == [type(v) for v in values]
        tensors = [torch.rand(2, 3), torch.zeros(0, 2), torch.tensor(3), torch.tensor([True])]
        tensors += [torch.ones(2, dtype=torch.bfloat16), torch.rand(3, 2).T]
        args, _ = using("mixed", lambda f: f(*tensors))
        assert all(
            torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(args, tensors, strict=True)
        )
        frozen = np.arange(6).reshape(2, 3)
        frozen.flags.writeable = False
        ((array,), _) = using("mixed", lambda f: f(frozen))
        assert np.array_equal(array, frozen) and array.dtype == frozen.dtype
        assert not array.flags.writeable

        array, tensor = np.ones(3), torch.ones(3)
        generator, noise = torch.Generator().manual_seed(5), np.random.default_rng(5)
        drawn, normal = using("scramble", lambda f: f(array, tensor, generator, noise))
        assert array.tolist() == [2, 2, 2] and tensor.tolist() == [0, 0, 0]
        same = torch.Generator().manual_seed(5)
        assert torch.equal(drawn, torch.rand(2, generator=same))
        assert torch.equal(generator.get_state(), same.get_state())
        assert np.array_equal(normal, np.random.default_rng(5).normal(size=2))
        for kind in (np.random.Philox, np.random.PCG64, np.random.MT19937, np.random.SFC64):
            noise, again = np.random.Generator(kind(7)), np.random.Generator(kind(7))
            for _ in range(2):  # the second call goes on where the first has stopped
                drawn, normal = using("scramble", lambda f, n=noise: f(array, tensor, generator, n))
                assert np.array_equal(normal, again.normal(size=2))

        x = torch.tensor([1.0, 2.0], requires_grad=True)

        def slope(f):
            total, doubled = f(x)
            return torch.autograd.grad(total + doubled.sum(), x)[0]

        assert using("loss", slope).tolist() == [5, 14]
        assert using("power", lambda f: f(3)(2)) == 8

        def signature(f):
            return str(inspect.signature(f)), f.__name__, inspect.isfunction(f)

        assert using("signed", signature) == ("(a, b=Ellipsis, *c, d, **e)", "signed", True)
        with pytest.raises(KeyError, match=r"which.*cell 2, line \d+"):
            using("fails", lambda f: f(1))
        with pytest.raises(TypeError, match="object cannot be sent"):
            using("strange", lambda f: f(1))
    assert names == submission.functions()


def test_a_check_that_raises_or_never_calls_gives_no_points(tmp_path):
    def raises(function):
        raise RuntimeError("a bug")

    checks = (raises, lambda f: Result("right", ""), lambda f: Result("perfect", ""))
    exercises = [Item(n, 1, c) for n, c in zip(("double", "shift", "ascent"), checks, strict=True)]
    graded = grade(save(tmp_path / "right.ipynb", *RIGHT), exercises, limits=FAST)
    assert statuses(graded) == ["wrong"] * 3 and "a bug" in graded.marks[0].message
    with pytest.raises(ValueError, match="items"):
        grade(tmp_path / "right.ipynb", [exercises[0], exercises[0]])
    with pytest.raises(CannotStart, match="out of time"):  # no fault of a student's
        grade(tmp_path / "right.ipynb", exercises, limits=Limits(start=0.01))
    with pytest.raises(ValueError, match="total"):
        Limits(total=0)


def test_a_check_that_watches_torch_sees_what_the_students_process_calls(tmp_path):
    class NoSort(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            if func.__name__ in ("sort", "topk"):
                raise ArithmeticError(f"it calls {func.__name__}")
            return func(*args, **(kwargs or {}))

    def check(function):
        with NoSort():
            return check_double(function)

    sorts = "def sorts(x):\n    return 2 * x.sort().values[x.argsort().argsort()]"
    items = [Item("double", 1, check), Item("sorts", 1, check)]
    graded = grade(save(tmp_path / "sort.ipynb", HEAD, DOUBLE, sorts), items, limits=FAST)
    assert statuses(graded) == ["right", "wrong"]
    assert "it calls sort" in graded.marks[1].message


def test_the_courses_own_solutions_have_all_points(tmp_path):
    items = course_items(seed=0)
    cells = [str(check.solution(item.name)) for item in items]
    graded = grade(save(tmp_path / "all.ipynb", *cells), items)
    assert {m.item.name: m.message for m in graded.marks if m.status != "right"} == {}
    assert graded.problems == ()


def test_the_command_line_grades_one_and_a_folder(tmp_path, capsys):
    work, out = tmp_path / "work", tmp_path / "out"
    (work / "group").mkdir(parents=True)
    one = save(work / "=1+1.ipynb", *RIGHT)
    save(work / "group" / "b.ipynb", HEAD)
    (work / "c.ipynb").write_text("{}")
    assert main(["grade", str(one), "--out", str(out)], items=EXERCISES) == 0
    assert "10 of 10" in capsys.readouterr().out
    assert json.loads((out / "results.json").read_text())["score"] == 10
    folder = ["grade", str(work), "--out", str(out), "--hidden", "shift"]
    assert main(folder, items=EXERCISES) == 0
    rows = list(csv.DictReader((out / "grades.csv").read_text().splitlines()))
    assert [r["submission"] for r in rows] == ["'=1+1.ipynb", "c.ipynb", "group/b.ipynb"]
    assert [r["double: status"] for r in rows] == ["right", "not attempted", "not attempted"]
    tests = json.loads((out / "group" / "b" / "results.json").read_text())["tests"]
    assert [t["visibility"] for t in tests] == ["visible", "after_published", "after_published"]
    assert "shift" not in (out / "=1+1" / "student.md").read_text()
    assert main(["grade", "nowhere", "--out", str(out)], items=EXERCISES) == 2
    assert main([*folder[:-1], "no_such"], items=EXERCISES) == 2
    assert "hidden: expected" in capsys.readouterr().err
