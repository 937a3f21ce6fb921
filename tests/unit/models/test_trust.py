"""Numbers in a configuration are held to the weights, and no model of Transformers itself is refused for its own."""

import pytest
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from schemas.errors import Permanent
from workers.models.trust import _FEW, _MANY, _check_values

#: Thousands of experts that are rows of one tensor; vocabularies of gigabytes, which their weights allow.
_LARGE = {"doge", "qwen4_exp", "qwen4_exp_text"}


@pytest.mark.filterwarnings("ignore")
def test_the_models_of_transformers() -> None:
    looked = 0
    for name, kind in CONFIG_MAPPING.items():
        if name in _LARGE:
            continue
        try:
            config = kind().to_dict()
        except Exception:  # noqa: BLE001 - a configuration that has no defaults, or wants another package
            continue
        _check_values(config, _FEW, _MANY)
        looked += 1
    assert looked > 200


@pytest.mark.parametrize("name", ["num_hidden_layers", "n_layer", "depths", "num_experts", "layers", "num_codebooks"])
def test_more_modules_than_tensors(name: str) -> None:
    _check_values({name: 900}, _FEW, _MANY)
    with pytest.raises(Permanent, match=rf"has {name} 2,000; its weights allow 1,000"):
        _check_values({"text_config": {name: [1, 2000]}}, _FEW, _MANY)


@pytest.mark.parametrize("name", ["block_size", "codebook_size", "vocab_size_per_layer_input", "head_dim"])
def test_sizes_are_no_modules(name: str) -> None:
    _check_values({name: 262_144}, _FEW, _MANY)
