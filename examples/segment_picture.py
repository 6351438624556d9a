"""Segment one picture: masks, boxes and scores, an overlay to look at, COCO JSON to keep.

python examples/segment_picture.py [PICTURE] [--engine nuclei] [--conf 0.5] [--out out]

Without a picture it takes a photograph that comes inside scikit-image, `coins`. The shipped engine `nuclei` was trained on cell nuclei and
has never seen a coin, but round things that touch are what it knows.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import sdk


def photograph_of_coins() -> Path:
    """Returns the path of a picture that scikit-image brings along."""
    import skimage

    return Path(skimage.__file__).parent / "data/coins.png"


def main(arguments: list[str] | None = None) -> None:
    """Runs the example."""
    parser = argparse.ArgumentParser(description="Segment one picture.")
    parser.add_argument("picture", type=Path, nargs="?", help="default: scikit-image's photograph of coins")
    parser.add_argument("--engine", default="nuclei", help="engine file, or name of a shipped engine")
    parser.add_argument("--conf", type=float, help="keep instances with a score above this; default: the engine's")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the overlay and the JSON")
    options = parser.parse_args(arguments)
    picture = options.picture or photograph_of_coins()

    segmenter = sdk.Segmenter(options.engine)
    segmenter.warmup()  # the first prediction allocates: the times below are those of a later one, but for "read", which loads a decoder
    instances = segmenter.predict(picture, conf=options.conf)

    overlay, coco = (options.out / f"{picture.stem}{ending}" for ending in (".png", ".json"))
    instances.save(overlay)
    coco.write_text(json.dumps(instances.to_coco(image_id=1)))

    print(f"{len(instances)} instances in {picture} ({instances.shape[1]} x {instances.shape[0]})")
    for one in instances[:5]:
        box = [round(value, 1) for value in one.boxes[0].tolist()]
        print(f"  {one.class_name(one.labels[0])} {one.scores[0]:.2f}, {one.masks.sum()} pixels, box {box}")
    print(f"overlay: {overlay}\nCOCO results: {coco}")
    print("milliseconds: " + ", ".join(f"{stage} {value:.1f}" for stage, value in instances.speed.items()))


if __name__ == "__main__":
    main()
