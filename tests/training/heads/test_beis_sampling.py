from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from tests.training.heads.test_beis import beis, contrast, some_masks
from training.heads.beis.banks import FeatureBank, gather_rows
from training.heads.beis.contrast import Stage, summarize
from training.heads.beis.keys import background_classes, class_probability, instance_maps, update_confusion
from training.heads.beis.sampling import Band, boundary_sides, draw, make_band, query_weights
from training.models.targets import MaskTargets, Target


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def numbered(first: int, count: int) -> torch.Tensor:
    return torch.arange(first, first + count).float()[:, None].expand(-1, 2)


# --- bands, queries


def test_band_is_all_pixels_near_the_other_side() -> None:
    masks = torch.zeros(3, 9, 9)
    masks[0, 3:6, 0:4] = 1
    masks[1] = 1  # only its frame: outside counts as background
    masks[2, 8, 8] = 1
    for width in (1, 2, 3):
        found = boundary_sides(masks, width)
        for n in range(3):
            for y in range(9):
                for x in range(9):
                    near = set()
                    for v in range(y - width, y + width + 1):
                        for u in range(x - width, x + width + 1):
                            near.add(bool(masks[n, v, u]) if 0 <= v < 9 and 0 <= u < 9 else False)
                    own = bool(masks[n, y, x])
                    assert found[n, :, y, x].tolist() == [not own and True in near, own and False in near]


def test_band_lists_hold_the_band() -> None:
    masks = torch.cat([some_masks(3), torch.zeros(1, 14, 14), torch.ones(1, 14, 14)])
    band, sides = make_band(masks, 2), boundary_sides(masks, 2).flatten(2)
    for n in range(5):
        for side in (0, 1):
            listed = band.pixels[n, side][band.inside[n, side]].tolist()
            assert listed == torch.nonzero(sides[n, side]).flatten().tolist()
    assert band.sides().tolist() == [[True, True]] * 3 + [[False, False], [False, True]]


def test_adaptive_queries_are_the_hard_pixels() -> None:
    masks = some_masks(2)
    logits = torch.randn(2, 14, 14) * 8
    band = make_band(masks, 1)
    y = torch.sigmoid(logits).flatten(1)
    weights = query_weights(band, logits, 0.97)
    for n in range(2):
        for side in (0, 1):
            for i, pixel in enumerate(band.pixels[n, side].tolist()):
                hard = y[n, pixel] < 0.97 if side else y[n, pixel] > 1 - 0.97
                assert weights[n, side, i] == (band.inside[n, side, i] and hard)
    assert torch.equal(query_weights(band, logits, None), band.inside.float())
    sure = query_weights(band, (masks * 2 - 1) * 20, 0.97)
    assert sure.sum() == 0
    assert not draw(band, sure, 5).real.any()


def test_draws_differ_and_cover_all_candidates() -> None:
    band = make_band(some_masks(3), 1)
    few = band.inside.float()
    few[..., 3:] = 0
    drawn = draw(band, few, 8)
    assert drawn.real.sum(-1).tolist() == [[3, 3]] * 3
    for n in range(3):
        for side in (0, 1):
            real = sorted(drawn.pixels[n, side][drawn.real[n, side]].tolist())
            assert real == band.pixels[n, side, :3].tolist()


def test_draws_follow_their_weights() -> None:
    band = Band(pixels=torch.arange(4).expand(20_000, 2, 4), inside=torch.ones(20_000, 2, 4, dtype=torch.bool))
    weights = torch.tensor([1.0, 2.0, 0.0, 5.0]).expand(20_000, 2, 4)
    first = draw(band, weights, 2).pixels[..., 0]
    share = torch.bincount(first.flatten(), minlength=4) / first.numel()
    torch.testing.assert_close(share, torch.tensor([1, 2, 0, 5]) / 8, atol=0.01, rtol=0)


# --- banks


def test_the_oldest_entries_make_room() -> None:
    bank = FeatureBank(5, 2)
    for first, count, expected in (
        (0, 3, [0, 1, 2, 0, 0]),
        (3, 4, [5, 6, 2, 3, 4]),
        (7, 0, [5, 6, 2, 3, 4]),
        (7, 12, [17, 18, 14, 15, 16]),
    ):
        bank.push(1, numbered(first, count), torch.arange(first, first + count))
        assert bank.features[1, :, 0].tolist() == expected
        assert bank.classes[1].tolist() == bank.features[1, :, 0].tolist()
    assert bank.filled.tolist() == [0, 5] and bank.features[0].sum() == 0
    bank.push(1, numbered(30, 1), torch.tensor([30]))
    assert sorted(bank.features[1, :, 0].tolist()) == [15, 16, 17, 18, 30]


