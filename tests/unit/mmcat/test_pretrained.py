"""Starting weights for the text encoder: all of them, or a sentence; and the same ones each time."""

import logging
from pathlib import Path
from typing import Literal

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel

from mmcat.errors import ModelError
from mmcat.family import ModelConfig
from mmcat.model import CategoryModel
from mmcat.pretrained import load_text_weights, text_config


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small BERT as Hugging Face keeps it."""
    shape = BertConfig(vocab_size=30, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    BertModel(shape).save_pretrained(tmp_path)
    return tmp_path


def _without(folder: Path, part: str) -> None:
    """Takes the weights of a part out of the file."""
    file = folder / "model.safetensors"
    kept = {name: value for name, value in load_file(file).items() if part not in name}
    save_file(kept, file, metadata={"format": "pt"})


def _loaded(folder: Path, pooling: Literal["mean", "pooler"]) -> dict[str, torch.Tensor]:
    config = ModelConfig((2,), modality="text", text_encoder=text_config(folder), text_pooling=pooling)
    model = CategoryModel(config)
    load_text_weights(model, folder)
    assert model.text_encoder is not None
    return model.text_encoder.trunk.state_dict()


def test_an_encoder_without_a_pooler_that_nobody_reads_has_the_same_weights_each_time(folder: Path) -> None:
    whole = _loaded(folder, "mean")
    _without(folder, "pooler.")
    first, again = (_loaded(folder, "mean") for _ in range(2))
    assert first.keys() == whole.keys()
    for name, value in first.items():
        assert torch.equal(value, again[name])
        assert torch.equal(value, torch.zeros_like(value) if "pooler." in name else whole[name])


def test_a_pooler_that_is_read_must_be_there(folder: Path) -> None:
    _without(folder, "pooler.")
    with pytest.raises(ModelError, match=r"has no weights for pooler\.dense\.bias, pooler\.dense\.weight"):
        _loaded(folder, "pooler")


def test_a_pooler_that_is_handled_alarms_nobody_and_other_reports_are_as_they_were(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _without(folder, "pooler.")
    library = logging.getLogger("transformers.modeling_utils")
    library.addHandler(caplog.handler)
    try:
        _loaded(folder, "mean")
        assert not caplog.messages
        BertModel.from_pretrained(folder)
        assert "LOAD REPORT" in caplog.text
        caplog.clear()
        save_file(
            {"embeddings.word_embeddings.weight": torch.zeros(7, 16)}, folder / "model.safetensors", {"format": "pt"}
        )
        with pytest.raises(ModelError, match="no fitting text encoder weights"):
            _loaded(folder, "mean")
        assert "MISMATCH" in caplog.text
    finally:
        library.removeHandler(caplog.handler)


def test_no_weight_is_made_up(folder: Path) -> None:
    _without(folder, "attention.self.query")
    with pytest.raises(ModelError, match="has no weights for encoder"):
        _loaded(folder, "mean")
