"""Which encoders a folder holds, and that real ones are run as they were trained."""

import json
from pathlib import Path

import pytest
import torch

from mmcat.family import ModelConfig
from mmcat.model import CategoryModel
from tests.unit.training.small import BERT
from training.errors import RecipeError
from training.frozen import HUB_TEXT, find


def folder_of(root: Path, *names: str) -> Path:
    """Empty files: finding looks at names, and at what a text encoder says of its pooling."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("{}")
    return root


def test_the_file_name_tells_the_strides(tmp_path: Path) -> None:
    text = ("some/config.json", "some/tokenizer.json")
    assert find(folder_of(tmp_path / "a", "resnet50_v1.safetensors", *text)).strides == "v1"
    assert find(folder_of(tmp_path / "b", "resnet50.safetensors", *text)).strides == "v1.5"


def test_of_several_text_encoders_the_small_one_is_taken_with_its_own_pooling(tmp_path: Path) -> None:
    names = [f"{name}/{file}.json" for name in ("e5", "minilm") for file in ("config", "tokenizer")]
    root = folder_of(tmp_path, "resnet50.safetensors", *names)
    assert (find(root).text, find(root).pooling) == (str(root / "minilm"), "cls")
    folder_of(root, "minilm/1_Pooling/config.json")
    (root / "minilm" / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True}))
    assert find(root).pooling == "mean"
    assert find(root, "pooler").pooling == "pooler"


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no encoders at"):
        find(tmp_path / "nowhere")
    with pytest.raises(RecipeError, match="lacks resnet50_v1"):
        find(folder_of(tmp_path / "a", "x/config.json", "x/tokenizer.json"))
    with pytest.raises(RecipeError, match="lacks a text encoder's folder"):
        find(folder_of(tmp_path / "b", "resnet50.safetensors"))


def test_where_no_photo_is_encoded_no_resnet_need_be_there(tmp_path: Path) -> None:
    root = folder_of(tmp_path, "x/config.json", "x/tokenizer.json")
    assert find(root, photos=False).text == str(root / "x")
    with pytest.raises(RecipeError, match="lacks a text encoder's folder"):
        find(folder_of(tmp_path / "empty", "resnet50.safetensors"), photos=False)


def test_without_a_folder_the_hubs_are_asked() -> None:
    found = find(None)
    assert (found.text, found.resnet, found.strides) == (HUB_TEXT, None, "v1.5")


def test_a_name_or_a_text_encoders_folder_stands_for_titles_and_torchvision_for_photos(tmp_path: Path) -> None:
    named = find("intfloat/multilingual-e5-small")
    assert (named.text, named.resnet, named.strides) == ("intfloat/multilingual-e5-small", None, "v1.5")
    folder = folder_of(tmp_path / "e5", "config.json", "tokenizer.json")
    assert (find(folder).text, find(folder).resnet) == (str(folder), None)


def test_real_encoders_are_loaded_frozen_and_tell_near_titles_from_far_ones(test_weights: Path) -> None:
    found = find(test_weights)
    config = ModelConfig((1, 1, 1, 1), "text", text_encoder=found.text_config(), text_pooling=found.pooling, px=32)
    model = CategoryModel(config)
    found.fill(model)
    assert not any(parameter.requires_grad for parameter in model.text_encoder.parameters())  # type: ignore[union-attr]
    ids, mask = found.tokenizer(16).encode(["red running shoes", "scarlet sneakers", "kitchen table"])
    with torch.inference_mode():
        vectors = model.encode_text(torch.from_numpy(ids), torch.from_numpy(mask))[:, 0]
    near, far = torch.cosine_similarity(vectors[:1], vectors[1:]).tolist()
    assert near > far + 0.2


def test_the_strides_reach_the_network() -> None:
    strides = [
        CategoryModel(ModelConfig((1, 1, 1, 1), "both", text_encoder=BERT, px=32, width=16, resnet_strides=kind))
        .image_encoder.trunk.layer2[0].conv1.stride  # type: ignore[union-attr]
        for kind in ("v1", "v1.5")
    ]  # fmt: skip
    assert strides == [(2, 2), (1, 1)]
