"""Shapes, parameter counts and the errors of names and sizes."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from diffq_exp import models
from diffq_exp.models.from_torchvision import replace_head
from diffq_exp.models.stem import fit_channels
from diffq_exp.runs.loading import load_weights

OURS = {  # name: parameters for 10 classes of 32 x 32 colour images
    "digits_cnn": 279_466,
    "lenet5": 657_080,
    "resnet20": 269_722,
    "resnet18": 11_173_962,
    "mobilenet_v2": 2_236_682,
    "vit_small": 21_342_346,
    "wide_resnet28_10": 36_479_194,
}


@pytest.mark.parametrize("name", OURS)
def test_parameters_are_as_published(name):
    model = getattr(models, name)(num_classes=10, in_channels=3, image_size=32)
    assert sum(p.numel() for p in model.parameters()) == OURS[name]


@pytest.mark.parametrize(("channels", "size", "classes"), [(1, 8, 10), (4, 32, 3)])
@pytest.mark.parametrize("name", [name for name in OURS if name not in ("wide_resnet28_10", "lenet5")])
def test_logits_and_gradients_for_other_images(name, channels, size, classes):
    model = getattr(models, name)(classes, channels, size)
    logits = model(torch.randn(2, channels, size, size))
    assert logits.shape == (2, classes)
    logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_lenet5_is_that_of_the_compression_papers():
    model = models.lenet5(10)
    assert sum(p.numel() for p in model.parameters()) == 431_080
    assert models.lenet5(3, 2, 16)(torch.randn(2, 2, 16, 16)).shape == (2, 3)
    with pytest.raises(ValueError, match="15 x 15; lenet5 needs 16 x 16"):
        models.lenet5(10, 1, 15)


def test_wide_resnet_gives_logits():
    model = models.wide_resnet28_10(10, 1, 8, dropout=0.3)
    assert model(torch.randn(2, 1, 8, 8)).shape == (2, 10)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "vit_small"])
def test_larger_images_get_the_usual_stem(name):
    model = getattr(models, name)(10, 3, 96).eval()
    with torch.no_grad():
        assert model(torch.randn(1, 3, 96, 96)).shape == (1, 10)
    strides = [m.stride for m in model.modules() if isinstance(m, nn.Conv2d)]
    small = [m.stride for m in getattr(models, name)(10, 3, 32).modules() if isinstance(m, nn.Conv2d)]
    assert strides[0] > small[0]


def test_resnet20_has_no_weights_in_its_shortcuts():
    model = models.resnet20(10)
    kernels = [m.kernel_size for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert kernels == [(3, 3)] * 19
    block = next(m for m in model.children() if getattr(m, "new_channels", 0) == 16)
    short = block.shortcut(torch.ones(1, 16, 4, 4))
    assert short.shape == (1, 32, 2, 2) and short.sum((0, 2, 3)).tolist() == [0] * 8 + [4] * 16 + [0] * 8


def test_vit_names_a_size_its_patches_do_not_fit():
    with pytest.raises(ValueError, match="image_size=30 is no multiple of 4"):
        models.vit_small(10, 3, 30)


def test_torchvision_by_name():
    model = models.torchvision("squeezenet1_1", num_classes=7, in_channels=1, image_size=64)
    assert model.training and model(torch.randn(2, 1, 64, 64)).shape == (2, 7)


def test_torchvision_names_the_nearest():
    with pytest.raises(ValueError, match=r"torchvision has no classification model 'resnte18'; nearest: resnet18"):
        models.torchvision("resnte18", num_classes=7)


def test_an_image_too_small_for_a_network_is_told_before_training():
    with pytest.raises(
        ValueError, match=r"alexnet does not take images of 3 x 16 x 16 \(.*\); choose another"
    ) as caught:
        models.torchvision("alexnet", num_classes=7, image_size=16)
    assert "\n" not in str(caught.value)


def test_a_trial_run_leaves_no_trace():
    torch.manual_seed(0)
    model = models.torchvision("mobilenet_v3_small", num_classes=7, image_size=32)
    state = torch.get_rng_state()
    assert not any(b.any() for n, b in model.named_buffers() if n.endswith(("running_mean", "tracked")))
    assert torch.get_rng_state().equal(state) and all(p.grad is None for p in model.parameters())


@pytest.fixture
def weights(monkeypatch):
    """torchvision's downloads replaced by weights drawn by seed 0, of 1000 classes."""
    import torchvision

    def state_of(self, *_args, **_kwargs):
        builder = self.__class__.__name__.removesuffix("_Weights").lower()
        torch.manual_seed(0)
        return torchvision.models.get_model(builder).state_dict()

    monkeypatch.setattr(torchvision.models.WeightsEnum, "get_state_dict", state_of)
    torch.manual_seed(0)
    return torchvision.models.resnet18().state_dict()


