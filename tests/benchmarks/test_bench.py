import pandas as pd
import pytest
import torch

from benchmarks import floor, report, suite
from tkmia_utils.engine.loop import attack
from tkmia_utils.engine.runtime import Runtime
from tkmia_utils.victims.backbones import small_net


def test_the_plain_loop_ends_as_the_engine_does():
    torch.manual_seed(0)
    model = small_net(10, (8, 8, 8, 8, 8), normed=False).eval()
    images, *sets = floor.case(model, 12, 32)
    call = {"lr": 200.0, "max_iter": 12}
    ours = attack(model, images, *sets, 3, runtime=Runtime(slots=4), **call)
    singles = zip(*(tensor.split(1) for tensor in (images, *sets)), strict=True)
    plain = [floor.literal(model, *single, 3, **call) for single in singles]
    assert 0 < ours.success.float().mean() < 1  # both kinds of end are there to compare
    assert [end for end, _ in plain] == ours.success.tolist()
    assert [step for _, step in plain] == ours.iterations.tolist()


def test_contestants_take_turns_after_one_round_unseen():
    called = []
    times = floor.in_turns({"a": lambda: called.append("a"), "b": lambda: called.append("b")}, 3)
    assert "".join(called) == "abababab"
    assert [len(times[name]) for name in "ab"] == [3, 3]


@pytest.mark.parametrize(
    ("benchmark", "case", "value", "said"),
    [
        ("floor", "ResNet-50, 224 px", 1.05, "<= 1.05: holds"),
        ("floor", "embedded, 96 px", 1.11, "<= 1.10: missed"),
        ("loop", "embedded, 96 px", 5.0, ">= 5: holds"),
        ("loop", "ResNet-50, 224 px", 2.49, ">= 2.5: missed"),
        ("growth", "k", 3.0, ""),
    ],
)
def test_a_goal_is_held_or_missed_by_the_number(benchmark, case, value, said):
    assert report.verdict({"benchmark": benchmark, "case": case, "value": value}) == said


def test_the_report_is_a_table_and_with_growth_a_figure(tmp_path):
    floor = {"benchmark": "floor", "case": "embedded, 96 px", "value": 1.2, "ratio": "1.2 [1, 2]"}
    assert "<= 1.10: missed" in report.write(pd.DataFrame([floor]), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bench.csv", "bench.md"]
    sizes = [{"benchmark": "growth", "case": "k", "size": n, "value": n / 7.0} for n in (1, 2)]
    report.write(pd.DataFrame([floor, *sizes]), tmp_path)
    assert (tmp_path / "bench.png").stat().st_size > 10_000
    assert pd.read_csv(tmp_path / "bench.csv")["value"].tolist() == [1.2, 1 / 7, 2 / 7]


def test_a_part_that_is_timed_again_takes_the_place_of_the_old_and_loses_nothing():
    sizes = [{"benchmark": "growth", "case": "k", "size": n, "value": n / 7.0} for n in (1, 2)]
    first = {"benchmark": "loop", "case": "small", "value": 1.0}
    kept = pd.DataFrame([first, *sizes])
    new = pd.DataFrame([first | {"value": 3.0}, {"benchmark": "new", "case": "x", "value": 4.0}])
    found = suite.merged(kept, new)
    assert found["value"].tolist() == [3.0, 1 / 7, 2 / 7, 4.0]
    assert found["case"].tolist() == ["small", "k", "k", "x"]
    assert suite.merged(pd.DataFrame(), new).equals(new)
