from pathlib import Path

import pytest
import torch

from tests.trained import TINY
from tests.training.short import headed, with_norm
from training import checkpoint
from training.initialise import load_backbone, load_matching
from training.models.detector import Detector


def test_init_takes_what_matches_and_tells_the_rest(tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = Detector(TINY.model)
    checkpoint.save(tmp_path / "a.pt", {"config": TINY.to_dict(), "model": source.state_dict(), "ema": None, "iteration": 0})
    classes = TINY.model.replace(class_names=("a", "b", "c"), category_ids=(1, 2, 3))
    other = Detector(classes.replace(head=headed("bmask").head))
    notes = load_matching(other, tmp_path / "a.pt")
    assert torch.equal(other.backbone.conv1.weight, source.backbone.conv1.weight)
    assert "of another shape: box_head.classes.weight [4, 64], in the file [3, 64]" in notes
    assert any(n.startswith("not in the file: mask_head.") for n in notes)
    taken = {k for k, v in other.state_dict().items() if k in source.state_dict() and v.shape == source.state_dict()[k].shape}
    named = {n.split(": ")[1].split(" ")[0] for n in notes if not n.startswith("not in the model")}
    assert taken | named == set(other.state_dict()) and not taken & named
    content = {"config": TINY.to_dict(), "model": {"x": torch.zeros(1)}, "ema": None}
    checkpoint.save(tmp_path / "b.pt", content)
    with pytest.raises(checkpoint.CheckpointError, match="none of its 1 weights"):
        load_matching(other, tmp_path / "b.pt")


def test_backbone_weights_are_strict_but_for_the_classifier(tmp_path: Path) -> None:
    torch.manual_seed(0)
    body = Detector(TINY.model).backbone.state_dict()
    torch.save({**body, "fc.weight": torch.zeros(5, 3), "fc.bias": torch.zeros(5)}, tmp_path / "body.pth")
    model = Detector(with_norm("frozen"))
    load_backbone(model, tmp_path / "body.pth")
    assert torch.equal(model.backbone.layer1[0].conv1.weight, body["layer1.0.conv1.weight"])
    body.pop("layer4.0.conv1.weight")
    torch.save(body, tmp_path / "body.pth")
    with pytest.raises(ValueError, match=r"missing: layer4\.0\.conv1\.weight"):
        load_backbone(model, tmp_path / "body.pth")
    (tmp_path / "body.pth").write_text("not weights")
    with pytest.raises(checkpoint.CheckpointError, match="not a file of weights"):
        load_backbone(model, tmp_path / "body.pth")