def test_pretrained_weights_stay_and_the_head_is_fresh(weights):
    model = models.torchvision("resnet18", pretrained=True, num_classes=7, image_size=64)
    assert model.fc.weight.shape == (7, 512)
    ours = model.state_dict()
    assert all(ours[name].equal(weights[name]) for name in weights if not name.startswith("fc."))


def test_pretrained_weights_of_as_many_classes_keep_their_head(weights):
    model = models.torchvision("resnet18", pretrained=True, num_classes=1000, image_size=64)
    assert model.fc.weight.equal(weights["fc.weight"])


def test_pretrained_weights_see_grey_images_as_they_saw_them_in_colour(weights):
    colour = models.torchvision("resnet18", pretrained=True, num_classes=1000, image_size=32).eval()
    grey = models.torchvision("resnet18", pretrained=True, num_classes=1000, in_channels=1, image_size=32).eval()
    image = torch.randn(1, 1, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(grey(image), colour(image.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-5)


def test_weights_that_cannot_be_fetched_are_named(monkeypatch, tmp_path):
    def no_network(*_args, **_kwargs):
        raise OSError("no network")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", no_network)
    with pytest.raises(ValueError, match="weights of torchvision's resnet18 could not be fetched: no network"):
        models.torchvision("resnet18", pretrained=True, num_classes=7)


def test_weights_in_the_cache_of_torch_hub_are_not_fetched(monkeypatch, tmp_path):
    import torchvision

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", lambda *_args, **_kwargs: pytest.fail("fetched"))
    trained = torchvision.models.shufflenet_v2_x0_5()
    file = tmp_path / "hub" / "checkpoints" / Path(torchvision.models.ShuffleNet_V2_X0_5_Weights.DEFAULT.url).name
    file.parent.mkdir(parents=True)
    torch.save(trained.state_dict(), file)
    found = models.torchvision("shufflenet_v2_x0_5", pretrained=True, num_classes=7, image_size=64)
    assert found.conv1[0].weight.equal(trained.conv1[0].weight) and found.fc.out_features == 7
    started = models.torchvision("shufflenet_v2_x0_5", num_classes=7, image_size=64)
    load_weights(started, file)  # the same file as init_from
    assert started.conv5[0].weight.equal(trained.conv5[0].weight)


def test_fresh_first_convolutions_keep_the_scale_of_their_output():
    torch.manual_seed(0)
    stems = [nn.Sequential(nn.Conv2d(3, 512, 3)) for _ in range(2)]
    fit_channels(stems[1], 6)
    assert stems[1][0].in_channels == 6 and stems[1][0].weight.shape == (512, 6, 3, 3)
    deviations = [stem(torch.randn(8, c, 9, 9)).std().item() for stem, c in zip(stems, (3, 6), strict=True)]
    assert deviations[0] == pytest.approx(deviations[1], rel=0.05)


def test_a_new_head_drops_an_auxiliary_one():
    from torchvision.models import inception_v3

    with torch.device("meta"):
        model = inception_v3(init_weights=False)
    replace_head(model, 5)
    assert model.AuxLogits is None and model.fc.out_features == 5


def test_timm_by_name():
    pytest.importorskip("timm")
    model = models.timm("deit_tiny_patch16_224", num_classes=7, in_channels=1, image_size=32)
    assert model(torch.randn(2, 1, 32, 32)).shape == (2, 7)
    assert models.timm("resnet18", num_classes=7, image_size=32)(torch.randn(2, 3, 32, 32)).shape == (2, 7)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("deit_tinny_patch16", "timm has no model 'deit_tinny_patch16'; nearest: deit_tiny_patch16_224"),
        ("resnet18.nope", r"timm's resnet18\.nope cannot be made .*Invalid pretrained tag"),
        ("hf-hub:someone/something", r"points to a hub or folder: .* init_from=DIR"),
        ("local-dir:/somewhere", r"points to a hub or folder: .* init_from=DIR"),
    ],
)
@pytest.mark.parametrize("pretrained", [False, True])
def test_timm_names_are_checked(name, message, pretrained):
    pytest.importorskip("timm")
    with pytest.raises(ValueError, match=message):
        models.timm(name, pretrained, num_classes=7)


def test_a_missing_timm_is_told_in_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match=r"needs the package timm: pip install -e .*\[timm\]"):
        models.timm("resnet18", num_classes=7)


def test_importing_the_packages_imports_no_library_of_models():
    code = "import sys, diffq_exp.models, diffq_exp.data; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torchvision", "timm", "sklearn"} & set(done.stdout.split())
