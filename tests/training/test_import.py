"""Importing public checkpoints: every layout against its own rules, and what is refused."""

import hashlib
import pickle
import re
import struct
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from export.graphs import export_graphs
from export.pack import manifest_of
from export.verify import compare, predict_torch
from sdk.config import ResizeRule
from sdk.engine import Engine
from tests.training.layout_reference import LAYOUTS, Detectron2, Found, Layout, OldTorchvision, RefineMask, Size, Torchvision
from training.checkpoint import CheckpointError, load_model
from training.import_checkpoint import main, options_of, parse
from training.importing import torchvision as torchvision_layout
from training.importing.layouts import build, import_checkpoint
from training.importing.parts import Options
from training.importing.pickled import read_pickle
from training.importing.source import Source
from training.models.detector import Detections, Detector

SHORT, LONG = 90, 160  # instead of 800 and 1333, on both sides


def picture(seed: int, height: int = 75, width: int = 100) -> np.ndarray:
    """Smooth colours with edges (H, W, 3): noise alone has nothing that a filter would treat differently."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.uniform(0, 255, (1, 3, 9, 12)).astype(np.float32))
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")[0].permute(1, 2, 0).numpy()
    smooth[20:50, 30:80] = 255 - smooth[20:50, 30:80]
    return np.clip(smooth, 0, 255).astype(np.uint8)


def resized(model: Detector) -> Detector:
    """The same model for small pictures."""
    model.config = model.config.replace(resize=model.config.resize.replace(short=SHORT, long=LONG))
    return model


def imported(layout: Layout, options: Options = Options()) -> Detector:  # noqa: B008 - immutable
    return resized(build(Source(layout.state, "file"), "auto", options)[0])


def assert_same(found: Detections, expected: Found, size: tuple[int, int], shape: tuple[int, int]) -> None:
    """Same detections in the same order, where equal scores may swap; boxes are compared in pixels of the network's input."""
    assert len(found.boxes) == len(expected.boxes) > 5
    boxes = found.boxes.numpy() * np.array([size[1] / shape[1], size[0] / shape[0]] * 2)
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5, rtol=0)
    np.testing.assert_allclose(boxes, expected.boxes, atol=1e-4, rtol=0)
    np.testing.assert_allclose(found.mask_logits, expected.mask_logits, atol=1e-4, rtol=0)


def check_layout(layout: Layout, path: Path, options: Options = Options(), shape: tuple[int, int] = (75, 100)) -> Detector:  # noqa: B008
    """From a file of the layout through a checkpoint of ours to the same detections."""
    torch.save(layout.state, path / "source.pth")
    import_checkpoint(path / "source.pth", path / "ours.pt", options=options)
    model = resized(load_model(path / "ours.pt")[0])
    image = picture(3, *shape)
    expected = layout.predict(image, SHORT, LONG)
    assert_same(predict_torch(model, image), expected, layout.network_size(*shape, SHORT, LONG), shape)
    return model


def small(kind: type[Layout], **size: int) -> Layout:
    return kind(Size(**{"channels": 32 if issubclass(kind, RefineMask) else 16, **size}, depths=(3, 4, 6, 3)))


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("shape", [(75, 100), (90, 61)])
def test_the_imported_model_follows_the_layouts_own_rules(name: str, shape: tuple[int, int], tmp_path: Path) -> None:
    options = Options(bn_eps=0.0) if LAYOUTS[name] is OldTorchvision else Options()
    check_layout(small(LAYOUTS[name]), tmp_path, options, shape)


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYOUTS)
def test_models_of_the_published_size(name: str, tmp_path: Path) -> None:
    size = Size(width=64, channels=256, hidden=1024, classes=90 if "torchvision" in name else 80, depths=(3, 4, 6, 3))
    options = Options(bn_eps=0.0) if LAYOUTS[name] is OldTorchvision else Options()
    model = check_layout(LAYOUTS[name](size), tmp_path, options)
    assert model.config.class_names[0] == "person" and model.config.category_ids[-1] == 90
    assert (model.config.width, model.config.fpn_channels, model.config.box.hidden) == (64, 256, 1024)


def test_names_and_shapes_are_torchvisions() -> None:
    """The digest is that of ``maskrcnn_resnet50_fpn(num_classes=91)`` in torchvision 0.28, counters of batch norms left out."""
    state = Torchvision(Size(width=64, channels=256, hidden=1024, classes=90)).state
    rows = [f"{name} {tuple(value.shape)}" for name, value in sorted(state.items())]
    digest = hashlib.sha256("\n".join(rows).encode()).hexdigest()
    assert digest == "fac6a17b4d4c2bb9d5e146f819901db1c851d1084c41b81a77f766468726d1c5"


