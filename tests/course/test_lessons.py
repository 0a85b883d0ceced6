"""The exercises as the notebooks set them, and the folders that a teacher gets of them."""

import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat import v4

from tkmia_utils.course import cells, check, handout
from tkmia_utils.course.lessons import read_lesson, reading_minutes, tasks
from tkmia_utils.course.strip import strip

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
FOLD = "<details><summary>"


def read(path: Path):
    return nbformat.read(path, as_version=4)


@each
def test_a_header_tells_minutes_and_what_comes_before(path):
    lesson = read_lesson(path)
    assert lesson.goals and lesson.machine
    assert lesson.before or path.stem.startswith("00")
    assert abs(lesson.reading - reading_minutes(read(path))) <= 5
    assert lesson.exercises == sum(task.minutes for task in lesson.tasks)
    assert "](../docs/glossary.md)" in read(path).cells[0].source


@each
def test_three_to_six_exercises_stand_before_the_summary(path):
    text = [cell.source for cell in read(path).cells if cell.cell_type == "markdown"]
    numbers = [task.number for task in read_lesson(path).tasks]
    assert 2 <= len(numbers) <= 6
    assert numbers == [f"{path.stem.split('_')[0]}.{i + 1}" for i in range(len(numbers))]
    heads = [line for source in text for line in source.split("\n") if line.startswith("## ")]
    assert heads.count("## Exercises") == 1
    assert heads.index("## Exercises") == heads.index("## Summary") - 1


@each
def test_an_exercise_says_what_its_check_says(path):
    for task in read_lesson(path).tasks:
        if task.name is not None:
            exercise = check.EXERCISES[task.name]
            told = (task.number, task.title, task.points, task.minutes)
            assert told == (exercise.number, exercise.title, exercise.points, exercise.minutes)


def test_every_check_is_set_by_one_notebook():
    names = [task.name for path in NOTEBOOKS for task in read_lesson(path).tasks if task.name]
    assert sorted(names) == sorted(check.EXERCISES)


@each
def test_the_blank_and_the_filled_copy_come_from_one_solution(path):
    notebook = read(path)
    asked = [(cell, cells.asked(cell)) for cell in notebook.cells if cells.asked(cell)]
    for cell, name in asked:
        assert cell.source == cells.blank(check.EXERCISES[name])
    filled = cells.fill(notebook, check.EXERCISES)
    again = strip(filled)
    for cell, name in asked:
        (back,) = [other for other in again.cells if cells.asked(other) == name]
        assert back.source == cell.source
        (full,) = [other for other in filled.cells if cells.asked(other) == name]
        assert "# begin solution" in full.source and "..." not in full.source.split("\n")[-1]


@each
def test_exercise_cells_are_the_readers_and_save_nothing(path):
    for cell in read(path).cells:
        if "exercise" in cell.metadata.get("tags", ()):
            assert "save_" not in cell.source


@each
def test_imports_of_the_solutions_are_in_the_notebook(path):
    code = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "code")
    for task in read_lesson(path).tasks:
        if task.name is not None:
            for line in check.EXERCISES[task.name].imports:
                assert line in code.split("\n"), f"{task.number}: {line}"


@each
def test_every_prompt_has_its_answer_folded_under_it(path):
    for cell in read(path).cells:
        if cell.cell_type != "markdown":
            continue
        assert not re.search(r"Change this and look\*\*", cell.source), "write 'look:**'"
        parts = cell.source.split("**Change this and look:**")[1:]
        for part in parts:
            assert FOLD in part, part[:80]
        for fold in re.findall(r"<details.*?</details>", cell.source, re.S):
            assert "</summary>\n\n" in fold and "\n\n</details>" in fold, fold[:80]


def test_an_exercise_without_points_is_refused_with_its_number():
    notebook = v4.new_notebook(cells=[v4.new_markdown_cell("### 01.9 · Nothing\n\nDo it.")])
    with pytest.raises(ValueError, match=r"my\.ipynb: exercise 01.9: expected a line"):
        tasks(notebook, name="my.ipynb")


