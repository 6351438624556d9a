"""Ready-made configurations of refinement networks."""

from __future__ import annotations

from training.refiner.config import PatchConfig, RefinerConfig, RefinerTrainConfig

# Tang et al. 2021, section 4.1: HRNetV2-W18-Small on patches of 64 at 128, SGD, 160,000 iterations of 32 patches, NMS .25 (COCO: .15).
PAPER = RefinerTrainConfig()

# The best model of the paper's tables: W48 at 256.
PAPER_W48 = PAPER.replace(model=RefinerConfig(network="hrnet_w48", input=256))

# Any object on any picture, on one core: random weights need Adam, and procedural pictures need the faults of cameras and files.
GENERAL = RefinerTrainConfig(
    model=RefinerConfig(network="lite", input=64),
    patches=PatchConfig(jitter=8.0, scale=(0.75, 1.35), rotate90=True, masks=1, per_mask=4, blur=0.2, noise=0.2, jpeg=0.3),
    iterations=6000,
    batch=32,
    optimizer="adamw",
    learning_rate=2e-3,
    weight_decay=0.02,
    decay_norms=False,
    decay_biases=False,
    warmup=200,
    schedule="cosine",
    floor=0.0,
    clip_norm=5.0,
    ema=0.998,
    precision="bf16",
    checkpoint_every=200,
    log_every=50,
    validate_every=250,
)

PRESETS: dict[str, RefinerTrainConfig] = {
    "paper": PAPER,
    "paper-w48": PAPER_W48,
    "general": GENERAL,
    "general-w18s": GENERAL.replace(model=RefinerConfig()),
}