def test_uniform_draws_differ_within_a_row() -> None:
    bank = FeatureBank(50, 2)
    bank.push(0, numbered(0, 20), torch.zeros(20, dtype=torch.int64))
    counts = torch.zeros(20)
    for _ in range(300):
        drawn = bank.draw(0, 4, 7)
        assert drawn.shape == (4, 7) and all(len(set(row.tolist())) == 7 for row in drawn)
        counts += torch.bincount(drawn.flatten(), minlength=20)
    torch.testing.assert_close(counts / counts.sum(), torch.full((20,), 0.05), atol=0.008, rtol=0)
    assert bank.draw(0, 3, 40).sort(-1).values.tolist() == [list(range(20))] * 3
    assert bank.draw(1, 3, 4).shape == (3, 0)


def test_draws_by_class_follow_the_softmax_over_what_is_there() -> None:
    head = beis(cbdl_negatives=30)
    bank = contrast(head).bank(0)
    bank.push(0, torch.randn(30, 16), torch.tensor([0] * 25 + [2] * 5))  # no entry of class 1
    bank.push(1, torch.randn(30, 16), torch.ones(30, dtype=torch.int64))
    contrast(head).confusion[1, :3] = torch.tensor([0.1, 0.9, 0.7])
    share, entries = torch.zeros(()), torch.zeros(32)
    for _ in range(40):
        _, negatives = contrast(head).draw_entries(bank, torch.ones(100, dtype=torch.int64))
        assert (bank.classes[1][negatives[:, 0]] == 1).all()  # of background queries: all that the foreground side holds
        share += (bank.classes[0][negatives[:, 1]] == 2).float().mean() / 40
        entries += torch.bincount(negatives[:, 1].flatten(), minlength=32)
    expected = torch.softmax(torch.tensor([0.1, 0.7]), 0)
    torch.testing.assert_close(share, expected[1], atol=0.01, rtol=0)
    torch.testing.assert_close(entries[:25] / entries[:25].sum(), torch.full((25,), 0.04), atol=0.002, rtol=0)
    torch.testing.assert_close(entries[25:30] / entries[25:30].sum(), torch.full((5,), 0.2), atol=0.005, rtol=0)


def test_entries_of_a_class_repeat_only_when_all_were_drawn() -> None:
    bank = FeatureBank(30, 2)
    bank.push(0, numbered(0, 30), torch.tensor([0] * 27 + [1] * 3))
    for row in bank.draw_by_class(0, torch.tensor([[0.5, 0.5]]).expand(200, 2), 16):
        counts = torch.bincount(row, minlength=30)
        assert counts.sum() == 16 and counts[:27].max() <= 1
        assert counts[27:].max() - counts[27:].min() <= 1
    assert bank.draw_by_class(0, torch.zeros(0, 2), 16).shape == (0, 16)


# --- classes


def test_class_probability() -> None:
    matrix = torch.tensor([[0.0, 1.0, 2.0], [0.5, 0.0, 0.0], [9.0, 9.0, 9.0]])
    available = torch.tensor([[True, True, False], [False, False, True], [False, False, False]])
    found = class_probability(matrix, torch.tensor([0, 1, 0]), available)
    expected = torch.tensor([[1 / (1 + torch.e), torch.e / (1 + torch.e), 0], [0, 0, 1], [0, 0, 0]])
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(class_probability(matrix, torch.tensor([0]), available[0, :2])[0], expected[0, :2])


