from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sdk.ops import dense_to_crops, rle_encode
from tests.trained import ellipses
from training.data.coarse import CoarseConfig, simulate
from training.data.coco import CocoInstances

__all__ = ["coarse_results", "ellipses"]


@pytest.fixture(scope="session")
def coarse_results(ellipses: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """COCO results: a coarse mask for every ellipse of the training split."""
    data = CocoInstances(ellipses / "annotations/train.json", ellipses / "train")
    rng, results = np.random.default_rng(3), []
    for index, record in enumerate(data.records):
        _, masks, labels = data.load(index)
        for mask, label in zip(masks, labels, strict=True):
            coarse = simulate(mask, None, CoarseConfig(), rng)
            if coarse is None:
                continue
            counts = rle_encode(dense_to_crops(coarse[None].astype(np.bool_)), mask.shape)[0].decode()
            segmentation = {"size": list(mask.shape), "counts": counts}
            entry = {"image_id": record.image_id, "category_id": data.category_ids[label], "score": 0.9, "segmentation": segmentation}
            results.append(entry)
    path = tmp_path_factory.mktemp("results") / "coarse.json"
    path.write_text(json.dumps(results))
    return path
