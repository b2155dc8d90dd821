"""Networks of transformers, built from configurations: nothing is fetched."""

import pytest
import torch

from diffq_exp import models
from diffq_exp.models.rebuilding import rebuilding
from diffq_exp.quant import DiffQuantizer
from diffq_exp.runs.loading import load_weights

pytest.importorskip("transformers")
TEXT = {"vocabulary": 50, "length": 8}
GPT2 = {"n_layer": 1, "n_head": 2, "n_embd": 16}
LLAMA = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
VIT = {**LLAMA, "patch_size": 4}
IMAGES = {"num_classes": 3, "in_channels": 1, "image_size": 8}


@pytest.mark.parametrize(("name", "config"), [("gpt2", GPT2), ("llama", LLAMA)])
def test_a_language_model_gives_logits_of_the_vocabulary(name, config):
    model = models.transformers(name, config=config, **TEXT)
    logits = model(torch.randint(50, (2, 8)))
    assert model.training and logits.shape == (2, 8, 50)
    logits.square().sum().backward()
    assert all(param.grad is not None for param in model.parameters())


def test_an_image_classifier_gives_logits_of_the_classes():
    model = models.transformers("vit", config=VIT, **IMAGES)
    assert model(torch.randn(2, 1, 8, 8)).shape == (2, 3)


def test_tied_weights_stay_one_parameter_and_are_quantized_once():
    model = models.transformers("gpt2", config=GPT2, **TEXT)
    assert model.network.lm_head.weight is model.network.transformer.wte.weight
    optimizer = torch.optim.Adam(model.parameters())
    quantizer = DiffQuantizer(model, min_size=0, group_size=8)
    quantizer.setup_optimizer(optimizer)
    assert sum(name.endswith(("wte.weight", "lm_head.weight")) for name in quantizer.quantized_names) == 1
    (model(torch.randint(50, (2, 8))).square().sum() + quantizer.model_size()).backward()
    assert all(learned.grad is not None for learned in quantizer.learned().values())


def test_a_folder_gives_its_configuration_or_its_weights(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path.parent))
    made = models.transformers("gpt2", config=GPT2, **TEXT)
    made.network.save_pretrained(tmp_path)
    fresh = models.transformers(str(tmp_path), **TEXT)
    loaded = models.transformers(f"~/{tmp_path.name}", pretrained=True, **TEXT)
    for (name, weight), other, same in zip(
        made.named_parameters(), fresh.parameters(), loaded.parameters(), strict=True
    ):
        assert other.shape == weight.shape and torch.equal(same, weight), name
    assert not torch.equal(fresh.network.lm_head.weight, made.network.lm_head.weight)
    again = models.transformers(**fresh.rebuilt_by, **TEXT)
    assert {name: value.shape for name, value in again.state_dict().items()} == {
        name: value.shape for name, value in made.state_dict().items()
    }


@pytest.mark.parametrize("shard", ["50GB", "4KB"], ids=["one file", "in parts"])
def test_a_snapshot_of_the_hub_as_init_from(shard, tmp_path):
    """Its names lack the `network.` of ours, and the tied head is stored once."""
    made = models.transformers("gpt2", config=GPT2, **TEXT)
    made.network.save_pretrained(tmp_path, max_shard_size=shard)
    assert (len([*tmp_path.glob("*.safetensors")]) > 1) is (shard == "4KB")
    fresh = models.transformers("gpt2", config=GPT2, **TEXT)
    load_weights(fresh, tmp_path, strict=True)
    for (name, weight), other in zip(made.named_parameters(), fresh.parameters(), strict=True):
        assert torch.equal(other, weight), name


def test_other_classes_get_a_fresh_last_layer(tmp_path):
    made = models.transformers("vit", config=VIT, **IMAGES)
    made.network.save_pretrained(tmp_path)
    loaded = models.transformers(str(tmp_path), pretrained=True, **{**IMAGES, "num_classes": 5})
    assert loaded(torch.randn(2, 1, 8, 8)).shape == (2, 5)
    assert torch.equal(loaded.network.vit.embeddings.cls_token, made.network.vit.embeddings.cls_token)


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("gtp2", {}, "transformers has no kind of network 'gtp2'; nearest: .*gpt2"),
        ("gpt2", {"config": {"n_layers": 2}}, r"model\.config\.n_layers: .* no such entry; nearest: n_layer"),
        ("vit", {"config": VIT}, "AutoModelForCausalLM of transformers has no 'vit'"),
        ("gpt2", {"config": {**GPT2, "n_head": 3}}, "gpt2: .*divisible"),
        ("gpt2", {"config": {**GPT2, "n_positions": 4}}, "gpt2 with dataset.length=8: "),
        ("no/such/folder", {}, "no/such/folder"),
    ],
)
def test_what_is_wrong_is_one_line(name, changes, reason, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ValueError, match=reason) as error:
        models.transformers(name, **changes, **TEXT)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["x" * 300, "a/b", "..", "/", "a\0b"])
def test_what_a_file_names_is_no_folder_and_no_hub(name):
    with rebuilding(), pytest.raises(ValueError, match="has no kind of network"):
        models.transformers(name, **TEXT)
