"""Promises of students' notebooks: no answer, no output, the rest as it was."""

from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tkmia_utils.course.__main__ import main
from tkmia_utils.course.strip import make_student, strip

ROOT = Path(__file__).parents[2]
FUNCTION = '''def hits(labels, k):
    """How many."""
    first = labels[:k]
    # begin solution
    # the ANSWER
    total = sum(first)
    return total
    # end solution


# Begin solution
threshold = "ANSWER"
# End solution
### BEGIN SOLUTION: level = None
level = "ANSWER"
### END SOLUTION
print(hits([1], 1))'''
STUDENT = '''def hits(labels, k):
    """How many."""
    first = labels[:k]
    raise NotImplementedError


...
level = None
print(hits([1], 1))'''
TEXT = """Why?

<details class="hint"><summary>Hint</summary>
Think.
<details><summary>More</summary>ANSWER</details>
</details>

<details><summary>Solution</summary>

Since `</details>` ANSWER <details>inner</details>.

</details>

Go on; `<details>` folds, as in
```html
<details>
```"""
STUDENT_TEXT = """Why?

<details class="hint"><summary>Hint</summary>
Think.
</details>

Go on; `<details>` folds, as in
```html
<details>
```"""


def solution(*cells):
    return new_notebook(cells=list(cells), metadata={"widgets": {"state": "ANSWER"}, "a": 1})


@pytest.fixture
def whole():
    output = new_output("stream", text="ANSWER")
    code = new_code_cell(FUNCTION, outputs=[output], execution_count=3)
    code.metadata.update(tags=["keep"], execution={"at": "ANSWER"})
    cut = new_code_cell("ANSWER", metadata={"tags": ["solution"]})
    cut_text = new_markdown_cell("ANSWER", metadata={"tags": ["other", "solution"]})
    only = new_markdown_cell("<details>ANSWER</details>\n")
    return solution(new_markdown_cell(TEXT), code, cut, cut_text, only, new_code_cell("%magic"))


def test_answers_and_outputs_go_and_the_rest_stays(whole):
    before = nbformat.writes(whole)
    student = strip(whole)
    assert nbformat.writes(whole) == before
    nbformat.validate(student)
    assert "ANSWER" not in nbformat.writes(student)
    assert [cell.source for cell in student.cells] == [STUDENT_TEXT, STUDENT, "%magic"]
    assert [c.id for c in student.cells] == [whole.cells[i].id for i in (0, 1, 5)]
    assert student.cells[1].metadata == {"tags": ["keep"]} and student.metadata == {"a": 1}
    assert student.cells[1].outputs == [] and student.cells[1].execution_count is None


def test_the_student_copy_of_a_student_copy_is_itself(whole):
    once = strip(whole)
    assert nbformat.writes(strip(once)) == nbformat.writes(once)


@pytest.mark.parametrize(
    ("cell", "why"),
    [
        ("# begin solution\nx = 1", "line 1: '# begin solution' has no"),
        ("x = 1\n# end solution", "line 2: .*none has begun"),
        ("# begin solution\n# begin solution\n# end solution", "line 2: .*line 1 has not ended"),
        ("# begin solutions\nx = 1\n# end solutions", "line 1: expected '# begin solution'"),
        ("x = 1  # begin solution", "line 1: expected .* line of its own"),
        ("#-- solution end", "line 1: expected"),
        ("# begin solution: # end solution\nx\n# end solution", "no comment after"),
        ("if a:\n    # begin solution\n    b\n    # end solution\n  c", "none"),
        ("# begin solution\nif a:\n    # end solution\n    b", "no longer Python"),
        ("x = (\n# begin solution\n1\n)\n# end solution", "no longer Python"),
    ],
)
def test_marks_that_do_not_pair_are_refused_with_notebook_and_cell(cell, why):
    notebook = solution(new_markdown_cell("Text"), new_code_cell(cell))
    if why == "none":  # no Python before either: whoever wrote it sees that elsewhere
        assert "b" not in strip(notebook).cells[1].source
        return
    with pytest.raises(ValueError, match=rf"lesson: cell 2 \(id .*\): .*{why}"):
        strip(notebook, name="lesson")


@pytest.mark.parametrize("text", ["<details>a", "a</details>", "<details><details>a</details>"])
def test_folds_that_do_not_pair_are_refused(text):
    with pytest.raises(ValueError, match=r"lesson: cell 1 .*details"):
        strip(solution(new_markdown_cell(text)), name="lesson")


@pytest.mark.parametrize("tag", ["Solution", "solutions", " solution"])
def test_a_tag_that_nearly_says_solution_is_refused(tag):
    with pytest.raises(ValueError, match="tag"):
        strip(solution(new_code_cell("x", metadata={"tags": [tag]})))


def test_a_folder_is_done_as_a_whole_or_not_at_all(tmp_path, whole, capsys):
    source, out = tmp_path / "solutions", tmp_path / "students"
    source.mkdir()
    nbformat.write(whole, source / "a.ipynb")
    nbformat.write(solution(new_code_cell("# end solution")), source / "b.ipynb")
    assert main(["student", str(source), str(out)]) == 2
    assert "b.ipynb: cell 1" in capsys.readouterr().err and not out.exists()
    (source / "b.ipynb").unlink()
    assert main(["student", str(source), str(out)]) == 0
    first = (out / "a.ipynb").read_bytes()
    assert make_student(out / "a.ipynb", tmp_path / "again.ipynb") == [tmp_path / "again.ipynb"]
    assert (tmp_path / "again.ipynb").read_bytes() == first
    for bad, where in (("source", tmp_path / "none"), ("out", source)):
        with pytest.raises(ValueError, match=f"^{bad}: expected"):
            make_student(where if bad == "source" else source, where if bad == "out" else out)


def test_the_lessons_of_this_repository_can_be_stripped():
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        lesson = nbformat.read(path, as_version=4)
        assert len(strip(lesson, name=path.stem).cells) >= len(lesson.cells) - 2
