"""Promises of the images that figures show: chosen by a rule, attacked again, the same ones."""

import numpy as np
import pandas as pd
import pytest
from test_protocol import CLASSES, TYPES, world  # noqa: F401  (a fixture)

from tkmia_utils.engine import Runtime
from tkmia_utils.experiments import campaign, examples, protocol
from tkmia_utils.experiments.campaign import Campaign
from tkmia_utils.victims.store import Victim


def test_the_gallery_takes_the_median_success_and_the_median_failure():
    norms = [3.0, 1.0, 2.0, 9.0, 7.0, 8.0, 6.0]
    won = [True, True, True, False, False, False, False]
    rows = pd.DataFrame({"method": "kfool", "l2_paper": norms, "success": won})
    never = pd.DataFrame({"method": "tkmia", "l2_paper": [1.0, 2.0], "success": True})
    chosen = examples.median_rows(pd.concat([rows, never], ignore_index=True))
    assert chosen["method"].tolist() == ["kfool", "kfool", "tkmia"]
    assert chosen["l2_paper"].tolist() == [2.0, 7.0, 1.0]
    assert chosen["position"].tolist() == [2, 4, 0] and chosen["of"].tolist() == [3, 4, 2]
    with pytest.raises(ValueError, match="max_iter"):
        examples.median_rows(rows.assign(max_iter=[50, 100, 50, 50, 50, 50, 50]))


def test_images_made_again_are_those_of_the_saved_results(world, tmp_path):  # noqa: F811
    model, data, logits = world
    cells = protocol.list_cells(TYPES, [1, 2], [(2, 2)])
    queue = protocol.build_queue(cells, data, logits, TYPES, n=6)
    victim, settings = Victim(model, [], "toy-victim", CLASSES), {"lr": 1e-2}
    attacks = Campaign(victim, queue, data, "tkmia", tmp_path, [60], settings, slots=4)
    rows = campaign.run(attacks)
    _, result = protocol.run(model, queue, data, max_iter=60, runtime=Runtime(slots=4), **settings)
    positions = examples.median_positions(rows)
    examples.attack_rows(attacks, positions, tmp_path / "few.npz")
    few = examples.load_examples(tmp_path / "few.npz")
    assert few["image"].tolist() == rows["image"][positions].tolist()
    assert np.array_equal(few["adversarial"], result.adversarial[positions].numpy())
    chosen = examples.median_rows(rows)
    call = dict(settings={"tkmia": settings}, max_iter=60)
    kept = examples.attack_again(victim, queue, data, chosen, tmp_path, **call)
    wanted = result.adversarial[chosen["position"].tolist()].numpy()
    assert np.array_equal(kept["tkmia"]["adversarial"], wanted)
    with pytest.raises(ValueError, match="queue: other images"):
        other = queue.rows(range(1, len(queue.k)))
        examples.attack_again(victim, other, data, chosen, tmp_path, **call)
