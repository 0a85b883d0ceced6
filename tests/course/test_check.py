"""Promises of the checks: every answer gets a verdict, and a typical mistake its own message."""

import copy
import importlib
import inspect

import numpy as np
import pytest
import torch

from tkmia_utils.course import check, judge
from tkmia_utils.course.exercise import mutant
from tkmia_utils.course.judge import generator, judge_function
from tkmia_utils.course.session import session

EXERCISES = list(check.EXERCISES.values())
SEEDS = (0, 1)
each = pytest.mark.parametrize("exercise", EXERCISES, ids=lambda e: e.name)
BY_VALUE = [e for e in EXERCISES if e.by_value]


@pytest.fixture(autouse=True)
def _new_session():
    session.cache_clear()
    yield
    session.cache_clear()


def refuses(*_):
    raise NotImplementedError


def judged(exercise, answer, seed=0):
    found = judge_function(exercise, answer, seed=seed)
    assert found.exercise == exercise.name and found.of == exercise.points
    assert (found.points == found.of) == (found.status == "right")
    assert "Traceback" not in found.message and "\n" not in found.message
    assert len(found.message) < 900
    return found


def like(exercise, answer):
    """A function with the arguments that the exercise gives; answers get them as a tuple."""

    def function(*case):
        return answer(case)

    function.__signature__ = inspect.signature(exercise.solution)
    return function


def changed(value, number):
    """The same kind of value with every number changed."""
    if isinstance(value, tuple | list):
        return [changed(v, number) for v in value]
    if isinstance(value, torch.Tensor):
        return number(value)
    return float(number(torch.tensor(float(value))))


@each
def test_an_exercise_has_all_that_a_reader_needs(exercise):
    assert exercise.name.isidentifier() and exercise.name not in vars(check)
    assert exercise.solution.__name__ == exercise.name
    assert exercise.points > 0 and exercise.minutes > 0
    assert f"`{exercise.name}(" in exercise.task
    assert len(exercise.hints) >= 2 and len(set(exercise.hints)) == len(exercise.hints)
    assert len(exercise.mutants) >= 3 and exercise.others


def test_no_two_exercises_share_a_name_or_a_number():
    assert len({e.number for e in EXERCISES}) == len(EXERCISES) == len(check.EXERCISES)
    assert [e.number for e in EXERCISES] == sorted(e.number for e in EXERCISES)


@each
def test_what_is_said_of_a_mistake_is_short_and_said_of_no_other(exercise):
    messages = [m.message for m in exercise.mutants]
    assert len(set(messages)) == len(messages)
    for message in messages:
        assert message.endswith(".") and len(message) < 130, message


@each
def test_a_blank_is_not_attempted(exercise):
    for blank in (refuses, lambda *_: None, lambda *_: ...):
        found = judged(exercise, blank)
        assert (found.status, found.points) == ("not attempted", 0)
    for blank in (None, ...):
        assert check.run(exercise.name, blank).status == "not attempted"


@each
@pytest.mark.parametrize("seed", SEEDS)
def test_right_answers_are_right_however_they_are_written(exercise, seed):
    for answer in (exercise.solution, *exercise.others):
        found = judged(exercise, answer, seed)
        assert found.status == "right", found.message


@each
def test_the_solution_that_is_shown_stands_alone(exercise):
    space = {}
    exec(check.solution(exercise.name), space)
    assert judged(exercise, space[exercise.name]).status == "right"


@each
@pytest.mark.parametrize("seed", SEEDS)
def test_every_mistake_is_recognised(exercise, seed):
    for mistake in exercise.mutants:
        for answer in mistake.answers:
            found = judged(exercise, answer, seed)
            assert (found.status, found.message) == ("wrong", mistake.message)


@each
def test_an_answer_that_raises_is_told_in_a_line(exercise):
    def raises(*_):
        raise KeyError("no such\nlabel")

    def leaves(*_):
        raise SystemExit("bye")

    class Mute(Exception):
        def __str__(self):
            raise RuntimeError("no")

    def mutters(*_):
        raise Mute

    for answer, name in ((raises, "KeyError"), (leaves, "SystemExit"), (mutters, "Mute")):
        found = judged(exercise, answer)
        assert found.status == "wrong" and name in found.message


@each
def test_values_that_are_none_are_wrong_and_no_accident(exercise):
    class Hostile:
        def __getattr__(self, name):
            raise RuntimeError("no")

    some = [torch.nan, "a", [], {}, object(), Hostile, Hostile(), 1j, np.array("x"), {1, 2}]
    some += [torch.zeros(3, 4, 5), [[1], [1, 2]], [(1, 2, 3)], (None, None), {"a": "b"}, b"x", True]
    for value in some:
        found = judged(exercise, like(exercise, lambda case, value=value: value))
        if value is not True:  # which is the answer to some inputs of a yes-or-no question
            assert found.status == "wrong", value


