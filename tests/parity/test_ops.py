"""The torch operators of training against the native ones of the runtime: two implementations of one contract."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sdk import ops
from training.config import BoxConfig, RPNConfig
from training.models.box_head import select_detections
from training.models.ops import clip_boxes, decode_boxes, multilevel_roi_align, nms, paste_masks
from training.models.rpn import RPN, STRIDES


def random_boxes(rng: np.random.Generator, count: int, extent: float) -> np.ndarray:
    """Boxes of all sizes, some over the border, some empty or inverted."""
    centre = rng.uniform(-0.1, 1.1, (count, 2)) * extent
    size = np.exp(rng.uniform(0, math.log(extent), (count, 2)))
    boxes = np.concatenate([centre - size / 2, centre + size / 2], 1).astype(np.float32)
    boxes[::17, 2] = boxes[::17, 0]
    boxes[5::23] = boxes[5::23][:, [2, 3, 0, 1]]
    return boxes


@pytest.mark.parametrize("sampling_ratio", [0, 2])
@pytest.mark.parametrize("level", [None, 0, 2])
@pytest.mark.parametrize("size", [1, 7, 14])
def test_roi_align(sampling_ratio: int, level: int | None, size: int) -> None:
    rng = np.random.default_rng(size)
    features = [rng.standard_normal((2, 5, 256 // s, 320 // s)).astype(np.float32) for s in STRIDES[:4]]
    boxes, batch = random_boxes(rng, 60, 320), rng.integers(0, 2, 60).astype(np.int32)
    native = ops.Pyramid(features, list(STRIDES[:4])).roi_align(boxes, batch, size, sampling_ratio=sampling_ratio, level=level)
    torch_form = multilevel_roi_align(
        [torch.from_numpy(f) for f in features],
        torch.from_numpy(boxes),
        torch.from_numpy(batch),
        size,
        STRIDES[:4],
        sampling_ratio,
        level,
    )
    np.testing.assert_allclose(native, torch_form.numpy(), atol=2e-5)


@pytest.mark.parametrize("count", [0, 1, 300])
def test_nms(count: int) -> None:
    rng = np.random.default_rng(count)
    boxes, scores = random_boxes(rng, count, 60), rng.integers(0, 40, count).astype(np.float32)
    expected = nms(torch.from_numpy(boxes), torch.from_numpy(scores), 0.4)
    assert ops.nms(boxes, scores, 0.4).tolist() == expected.tolist()


@pytest.mark.parametrize("size", [(32, 32), (96, 130), (200, 64)])
def test_proposals(size: tuple[int, int]) -> None:
    torch.manual_seed(sum(size))
    config = RPNConfig(pre_nms_test=200, post_nms_test=150)
    rpn = RPN(config, 8).eval()
    padded = [math.ceil(v / 64) * 64 for v in size]
    objectness = [torch.randn(1, 3, padded[0] // s, padded[1] // s) for s in STRIDES]
    deltas = [torch.randn(1, 12, padded[0] // s, padded[1] // s) * 0.3 for s in STRIDES]
    rpn.head.forward = lambda _: (objectness, deltas)  # type: ignore[method-assign]
    expected = rpn.propose(*rpn([]), [size])[0]
    boxes, scores = ops.proposals(
        [o[0].numpy() for o in objectness],
        [d[0].numpy() for d in deltas],
        [getattr(rpn, f"anchors{level}").numpy() for level in range(5)],
        list(STRIDES),
        size,
        pre_nms=200,
        post_nms=150,
        nms_threshold=config.nms_threshold,
    )
    assert len(boxes) == len(expected)
    np.testing.assert_allclose(boxes, expected.numpy(), atol=1e-3)
    assert (np.diff(scores) <= 0).all()


@pytest.mark.parametrize("class_agnostic", [False, True])
@pytest.mark.parametrize("classes", [1, 5])
def test_select_detections(classes: int, class_agnostic: bool) -> None:
    rng = np.random.default_rng(classes)
    logits = rng.standard_normal((80, classes + 1)).astype(np.float32) * 2
    deltas = rng.standard_normal((80, 4 if class_agnostic else 4 * classes)).astype(np.float32) * 0.5
    proposals = np.abs(random_boxes(rng, 80, 100))
    config = BoxConfig(score_threshold=0.1, max_detections=30)
    scores = torch.softmax(torch.from_numpy(logits), 1)[:, :-1]
    expected = select_detections(scores, torch.from_numpy(deltas), torch.from_numpy(proposals), (90, 110), config)
    found = ops.select_detections(
        scores.numpy(),
        deltas,
        proposals,
        (90, 110),
        coder_weights=config.coder_weights,
        score_threshold=0.1,
        nms_threshold=config.nms_threshold,
        max_detections=30,
    )
    assert found[2].tolist() == expected[2].tolist()
    np.testing.assert_allclose(found[0], expected[0].numpy(), atol=1e-3)
    np.testing.assert_array_equal(found[1], expected[1].numpy())


@pytest.mark.parametrize("weights", [(10.0, 10.0, 5.0, 5.0), (30.0, 30.0, 15.0, 15.0)])
def test_decode_boxes(weights: tuple[float, float, float, float]) -> None:
    rng = np.random.default_rng(0)
    boxes, deltas = random_boxes(rng, 200, 100), rng.standard_normal((200, 4)).astype(np.float32) * 3
    expected = clip_boxes(decode_boxes(torch.from_numpy(deltas), torch.from_numpy(boxes), weights), (90, 110))
    np.testing.assert_allclose(ops.decode_boxes(deltas, boxes, (90, 110), coder_weights=weights), expected.numpy(), atol=1e-4)


def test_paste() -> None:
    rng = np.random.default_rng(0)
    boxes = np.concatenate([rng.uniform(-20, 60, (40, 2)), rng.uniform(62, 120, (40, 2))], 1).astype(np.float32)
    logits = rng.standard_normal((40, 28, 28)).astype(np.float32) * 3
    native = ops.crops_to_dense(ops.paste_masks(logits, boxes, (80, 100)), (80, 100))
    expected = paste_masks(torch.from_numpy(logits), torch.from_numpy(boxes), (80, 100)).numpy()
    # grid_sample works in float32: a pixel whose value is the threshold but for rounding may differ.
    assert (native != expected).mean() < 1e-5


@pytest.mark.parametrize("size", [(50, 70), (133, 200), (266, 401), (33, 20)])
def test_preprocess_resizes_as_torch_does(size: tuple[int, int]) -> None:
    image = np.random.default_rng(1).integers(0, 256, (133, 200, 3), dtype=np.uint8)
    pixels = F.interpolate(torch.from_numpy(image).permute(2, 0, 1)[None].float(), size, mode="bilinear", antialias=True)[0]
    native = ops.preprocess(image, size, size, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    # torch's weights are float32: at 400 pixels its sample positions are good to about 1e-5 pixels, times 255 grey levels.
    np.testing.assert_allclose(native, pixels.numpy(), atol=5e-3)