def test_one_marked_by_hand_needs_its_marking():
    text = "### 01.9 · Prove it\n\n*2 points · 5 minutes · marked by hand*\n\nDo."
    notebook = v4.new_notebook(cells=[v4.new_markdown_cell(text)])
    with pytest.raises(ValueError, match="answer and marking is missing"):
        tasks(notebook)
    fold = "\n\n<details><summary>Answer and marking</summary>\n\nSo.\n\n</details>"
    (task,) = tasks(v4.new_notebook(cells=[v4.new_markdown_cell(text + fold)]))
    assert (task.text, task.marking) == ("Do.", "So.")


def test_a_cell_that_asks_for_what_is_not_there_is_refused():
    cell = v4.new_code_cell("check.nothing(nothing)", metadata={"tags": ["exercise"]})
    with pytest.raises(ValueError, match="'nothing': no such exercise"):
        cells.fill(v4.new_notebook(cells=[cell]), check.EXERCISES)


@pytest.fixture(scope="module")
def course(tmp_path_factory) -> Path:
    return handout.make_course(ROOT, tmp_path_factory.mktemp("course") / "out")


def test_students_get_no_answer_and_the_teacher_all(course):
    for path in NOTEBOOKS:
        theirs = read(course / "students" / "notebooks" / path.name)
        mine = read(course / "teacher" / "notebooks" / path.name)
        assert not any(FOLD in cell.source for cell in theirs.cells)
        assert not any("begin solution" in cell.source for cell in theirs.cells)
        for cell in mine.cells:
            if name := cells.asked(cell):
                assert cell.source == cells.answered(check.EXERCISES[name])


def test_the_students_folder_stands_alone(course):
    """What it needs is in it, without the extra of those who develop this repository."""
    students = course / "students"
    for link in re.findall(r"\]\(([^)#]+)\)", (students / "README.md").read_text()):
        assert (students / link).exists(), link
    assert ".[dev" not in (students / "Makefile").read_text()
    code = "import tkmia_utils.course.check as c, tkmia_utils; print(tkmia_utils.__file__)"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=students, capture_output=True, text=True, check=True
    )
    assert str(students) in run.stdout
    for path in [*(students / "notebooks").glob("*.ipynb"), *(students / "docs").glob("*.md")]:
        for link in re.findall(r"\]\(([^)#\s]+\.(?:md|ipynb))[#)]", path.read_text("utf-8")):
            assert (path.parent / link).exists(), f"{path.name}: {link}"


def test_the_sheets_hold_tasks_and_no_answers(course):
    for name, (_, numbers, _) in handout.SHEETS.items():
        text = (course / "teacher" / f"{name}.md").read_text()
        assert re.findall(r"^## (\d\d[a-z]?\.\d+)", text, re.M) == list(numbers)
        assert FOLD not in text
        assert (course / "students" / f"{name}.md").exists() == (name != "exam")
    known = {task.number: task for path in NOTEBOOKS for task in read_lesson(path).tasks}
    assert sum(known[n].minutes for n in handout.LAB) <= 90


def test_the_guide_and_the_syllabus_name_every_exercise(course):
    guide = (course / "teacher" / "marking_guide.md").read_text()
    syllabus = (course / "teacher" / "syllabus.md").read_text()
    for path in NOTEBOOKS:
        for task in read_lesson(path).tasks:
            assert f"{task.number} {task.title}" in guide
            assert f"{task.number} {task.title}" in syllabus
            if task.name is not None:
                for mutant in check.EXERCISES[task.name].mutants:
                    assert mutant.message in guide


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="out: expected a new or an empty folder"):
        handout.make_course(ROOT, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_the_readme_tells_the_same_minutes():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for path in NOTEBOOKS:
        lesson = read_lesson(path)
        row = next(line for line in readme.split("\n") if f"(notebooks/{path.name}) |" in line)
        cells_ = [cell.strip() for cell in row.strip("|").split("|")]
        assert cells_[2:4] == [str(lesson.reading), str(lesson.exercises)], path.stem
