"""Promises to the bit, on every kind of CPU that torch has code for."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tkmia_utils import exact
from tkmia_utils.measures import MEASURES

ROOT = Path(__file__).parents[1]
KINDS = ["default", "avx2", "avx512"]
# every promise of "equal to the bit" that does not take minutes
PROMISES = [
    "tests/test_exact.py::test_a_sigmoid_depends_on_its_argument_alone",
    "tests/test_exact.py::test_a_row_alone_is_the_row_in_the_batch",
    "tests/test_exact.py::test_a_measure_of_a_row_does_not_depend_on_the_rows_beside_it",
    "tests/engine/test_engine.py::test_at_fixed_slots_neither_order_nor_neighbours_change_a_bit",
    "tests/engine/test_engine.py::test_a_poisoned_image_fails_with_a_reason_and_leaves_its_neighbours_alone",
    "tests/engine/test_engine.py::test_one_long_run_answers_for_shorter_limits",
    "tests/attacks/test_attacks.py::test_neither_batch_nor_order_nor_neighbours_matter",
    "tests/attacks/test_attacks.py::test_one_run_answers_for_a_shorter_limit",
]


def numbers(n: int = 20_000) -> torch.Tensor:
    """Of every size, with the special ones."""
    some = torch.randn(n, generator=torch.Generator().manual_seed(0)) * 8
    special = [0.0, -0.0, 1e-30, -1e-30, 87.3, -87.3, 104.0, -104.0, 1e4, -1e4]
    return torch.cat([some, torch.tensor([*special, torch.inf, -torch.inf])])


def test_a_sigmoid_depends_on_its_argument_alone():
    x = numbers()
    whole = exact.sigmoid(x)
    for first in range(1, 40):  # every start within two vectors, every length of the tail
        assert torch.equal(exact.sigmoid(x[first:]), whole[first:])
        assert torch.equal(exact.sigmoid(x[:first].clone()), whole[:first])
    pick = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))[:999]
    assert torch.equal(exact.sigmoid(x[pick]), whole[pick])
    one_by_one = torch.stack([exact.sigmoid(one) for one in x[pick[:200]]])
    assert torch.equal(one_by_one, whole[pick[:200]])


def test_a_sigmoid_has_the_same_bits_on_every_machine():
    made = exact.sigmoid(numbers_without_torch()).numpy().tobytes()
    assert hashlib.sha256(made).hexdigest() == (
        "4785875a2d2227380b6defc3ec32fe83d2c2fb44a7e96a015b9cb89ead1011c6"
    )


def numbers_without_torch() -> torch.Tensor:
    """Multiples of 1/64: exact in float32, so that they are the same numbers everywhere."""
    return torch.arange(-2000, 2001, dtype=torch.float32) / 64


def test_a_sigmoid_is_the_sigmoid():
    x = numbers().double()
    torch.testing.assert_close(exact.sigmoid(x), x.sigmoid(), rtol=1e-15, atol=1e-300)
    torch.testing.assert_close(
        exact.sigmoid(x.float()), x.sigmoid().float(), rtol=1.2e-7, atol=1e-44
    )
    assert exact.sigmoid(torch.tensor([torch.nan, 0.0])).isnan().tolist() == [True, False]


@pytest.mark.parametrize("function", [torch.tanh, torch.sigmoid, torch.exp])
def test_a_row_alone_is_the_row_in_the_batch(function):
    x = numbers().clamp(-20, 20)[: 7 * 429].reshape(7, 3, 13, 11)
    whole = exact.row_by_row(function, x)
    torch.testing.assert_close(whole, function(x))
    for i in range(7):
        assert torch.equal(exact.row_by_row(function, x[i : i + 1]), whole[i : i + 1])
    assert torch.equal(exact.row_by_row(function, x.flip(0)), whole.flip(0))


@pytest.mark.parametrize("name", MEASURES)
def test_a_measure_of_a_row_does_not_depend_on_the_rows_beside_it(name):
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(37, 23, generator=generator)
    labels = torch.rand(37, 23, generator=generator) < 0.3
    k = torch.randint(1, 12, (37,), generator=generator)
    whole = MEASURES[name](scores, labels, k)
    order = torch.randperm(37, generator=generator)
    assert torch.equal(MEASURES[name](scores[order], labels[order], k[order]), whole[order])
    for i in range(37):
        one = slice(i, i + 1)
        assert torch.equal(MEASURES[name](scores[one], labels[one], int(k[i])), whole[one])


@pytest.mark.parametrize("kind", KINDS)
def test_every_promise_to_the_bit_holds_on_every_kind_of_cpu(kind):
    native = torch.backends.cpu.get_cpu_capability().lower()
    if native not in KINDS or KINDS.index(kind) > KINDS.index(native):
        pytest.skip(f"{kind} is not to be had here: torch runs as {native}")
    if kind == native:
        pytest.skip(f"{kind} is what the tests themselves run on")
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": kind}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *PROMISES],
        cwd=ROOT, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert not done.returncode, done.stdout[-3000:] + done.stderr[-1000:]
    assert " passed" in done.stdout
