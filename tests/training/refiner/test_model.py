import pytest
import torch
import torch.nn.functional as F

from sdk.errors import ConfigError
from training.models.hrnet import build_hrnet
from training.refiner.config import NETWORKS, RefinerConfig
from training.refiner.model import HRNetSegmenter, Refiner, load_imagenet_body, normalised


def count(module: torch.nn.Module) -> float:
    """Parameters in millions."""
    return sum(p.numel() for p in module.parameters()) / 1e6


@pytest.mark.parametrize(
    ("network", "body", "whole"), [("hrnet_w18_small_v2", 3.86, 3.94), ("hrnet_w18", 9.56, 9.64), ("hrnet_w48", 65.33, 65.85)]
)
def test_parameters_are_those_of_the_published_networks(network: str, body: float, whole: float) -> None:
    with torch.device("meta"):
        refiner = Refiner(RefinerConfig(network=network))
    assert isinstance(refiner.net, HRNetSegmenter)
    assert (round(count(refiner.net.body), 2), round(count(refiner), 2)) == (body, whole)
    assert refiner.net.predictor.weight.shape[0] == 2  # the paper's two classes


def test_lite_is_small() -> None:
    refiner = Refiner(RefinerConfig(network="lite"))
    assert 4 * count(refiner) * 1e6 <= 12e6 / 2  # float32 bytes: half of what a shipped refiner may take


def test_a_fresh_lite_gives_the_coarse_mask() -> None:
    torch.manual_seed(0)
    patches = torch.randn(3, 4, 64, 64)
    patches[:, 3] = torch.where(torch.rand(3, 64, 64) < 0.5, -1.0, 1.0)
    refiner = Refiner(RefinerConfig(network="lite", input=64)).train()
    agree = ((refiner(patches)[:, 0] > 0) == (patches[:, 3] > 0)).float().mean()
    assert agree > 0.9


@pytest.mark.parametrize("mask_channel", [True, False])
@pytest.mark.parametrize("network", NETWORKS)
def test_one_logit_per_pixel(network: str, mask_channel: bool) -> None:
    config = RefinerConfig(network=network, mask_channel=mask_channel, input=64)
    with torch.device("meta"):
        refiner = Refiner(config).eval()
        assert refiner(torch.zeros(2, 3 + mask_channel, 64, 64)).shape == (2, 1, 64, 64)


def test_one_logit_is_the_difference_of_the_papers_two() -> None:
    torch.manual_seed(0)
    net = HRNetSegmenter("hrnet_w18_small_v2", 4, "batch").eval()
    x, y = torch.randn(1, 4, 64, 64), torch.randint(0, 2, (1, 64, 64))
    features = []
    net.fuse.register_forward_hook(lambda *inputs_and_output: features.append(inputs_and_output[2]))
    one = net(x)[:, 0]
    two = F.interpolate(net.predictor(features[0]), scale_factor=4.0, mode="bilinear", align_corners=False)
    torch.testing.assert_close(one, two[:, 1] - two[:, 0], rtol=1e-4, atol=1e-5)
    binary = F.binary_cross_entropy_with_logits(one, y.float())
    torch.testing.assert_close(binary, F.cross_entropy(two, y))
    weight = net.predictor.weight
    gradients = [torch.autograd.grad(loss, weight, retain_graph=True)[0] for loss in (binary, F.cross_entropy(two, y))]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("network", ["hrnet_w18_small_v2", "lite"])
def test_gradient_reaches_every_parameter(network: str) -> None:
    torch.manual_seed(0)
    refiner = Refiner(RefinerConfig(network=network, input=64)).train()
    losses = refiner.losses(torch.randn(4, 4, 64, 64), torch.randint(0, 2, (4, 64, 64), dtype=torch.uint8))
    sum(losses.values()).backward()
    silent = [name for name, p in refiner.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []


def test_the_mask_channel_matters_and_can_be_left_out() -> None:
    pictures, masks = torch.full((1, 3, 8, 8), 255), torch.zeros(1, 8, 8)
    masks[:, 2:5] = 1
    config = RefinerConfig(color="bgr", mean=(1.0, 2.0, 3.0), std=(1.0, 2.0, 4.0))
    with_mask = normalised(pictures, masks, config)
    assert with_mask.shape == (1, 4, 8, 8)
    assert with_mask[0, :3, 0, 0].tolist() == [254.0, 126.5, 63.0]
    assert with_mask[0, 3].unique().tolist() == [-1.0, 1.0] and with_mask[0, 3, 2, 0] == 1
    assert normalised(pictures, masks, config.replace(mask_channel=False)).shape == (1, 3, 8, 8)
    colored = torch.tensor([10, 20, 30])[None, :, None, None]
    assert normalised(colored, torch.zeros(1, 1, 1), config)[0, 0, 0, 0] == 29  # blue first


def test_imagenet_weights_leave_the_mask_channel_fresh() -> None:
    torch.manual_seed(1)
    public = build_hrnet("hrnet_w18_small_v2").state_dict()
    refiner = Refiner(RefinerConfig())
    assert isinstance(refiner.net, HRNetSegmenter)
    fresh = refiner.net.body.conv1.weight.detach().clone()
    load_imagenet_body(refiner, public)
    loaded = refiner.net.body.conv1.weight
    assert torch.equal(loaded[:, :3], public["conv1.weight"]) and torch.equal(loaded[:, 3:], fresh[:, 3:])
    with pytest.raises(ConfigError, match=r"wrong shape: conv1\.weight"):
        load_imagenet_body(refiner, {**public, "conv1.weight": torch.zeros(64, 3, 7, 7)})
    with pytest.raises(ConfigError, match="'lite' has no public weights"):
        load_imagenet_body(Refiner(RefinerConfig(network="lite")), public)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"network": "hrnet"}, "network must be one of hrnet_w18_small_v2"),
        ({"input": 100}, "input must be a multiple of 32"),
        ({"network": "lite", "input": 72}, "input must be a multiple of 16"),
        ({"patch": 7}, "patch must be even"),
        ({"lite": {"widths": [16], "blocks": [1]}}, "at least two"),
        ({"netwrk": "lite"}, "did you mean 'network'"),
    ],
)
def test_impossible_networks_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RefinerConfig.from_dict(values)