def test_lvis_last_stage_without_classes(tmp_path: Path) -> None:
    class Agnostic(RefineMask):
        last_classes = 1

    model = check_layout(small(Agnostic), tmp_path)
    assert model.mask_head.predictors[-1].weight.shape[0] == 1 and model.mask_head.predictors[0].weight.shape[0] == 3


@pytest.mark.parametrize(("depths", "name"), [((3, 4, 6, 3), "resnet50_caffe2"), ((3, 4, 23, 3), "resnet101_caffe2")])
def test_bodies_are_recognised(depths: tuple[int, ...], name: str) -> None:
    layout = Detectron2(Size(depths=depths))
    assert imported(layout).config.backbone == name
    assert imported(layout, Options(stride_in_1x1=False)).config.backbone == name.removesuffix("_caffe2")


def test_a_body_that_nobody_has_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"file: no backbone here has \(1, 2, 1, 1\) blocks of Bottleneck"):
        imported(Detectron2(Size(depths=(1, 2, 1, 1))))


def test_where_bottlenecks_stride_changes_the_features(tmp_path: Path) -> None:
    class Modern(Detectron2):
        stride_in_1x1 = False

    check_layout(small(Modern), tmp_path, Options(stride_in_1x1=False))


def test_older_detectron2_files_hold_pixels_and_anchors(tmp_path: Path) -> None:
    class Older(Detectron2):
        mean, std = (100.0, 110.0, 120.0), (60.0, 61.0, 62.0)

    layout = small(Older)
    layout.state["pixel_mean"], layout.state["pixel_std"] = (torch.tensor(v)[:, None, None] for v in (layout.mean, layout.std))
    for level in range(5):
        anchors = torch.from_numpy(layout.cell_anchors(32 * 2**level)).float()
        layout.state[f"proposal_generator.anchor_generator.cell_anchors.{level}"] = anchors
    model = check_layout(layout, tmp_path)
    assert model.config.mean == (100.0, 110.0, 120.0) and model.config.std == (60.0, 61.0, 62.0)
    layout.state["proposal_generator.anchor_generator.cell_anchors.1"] *= torch.tensor([1, 1, 1, 2])
    with pytest.raises(CheckpointError, match="anchors must be of one size for each of P2 to P6"):
        imported(layout)


