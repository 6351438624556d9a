"""`make demo`: segment a real photograph with a shipped engine, on whatever processor is here.

The photograph is scikit-image's `coins` (Greek coins from Pompeii), the engine is `nuclei`: it was trained on cell nuclei and has never
seen a coin, but round things that touch are what it knows.
"""

import argparse
import json
from pathlib import Path

import skimage

from sdk import Segmenter


def main() -> None:
    """Segments the photograph and says what was found."""
    parser = argparse.ArgumentParser(description="Segment a real photograph with a shipped engine.")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the overlay and the COCO JSON")
    options = parser.parse_args()
    picture = Path(skimage.__file__).parent / "data" / "coins.png"

    segmenter = Segmenter("nuclei")
    segmenter.warmup()
    found = segmenter.predict(picture, conf=0.5)

    options.out.mkdir(parents=True, exist_ok=True)
    overlay, results = options.out / "coins.png", options.out / "coins.json"
    found.save(str(overlay))
    results.write_text(json.dumps(found.to_coco(image_id=1)))

    print(f"{len(found)} instances in {picture.name}, {found.shape[1]} x {found.shape[0]} pixels")
    print(f"picture: {overlay}\nresults: {results}")
    for stage, milliseconds in found.speed.items():
        print(f"  {stage:12} {milliseconds:8.1f} ms")


if __name__ == "__main__":
    main()