@each
def test_another_shape_is_told(exercise):
    def stacked(case):
        value = exercise.solution(*case)
        if isinstance(value, set | frozenset):
            return [(*pair, 0) for pair in value]
        return [value, value, value]

    found = judged(exercise, like(exercise, stacked))
    assert found.status == "wrong" and "expected" in found.message


@each
def test_nan_is_told(exercise):
    def spoilt(case):
        value = exercise.solution(*case)
        if isinstance(value, set | frozenset):
            return [(float("nan"), 1)]
        return changed(value, lambda t: t * torch.nan)

    found = judged(exercise, like(exercise, spoilt))
    assert found.status == "wrong"
    assert "NaN" in found.message or "expected" in found.message


@each
def test_other_numbers_get_an_example_to_work_through(exercise):
    """No mistake of the list: the message shows inputs by name."""
    example = exercise.cases(generator(exercise, 0))[0]

    def off(case):
        value = exercise.solution(*case)
        if isinstance(value, set | frozenset):
            return {(0, 1), (0, 2), (0, 3), (1, 2)}
        if isinstance(value, bool) or getattr(value, "dtype", None) == torch.bool:
            return value if value is True else False if isinstance(value, bool) else ~value
        return changed(value, lambda t: 1.37 * t + 0.21)

    found = judged(exercise, like(exercise, off))
    if isinstance(exercise.solution(*example), bool):
        return  # nothing but a mistake is between yes and no
    assert found.status == "wrong"
    for name in inspect.signature(exercise.solution).parameters:
        assert f"{name} = " in found.message


@each
def test_an_answer_that_changes_its_input_is_told(exercise):
    def greedy(case):
        value = exercise.solution(*copy.deepcopy(case))
        for given in case:
            if isinstance(given, torch.Tensor):
                with torch.no_grad():
                    given.copy_(~given if given.dtype == torch.bool else given + 1)
            elif isinstance(given, list):
                given.append(0)
        return value

    arguments = exercise.cases(generator(exercise, 0))[0]
    if exercise.name == "objective":
        return  # its value keeps a graph over what would be changed
    found = judged(exercise, like(exercise, greedy))
    if any(isinstance(given, torch.Tensor | list) for given in arguments):
        assert found.status == "wrong" and "in place" in found.message
    else:
        assert found.status == "right"


@each
def test_a_function_with_other_arguments_is_told(exercise):
    found = judged(exercise, lambda: 1)
    assert found.status == "wrong" and f"{exercise.name}(" in found.message


@pytest.mark.parametrize(
    "name",
    [
        *("sum_top_k", "eq6", "objective", "two_maps", "top_k_mask", "may_stop", "momentum_step"),
        *("tkml_objective", "pgd_step", "aper_both"),
    ],
)
def test_float32_is_exact_enough(name):
    exercise = check.EXERCISES[name]

    def single(case):
        tensors = [isinstance(v, torch.Tensor) and v.is_floating_point() for v in case]
        return exercise.solution(
            *(v.float() if yes else v for v, yes in zip(case, tensors, strict=True))
        )

    found = judged(exercise, like(exercise, single))
    assert found.status == "right", found.message


@each
def test_lists_and_arrays_are_as_good_as_tensors(exercise):
    def listed(value):
        if isinstance(value, tuple):
            return [listed(v) for v in value]
        return value.detach().numpy() if isinstance(value, torch.Tensor) else value

    if exercise.name == "objective":
        return  # it asks for a gradient
    answer = like(exercise, lambda case: listed(exercise.solution(*case)))
    assert judged(exercise, answer).status == "right"


def test_the_inputs_differ_by_seed_and_by_exercise_and_one_seed_gives_them_again():
    one, two = check.EXERCISES["four_measures"], check.EXERCISES["ndcg"]
    assert one.cases(generator(one, 3)) == one.cases(generator(one, 3))
    assert one.cases(generator(one, 3)) != one.cases(generator(one, 4))
    assert one.cases(generator(one, 3)) != two.cases(generator(two, 3))
    assert check.ndcg(two.solution).seed != check.ndcg(two.solution).seed
    wrong = check.ndcg(lambda hit, relevant, k: 0.2)
    assert check.ndcg(lambda hit, relevant, k: 0.2, seed=wrong.seed) == wrong


def test_a_value_for_many_inputs_of_the_same_kind_is_told_by_the_smallest():
    message = check.ndcg(lambda hit, relevant, k: 2.0).message
    assert message.count("hit = [") == 1 and message.endswith("it gives 2, but that is too large.")


def test_an_input_is_compared_with_what_it_was_even_if_the_answer_raises():
    """A call gets a copy: what one call has spoilt does not reach the next."""
    seen = []

    def spoils(hit, relevant, k):
        seen.append(list(hit))
        hit.clear()
        raise ValueError("spoilt")

    check.ndcg(spoils)
    assert all(seen)