def test_published_torchvision_weights_have_no_eps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recognised by the digest in their name; a small variance makes the difference visible."""
    layout = small(OldTorchvision)
    layout.state["backbone.body.bn1.running_var"] *= 1e-4
    layout.state["backbone.body.bn1.weight"] *= 1e-2
    monkeypatch.setattr(torchvision_layout, "WITHOUT_EPS", ("abc",))
    image = picture(3)
    expected = layout.predict(image, SHORT, LONG)
    size = layout.network_size(75, 100, SHORT, LONG)
    published = resized(build(Source(layout.state, "file", "abcdef"))[0])
    assert_same(predict_torch(published, image), expected, size, (75, 100))
    other = predict_torch(resized(build(Source(layout.state, "file", "012345"))[0]), image)
    assert len(other.boxes) != len(expected.boxes) or np.abs(other.scores.numpy() - expected.scores).max() > 1e-3


@pytest.mark.parametrize("kind", [Torchvision, pytest.param(Detectron2, marks=pytest.mark.slow)])
def test_the_engine_agrees_to_the_end(kind: type[Layout], tmp_path: Path) -> None:
    """RoIAlign without shift, BGR, whole-pixel anchors on their own grid: all of it reaches the runtime."""
    model = imported(small(kind))
    out = tmp_path / "imported.engine"
    Engine.write(out, manifest_of(model, "imported", {}), export_graphs(model))
    agreement = compare(model, out, [picture(3), picture(4, 90, 61)])
    assert agreement.ok and agreement.instances > 10, agreement


@pytest.mark.parametrize("kind", sorted({*LAYOUTS.values()}, key=lambda kind: kind.__name__))
def test_every_weight_counts(kind: type[Layout]) -> None:
    """Whatever is missing, left over or misshapen is named."""
    layout = kind(Size(channels=32 if kind is RefineMask else 16))
    names = [name for name in layout.state if not name.endswith("num_batches_tracked")]
    rng = np.random.default_rng(0)
    for name in rng.choice(names, 6, replace=False):
        with pytest.raises(CheckpointError, match=re.escape(str(name))):
            build(Source({n: v for n, v in layout.state.items() if n != name}, "file"))
    with pytest.raises(CheckpointError, match=r"1 weights have no place in the imported model: roi_heads\.more$"):
        build(Source({**layout.state, "roi_heads.more": torch.zeros(1)}, "file"))
    logits = f"{layout.rpn[1]}.bias"
    with pytest.raises(CheckpointError, match=r"rpn\.head\.objectness\.bias"):
        build(Source({**layout.state, logits: torch.zeros(5)}, "file"))
    with pytest.raises(CheckpointError, match=r"not finite, in our names: rpn\.head\.objectness\.bias"):
        build(Source({**layout.state, logits: torch.full((3,), torch.nan)}, "file"))


def test_wrong_layouts_say_what_was_found() -> None:
    source = Source(small(Detectron2).state, "file")
    with pytest.raises(CheckpointError, match=r"file: expected torchvision, found the layout detectron2: \d+ weights such as backbone"):
        build(source, "torchvision")
    with pytest.raises(CheckpointError, match=r"expected one of torchvision, .*, found no layout known here: 1 weights such as fc.weight$"):
        build(Source({"fc.weight": torch.zeros(1)}, "file"))
    faster = {n: v for n, v in small(RefineMask).state.items() if "semantic_logits" not in n}
    with pytest.raises(CheckpointError, match="faster variant"):
        build(Source(faster, "file"))


def test_class_names(tmp_path: Path) -> None:
    layout = small(Detectron2)
    converted = build(Source(layout.state, "file"))[1]
    assert converted.config.class_names == ("class 0", "class 1", "class 2") and converted.config.category_ids == (1, 2, 3)
    assert any("--classes" in note for note in converted.notes) and any("--category-ids" in note for note in converted.notes)
    torch.save({"meta": {"CLASSES": ("a", "b", "c")}, "state_dict": small(RefineMask).state, "optimizer": {}}, tmp_path / "mm.pth")
    assert import_checkpoint(tmp_path / "mm.pth", tmp_path / "mm.pt")[0].config.class_names == ("a", "b", "c")
    with pytest.raises(CheckpointError, match="the model has 3 classes, 2 names were given"):
        build(Source(layout.state, "file"), options=Options(class_names=("a", "b")))
    with pytest.raises(CheckpointError, match="the model has 3 classes, 1 category ids were given"):
        build(Source(layout.state, "file"), options=Options(category_ids=(1,)))
    coco = build(Source(Torchvision(Size(classes=90)).state, "file"))[1].config
    assert coco.category_ids == tuple(range(1, 91)) and coco.class_names[11:13] == ("unused 12", "stop sign")
    coco = build(Source(Detectron2(Size(classes=80)).state, "file"))[1].config
    assert coco.category_ids[11] == 13 and coco.class_names[11] == "stop sign"


def as_pickle(state: dict[str, torch.Tensor]) -> dict[str, object]:
    return {"model": OrderedDict((n, v.numpy()) for n, v in state.items()), "__author__": "somebody", "matching_heuristics": True}


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_pickles_of_arrays_are_read(protocol: int, tmp_path: Path) -> None:
    layout = small(Detectron2)
    stem = "backbone.bottom_up.stem.conv1.weight"
    state = {**layout.state, stem: layout.state[stem].mT.contiguous().mT}  # not in the order of its memory
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(as_pickle(state), protocol))
    import_checkpoint(tmp_path / "model.pkl", tmp_path / "ours.pt")
    model = load_model(tmp_path / "ours.pt")[0]
    for name, value in imported(layout).state_dict().items():
        assert torch.equal(model.state_dict()[name], value)


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("executed"),))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (Evil(), "it asks for pathlib"),
        (np.array([Evil()], object), "it asks for pathlib|arrays of type 'O8' are not weights"),
        (np.array(["text"]), "arrays of type 'U4' are not weights"),
        (np.array([(1, 2.0)], [("a", "i4"), ("b", "f4")]), "arrays of type 'V8' are not weights"),
        (print, r"it asks for builtins\.print"),
        (Path("x"), "it asks for pathlib"),
    ],
)
def test_pickles_run_nothing(content: object, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps({"model": {"w": content}}))
    with pytest.raises(CheckpointError, match=message):
        read_pickle(tmp_path / "evil.pkl")
    torch.save({"model": {"w": content}}, tmp_path / "evil.pth")
    with pytest.raises(CheckpointError):
        import_checkpoint(tmp_path / "evil.pth", tmp_path / "ours.pt")
    assert not (tmp_path / "executed").exists() and not (tmp_path / "ours.pt").exists()


def test_broken_pickles(tmp_path: Path) -> None:
    good = pickle.dumps({"model": {"w": np.arange(6, dtype=np.float32).reshape(2, 3).T}}, 2)
    file = tmp_path / "model.pkl"
    file.write_bytes(good)
    np.testing.assert_array_equal(read_pickle(file)["model"]["w"], np.arange(6).reshape(2, 3).T)
    for cut in range(0, len(good), 7):
        file.write_bytes(good[:cut])
        with pytest.raises(CheckpointError, match="not a pickle of weights"):
            read_pickle(file)
    rng = np.random.default_rng(0)
    for _ in range(300):
        broken = bytearray(good)
        for position in rng.integers(0, len(good), 3):
            broken[position] = rng.integers(0, 256)
        file.write_bytes(bytes(broken))
        try:
            read_pickle(file)
        except CheckpointError:
            continue
    with pytest.raises(CheckpointError, match="no such file"):
        read_pickle(tmp_path / "none.pkl")


def test_scalars_and_foreign_byte_order_in_pickles(tmp_path: Path) -> None:
    content = {"model": {"w": np.arange(3, dtype=">f4"), "n": np.float32(1.5), "f": np.asfortranarray(np.ones((2, 3)))}}
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(content))
    found = read_pickle(tmp_path / "model.pkl")["model"]
    assert found["w"].tolist() == [0.0, 1.0, 2.0] and found["w"].dtype == np.float32
    assert found["n"] == struct.unpack("f", struct.pack("f", 1.5))[0] and found["f"].shape == (2, 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "expected weights by name, found list"),
        ({"model": {}}, "expected weights by name, found dict"),
        ({"model": {"w": "text"}}, "expected weights by name, found 'w' with str"),
        ({1: torch.zeros(1)}, "expected weights by name, found 1 with Tensor"),
    ],
)
def test_files_without_weights(content: object, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "file.pth")
    with pytest.raises(CheckpointError, match=message):
        import_checkpoint(tmp_path / "file.pth", tmp_path / "ours.pt")


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = tmp_path / "source.pth", tmp_path / "ours.pt"
    torch.save({"model": small(Detectron2).state, "iteration": 3}, source)
    (tmp_path / "names.txt").write_text("cat\ndog\n\nbird\n")
    arguments = [str(source), "--out", str(out), "--classes", str(tmp_path / "names.txt"), "--category-ids", "17", "18", "16"]
    assert main([*arguments, "--color", "rgb", "--mean", "1", "2", "3", "--std", "4", "5", "6", "--stride-in", "3x3"]) == 0
    assert "detectron2, resnet50, head fcn, 3 classes, rgb input" in capsys.readouterr().out
    config = load_model(out)[0].config
    assert (config.class_names, config.category_ids) == (("cat", "dog", "bird"), (17, 18, 16))
    assert (config.color, config.mean, config.std) == ("rgb", (1.0, 2.0, 3.0), (4.0, 5.0, 6.0))
    assert config.resize == ResizeRule(short=800, long=1333)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.pth", "--out", "ours.pt"], "none.pth: no such file"),
        (["text.pth", "--out", "ours.pt"], "text.pth: not a file of weights that can be read"),
        (["source.pth", "--out", "source.pth"], "would replace the file that is read"),
        (["source.pth", "--out", "ours.pt", "--layout", "torchvision"], "expected torchvision, found the layout detectron2"),
        (["source.pth", "--out", "ours.pt", "--classes", "twice.txt"], "twice.txt: names more than once: cat"),
        (["source.pth", "--out", "ours.pt", "--classes", "empty.txt"], "empty.txt: holds no name"),
        (["source.pth", "--out", "ours.pt", "--classes", "none.txt"], "none.txt: cannot be read as text"),
    ],
)
def test_errors_of_the_command_line(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(small(Detectron2).state, "source.pth")
    Path("text.pth").write_text("text")
    Path("twice.txt").write_text("cat\ndog\ncat\n")
    Path("empty.txt").write_text("\n")
    before = Path("source.pth").read_bytes()
    assert main(arguments) == 1
    assert message in capsys.readouterr().err
    assert not Path("ours.pt").exists() and Path("source.pth").read_bytes() == before


def test_without_options_nothing_is_changed() -> None:
    assert options_of(parse(["a.pth", "--out", "b.pt"])) == Options()