def test_keys_within_the_crop_follow_the_softmax_of_the_classes_there() -> None:
    head = beis(ibdl_negatives=1)
    contrast(head).confusion[2] = torch.tensor([0.9, 0.1, 0.5, 0.2])
    n = 20_000
    pixels = torch.stack([torch.arange(10), torch.arange(10, 20)]).expand(n, 2, 10)
    inside = torch.ones(n, 2, 10, dtype=torch.bool)
    inside[:, 0, 9:] = False
    behind = torch.tensor([0, 3, 3, 3, 3, 3, 3, 2, 2, 1]).expand(n, 10)  # the last is padding: class 1 is not there
    labels = torch.full((n,), 2)
    _, negatives = contrast(head).draw_keys(Band(pixels=pixels, inside=inside), behind, labels)
    drawn = negatives.pixels[:, 1, 0]  # of foreground queries
    share = torch.bincount(behind[0][drawn], minlength=4) / n
    expected = torch.softmax(torch.tensor([0.9, float("-inf"), 0.5, 0.2]), 0)
    torch.testing.assert_close(share, expected, atol=0.012, rtol=0)
    pixel = torch.bincount(drawn[behind[0][drawn] == 3], minlength=10)[1:7] / (behind[0][drawn] == 3).sum()
    torch.testing.assert_close(pixel, torch.full((6,), 1 / 6), atol=0.02, rtol=0)
    assert (negatives.pixels[:, 0] >= 10).all()  # of background queries: the object's own pixels


def overlapping() -> MaskTargets:
    """A picture 8 x 8 with three instances: a large one, a smaller one on it, one beside them; a RoI of each of the first two."""
    masks = torch.zeros(3, 8, 8, dtype=torch.uint8)
    masks[0, :, :4] = 1
    masks[1, 2:4, 2:6] = 1
    masks[2, 6:, 5:] = 1
    boxes = torch.tensor([[0.0, 0, 4, 8], [2, 2, 6, 4], [5, 6, 8, 8]])
    picture = Target(boxes=boxes, labels=torch.tensor([4, 5, 6]), masks=masks)
    rois = torch.tensor([[0.0, 0, 8, 8], [-4, -4, 12, 12]])
    return MaskTargets(pictures=[picture], boxes=rois, batch=torch.zeros(2).long(), truth=torch.tensor([0, 1]), labels=torch.tensor([4, 5]))


def test_the_smaller_instance_is_seen() -> None:
    shown = instance_maps(overlapping())[0]
    assert shown[0].tolist() == [0, 0, 0, 0, -1, -1, -1, -1]
    assert shown[2].tolist() == [0, 0, 1, 1, 1, 1, -1, -1]
    assert shown[7].tolist() == [0, 0, 0, 0, -1, 2, 2, 2]


def test_classes_behind_the_boundary() -> None:
    targets = overlapping()
    pixels = torch.arange(64).expand(2, 64)
    found = background_classes(targets, instance_maps(targets), pixels, 8, classes=9).unflatten(1, (8, 8))
    assert found[0, 0].tolist() == [9] * 8  # the RoI's own instance is not behind its boundary
    assert found[0, 2].tolist() == [9, 9, 5, 5, 5, 5, 9, 9]
    assert found[0, 7].tolist() == [9, 9, 9, 9, 9, 6, 6, 6]
    # The second crop is twice as large, a cell has 2 pixels: centres at pixels -3, -1, 1, 3, 5, 7, 9, 11 of both axes.
    assert found[1, 0].tolist() == [9] * 8
    assert found[1, 2].tolist() == [9, 9, 4, 4, 9, 9, 9, 9]
    assert found[1, 3].tolist() == [9, 9, 4, 9, 9, 9, 9, 9]
    assert found[1, 5].tolist() == [9, 9, 4, 4, 6, 6, 9, 9]


def test_matrix_update_by_hand() -> None:
    matrix = torch.full((3, 3), 0.1)
    update_confusion(matrix, torch.tensor([0, 1, 0]), torch.tensor([2, 1, 2]), torch.tensor([0.5, -1.0, 0.9]), 0.99)
    expected = torch.full((3, 3), 0.1)
    expected[0, 2] = 0.99 * (0.99 * 0.1 + 0.01 * 0.5) + 0.01 * 0.9
    expected[1, 1] = 0.99 * 0.1 - 0.01
    torch.testing.assert_close(matrix, expected)
    update_confusion(matrix, torch.zeros(0).long(), torch.zeros(0).long(), torch.zeros(0), 0.99)
    torch.testing.assert_close(matrix, expected)


def test_matrix_update_equals_one_by_one() -> None:
    rows, columns, values = torch.randint(4, (60,)), torch.randint(4, (60,)), torch.rand(60)
    fast, slow = torch.rand(4, 4).repeat(2, 1, 1)
    update_confusion(fast, rows, columns, values, 0.8)
    for u, v, p in zip(rows, columns, values, strict=True):
        slow[u, v] = 0.8 * slow[u, v] + 0.2 * p
    torch.testing.assert_close(fast, slow)