def test_a_slow_answer_is_stopped_between_two_calls(monkeypatch):
    times = iter(range(0, 1000, 7))
    monkeypatch.setattr(judge.time, "monotonic", lambda: next(times))
    found = check.ndcg(check.EXERCISES["ndcg"].solution)
    assert found.status == "wrong" and "too slow" in found.message


def test_a_loop_that_never_ends_is_stopped_by_the_model():
    def endless(model, x, relevant, specified, k, lr, alpha, max_iter):
        while True:
            model(x)

    assert "goes on" in check.attack_loop(endless).message


def test_a_sort_is_seen_where_the_point_is_to_do_without():
    assert "sort" in check.sum_top_k(lambda f, k: f.sort().values[len(f) - k :].sum()).message
    assert "topk" in check.sum_top_k(lambda f, k: f.topk(k).values.sum()).message


def test_an_objective_without_a_gradient_is_told():
    found = check.objective(lambda *case: check.EXERCISES["objective"].solution(*case).detach())
    assert found.status == "wrong" and "gradient" in found.message


def test_of_two_mistakes_that_explain_an_answer_the_first_is_told():
    exercise = copy.copy(check.EXERCISES["slope"])
    same = tuple(mutant(text, lambda c, k: 1.0) for text in ("First.", "Second."))
    object.__setattr__(exercise, "mutants", same)
    assert judged(exercise, lambda c, k: 1).message == "First."


def test_a_value_where_a_function_is_asked_for_is_told():
    assert check.ndcg(0.5).status == "wrong" and "function ndcg" in check.ndcg(0.5).message
    with pytest.raises(ValueError, match=r"^name: "):
        check.draw("ndcg")


@pytest.mark.parametrize("exercise", BY_VALUE, ids=lambda e: e.name)
def test_a_value_is_checked_against_the_inputs_that_were_drawn(exercise):
    assert check.run(exercise.name, 1.0).status == "not attempted"
    for seed in SEEDS:
        drawn = check.draw(exercise.name, seed=seed)
        right = exercise.solution(**drawn)
        rounded = np.round(right, 3).tolist()
        assert check.run(exercise.name, right).status == "right"
        assert check.run(exercise.name, rounded).status == "right"
        for value in ("?", [], object(), torch.zeros(2, 3), float("nan")):
            assert check.run(exercise.name, value).status == "wrong"
        hidden = 0  # on no draw do all wrong ways to count TkAcc show
        for mistake in exercise.mutants:
            found = [check.run(exercise.name, wrong(*drawn.values())) for wrong in mistake.answers]
            hidden += all(verdict.status == "right" for verdict in found)
        assert hidden <= (2 if exercise.name == "four_measures" else 0)
    assert check.draw(exercise.name, seed=0) != check.draw(exercise.name, seed=1)


def test_hints_come_one_after_the_other_and_the_last_names_the_solution():
    hints = check.EXERCISES["ndcg"].hints
    for number, text in enumerate((*hints, hints[-1]), start=1):
        given = check.hint("ndcg")
        assert text in given and f"Hint {min(number, len(hints))} of {len(hints)}" in given
    assert "check.solution" in given and "check.solution" not in check.hint("eq6")


def test_progress_lists_what_was_tried_and_a_point_stays():
    assert len(check.progress()) == 1
    exercise = check.EXERCISES["slope"]
    for answer in (refuses, lambda c, k: 1, exercise.solution, lambda c, k: 1):
        check.slope(answer)
    check.hint("slope")
    check.eligible(lambda labels, k, m: None)
    table = check.progress()
    assert table["exercise"].tolist() == ["slope", "eligible", "all of these"]
    assert table["tries"].tolist() == [4, 1, 5] and table["hints"].tolist() == [1, 0, 1]
    assert table["status"].tolist() == ["right", "not attempted", "1 right"]
    assert table["points"].tolist() == [exercise.points, 0, exercise.points]


def test_nothing_is_remembered_before_something_is_checked():
    importlib.reload(check)
    assert session.cache_info().currsize == 0
    check.task("ndcg")
    assert session.cache_info().currsize == 0
    check.ndcg(None)
    assert session.cache_info().currsize == 1


def test_a_verdict_is_readable_as_text_and_as_markdown():
    found = check.ndcg(lambda hit, relevant, k: 0.2)
    assert repr(found).startswith("✗ ndcg: wrong (0 of 3 points). For hit = [")
    assert found._repr_markdown_().startswith("✗ **ndcg: wrong** (0 of 3 points). For hit = \\[")
    assert repr(check.ndcg(check.EXERCISES["ndcg"].solution)).startswith("✓ ndcg: right (3 of 3")


def test_checks_are_found_by_name_and_an_unknown_one_is_refused():
    assert {"ndcg", "progress"} <= set(dir(check))
    assert "NDCG@k" in check.ndcg.__doc__ and "01.2" in check.task("ndcg")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        check.nothing  # noqa: B018
    for call in (check.task, check.hint, check.solution, check.draw):
        with pytest.raises(ValueError, match=r"^name: expected one of read_trace"):
            call("nothing")