def test_similarity_of_the_classes_in_a_crop() -> None:
    features = torch.randn(2, 5, 4, 4)
    pixels = torch.tensor([[[0, 1, 2, 3], [8, 9, 0, 0]], [[4, 5, 0, 0], [0, 0, 0, 0]]])
    inside = torch.tensor([[[1, 1, 1, 1], [1, 1, 0, 0]], [[1, 1, 0, 0], [0, 0, 0, 0]]]).bool()
    behind = torch.tensor([[7, 3, 7, 7], [7, 7, 0, 0]])
    found = summarize(features, Band(pixels=pixels, inside=inside), behind, torch.tensor([2, 6]), classes=7)
    f = features.flatten(2)
    torch.testing.assert_close(found.means[0, 0], f[0, :, :4].mean(1))
    torch.testing.assert_close(found.means[0, 1], f[0, :, 8:10].mean(1))
    torch.testing.assert_close(found.means[1, 0], f[1, :, 4:6].mean(1))
    assert found.sides.tolist() == [[True, True], [True, False]]
    assert found.pairs is not None
    rows, columns, similarity = found.pairs  # the second RoI has no foreground side to compare with
    assert rows.tolist() == [2, 2] and columns.tolist() == [3, 7]
    expected = [torch.cosine_similarity(f[0, :, 8:10].mean(1), m, dim=0) for m in (f[0, :, 1], f[0, :, [0, 2, 3]].mean(1))]
    torch.testing.assert_close(similarity, torch.stack(expected))


def test_all_stages_draw_before_anything_is_learned() -> None:
    """A shared bank that is empty at the beginning of an iteration is empty for its last stage, too."""
    head = beis(bank_shared=True, bef_dim=12, cbdl_negatives=3)
    targets = dataclasses.replace(overlapping(), labels=torch.tensor([0, 1]))
    targets = dataclasses.replace(targets, pictures=[dataclasses.replace(targets.pictures[0], labels=torch.tensor([0, 1, 2]))])
    targets._masks[14], targets._masks[28] = some_masks(2, 14), some_masks(2, 28)
    stages = [Stage(features=torch.randn(2, 12, s, s), logits=torch.zeros(2, s, s)) for s in (14, 28)]
    first, second = contrast(head)(stages, targets), contrast(head)(stages, targets)
    assert first["cbdl0"] == first["cbdl1"] == 0
    assert second["cbdl0"] > 0 and second["cbdl1"] > 0
    assert contrast(head).bank(0).filled.tolist() == [8, 8]


# --- distributed


def test_alone_there_is_nothing_to_gather() -> None:
    rows = torch.randn(3, 2)
    assert gather_rows(rows) is rows


def gather_in_two_processes(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    rows = gather_rows(numbered(10 * rank, 3 if rank else 0))
    head = beis(bank_gather=True)
    stages = [
        Stage(features=torch.full((2 * rank, c, s, s), 1.0 + rank), logits=torch.zeros(2 * rank, s, s)) for c, s in ((16, 14), (8, 28))
    ]
    targets = overlapping()
    labels = torch.tensor([0, 1])
    pictures = [dataclasses.replace(targets.pictures[0], labels=torch.tensor([0, 1, 2]))]
    n = 2 * rank  # the first process has no RoIs
    stages = [Stage(features=torch.full((n, c, s, s), 1.0 + rank), logits=torch.zeros(n, s, s)) for c, s in ((16, 14), (8, 28))]
    targets = MaskTargets(pictures=pictures, boxes=targets.boxes[:n], batch=targets.batch[:n], truth=targets.truth[:n], labels=labels[:n])
    contrast(head)(stages, targets)
    torch.save((rows, {k: v for k, v in head.state_dict().items() if "contrast" in k}), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_processes_share_what_they_found(tmp_path: Path) -> None:
    mp.spawn(gather_in_two_processes, (str(tmp_path),), nprocs=2)
    (rows, state), (other_rows, other_state) = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert torch.equal(rows, other_rows) and torch.equal(rows, numbered(10, 3))
    assert state["contrast.banks.0.filled"].tolist() == [2, 2] and (state["contrast.banks.0.features"][:, :2] == 2).all()
    assert not torch.equal(state["contrast.confusion"], torch.full_like(state["contrast.confusion"], 0.1))
    assert all(torch.equal(value, other_state[key]) for key, value in state.items())
