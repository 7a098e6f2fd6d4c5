"""The model family against a slow reference written from the paper, and the promises of missing modalities."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torchvision.models import resnet50

from mmcat.errors import ModelError
from mmcat.family import ModelConfig
from mmcat.model import CategoryModel, Cells, CrossBlock, Fusion, ImageEncoder, loss
from tests.support.tiny import tiny_config, tiny_taxonomy

FAMILY = [("text", "cross"), ("image", "cross"), ("both", "concat"), ("both", "cross")]
BATCH = 5


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def _config(modality: str = "both", fusion: str = "cross") -> ModelConfig:
    return replace(tiny_config(tiny_taxonomy()), modality=modality, fusion=fusion)  # type: ignore[arg-type]  # by name


def _sequence() -> ModelConfig:
    """Tokens × a grid of 2 × 2 cells (photos of 64 px)."""
    return replace(_config(), keys="sequence", px=64, grid=2)


def _fusion(modality: str = "both", fusion: str = "cross") -> Fusion:
    return Fusion(_config(modality, fusion)).eval()


def _features(tokens: int = 1, cells: int = 1) -> tuple[Tensor, Tensor]:
    return torch.randn(BATCH, tokens, 32), torch.randn(BATCH, cells, 2048)


def _close(a: Sequence[Tensor], b: Sequence[Tensor], tolerance: float = 1e-5) -> bool:
    return all(torch.allclose(x, y, atol=tolerance) for x, y in zip(a, b, strict=True))


def _backward(value: Tensor) -> None:
    value.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped


def _slow_block(block: CrossBlock, query: Tensor, keys: Tensor) -> Tensor:
    """Pre-norm cross-attention for one listing, head by head, place by place, key by key."""
    normed, width = block.attention_norm(keys), query.shape[-1]
    asked = block.query(block.attention_norm(query))
    k, v = block.key_value(normed).split(width, dim=1)
    size = width // block.heads
    rows = []
    for place in range(len(query)):
        parts = []
        for head in range(block.heads):
            span = slice(head * size, (head + 1) * size)
            scores = [asked[place, span] @ k[j, span] / math.sqrt(size) for j in range(len(keys))]
            top = torch.stack(scores).detach().max()
            weights = [(score - top).exp() for score in scores]
            total = torch.stack(weights).sum()
            parts.append(torch.stack([weight / total * v[j, span] for j, weight in enumerate(weights)]).sum(0))
        rows.append(torch.cat(parts))
    query = query + block.out(torch.stack(rows))
    fed: Tensor = block.feed_forward(query)
    return query + fed


def _slow_cells(cells: Cells, image: Tensor) -> Tensor:
    rows = []
    for place, vector in enumerate(image):
        project = cells.front if place < cells.fronts else cells.cells
        assert project is not None
        rows.append(project(vector) + (0.0 if cells.places is None else cells.places[place]))
    return torch.stack(rows)


def _slow(fusion: Fusion, text: Tensor | None, image: Tensor | None) -> list[Tensor]:
    """Any member of the family for one listing: tokens [T, D] without padding, cells [N, D]; None: it has none."""
    t = i = torch.zeros(0)
    if fusion.config.reads_text:
        t = fusion.no_text[None] if text is None else torch.stack([fusion.text_in(token) for token in text])
    if fusion.config.reads_image:
        i = fusion.no_image[None] if image is None else _slow_cells(fusion.image_in, image)
    if fusion.config.modality != "both":
        vector = (t if fusion.config.reads_text else i).mean(0)
    elif fusion.config.fusion == "concat":
        vector = torch.cat([t.mean(0), i.mean(0)])
    else:
        keys, asked_t, asked_i = torch.cat([t, i]), t, i
        for text_block, image_block in zip(fusion.text_blocks, fusion.image_blocks, strict=True):
            asked_t = _slow_block(text_block, asked_t, keys)  # type: ignore[arg-type]  # ModuleList items
            asked_i = _slow_block(image_block, asked_i, keys)  # type: ignore[arg-type]  # ModuleList items
        vector = torch.cat([fusion.mix(torch.cat([asked_t.mean(0), asked_i.mean(0)])), t.mean(0)])
    return [head(vector) for head in fusion.heads]


SHAPES = {
    "pooled": {},
    "one head": {"heads": 1, "blocks": 1},
    "eight heads, three blocks": {"heads": 8, "blocks": 3},
    "flat": {"classes": (7,)},
    "tokens and cells": {"keys": "sequence", "px": 64, "grid": 2},
    "tokens and cells of two stages": {"keys": "sequence", "px": 64, "grid": 2, "image_layers": "layer3+layer4"},
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("modality", "fusion"), FAMILY)
def test_answers_and_gradients_equal_the_slow_reference(modality: str, fusion: str, shape: str) -> None:
    """Of every member, with titles of different lengths, and listings that lack one modality, or both."""
    member = Fusion(replace(_config(modality, fusion), **SHAPES[shape])).eval()  # type: ignore[arg-type]  # by name
    tokens = 4 if member.config.keys == "sequence" else 1
    text, image = _features(tokens, member.config.image_cells if member.config.reads_image else 1)
    lengths = [1 + row % tokens for row in range(BATCH)]
    has_text, has_image = torch.tensor([1, 0, 1, 0, 1]).bool(), torch.tensor([1, 1, 0, 0, 1]).bool()
    mask = torch.arange(tokens) < torch.tensor(lengths)[:, None]
    fast = member(text, image, has_text, has_image, mask)
    slow = [
        _slow(member, text[row, : lengths[row]] if has_text[row] else None, image[row] if has_image[row] else None)
        for row in range(BATCH)
    ]
    one_by_one = [torch.stack([row[level] for row in slow]) for level in range(len(fast))]
    assert _close(fast, one_by_one, 1e-4)
    found = []
    for answers in (fast, one_by_one):
        member.zero_grad()
        _backward(torch.stack([level.square().mean() for level in answers]).sum())
        found.append({name: p.grad.clone() for name, p in member.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys() == dict(member.named_parameters()).keys()
    assert _close([*found[0].values()], [found[1][name] for name in found[0]], 1e-4)


def test_a_cell_counts_for_where_it_stands() -> None:
    fusion = Fusion(_sequence()).eval()
    text, image = _features(3, 4)
    assert not _close(fusion(text, image), fusion(text, image.flip(1)))
    assert fusion.image_in.places is not None
    torch.nn.init.zeros_(fusion.image_in.places)
    assert _close(fusion(text, image), fusion(text, image.flip(1)), 1e-4)


def test_a_flat_head_answers_paths_and_learns_them() -> None:
    member = Fusion(replace(_config(), classes=(7,))).eval()
    (logits,) = member(*_features())
    assert logits.shape == (BATCH, 7)
    targets = torch.tensor([[0], [3], [6], [2], [3]])
    expected = torch.nn.functional.cross_entropy(logits, targets[:, 0])
    assert loss([logits], targets).item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_block_has_the_papers_number_of_parameters() -> None:
    count = sum(parameter.numel() for parameter in CrossBlock(768, 4, 0.1).parameters())
    assert count == pytest.approx(4.72e6, rel=0.002)


@pytest.mark.parametrize(("modality", "fusion"), FAMILY)
def test_every_member_answers_four_levels(modality: str, fusion: str) -> None:
    member = _fusion(modality, fusion)
    text, image = _features()
    logits = member(text if modality != "image" else None, image if modality != "text" else None)
    assert [tuple(level.shape) for level in logits] == [(BATCH, count) for count in member.config.classes]


@pytest.mark.parametrize(("modality", "fusion"), FAMILY)
def test_what_stands_in_place_of_a_missing_modality_reaches_neither_answer_nor_gradient(
    modality: str, fusion: str
) -> None:
    member = _fusion(modality, fusion).train()
    for module in member.modules():
        if isinstance(module, torch.nn.Dropout | CrossBlock):
            module.eval()  # compare exact numbers, yet with gradients
    text, image = _features(3, 4)
    has_text, has_image = torch.tensor([1, 0, 1, 0, 1]).bool(), torch.tensor([1, 1, 0, 0, 1]).bool()
    answers, gradients = [], []
    for rubbish in (0.0, 1e4, math.nan):
        member.zero_grad()
        logits = member(
            text.masked_fill(~has_text[:, None, None], rubbish),
            image.masked_fill(~has_image[:, None, None], rubbish),
            has_text,
            has_image,
        )
        _backward(torch.stack([level.square().sum() for level in logits]).sum())
        answers.append([level.detach() for level in logits])
        gradients.append([p.grad.clone() for p in member.parameters() if p.grad is not None])
    assert _close(answers[0], answers[1])
    assert _close(answers[0], answers[2])
    assert _close(gradients[0], gradients[2], 1e-4)
    assert all(torch.isfinite(gradient).all() for gradient in gradients[2])


@pytest.mark.parametrize(("modality", "fusion"), FAMILY)
def test_a_missing_modality_changes_the_answer_and_its_token_learns(modality: str, fusion: str) -> None:
    member = _fusion(modality, fusion)
    text, image = _features()
    there, gone = torch.ones(BATCH).bool(), torch.zeros(BATCH).bool()
    whole = member(text, image, there, there)
    if modality != "image":
        assert not _close(whole, member(text, image, gone, there))
    if modality != "text":
        assert not _close(whole, member(text, image, there, gone))
    nothing = member(text, image, gone, gone)
    assert _close([level[:1].expand_as(level) for level in nothing], nothing)  # nothing seen: one answer for all
    _backward(loss(nothing, torch.zeros(BATCH, 4, dtype=torch.int64)))
    tokens = [parameter for name, parameter in member.named_parameters() if name.startswith("no_")]
    assert tokens
    assert all(token.grad is not None and token.grad.abs().sum() > 0 for token in tokens)


@pytest.mark.parametrize(("modality", "fusion"), [member for member in FAMILY if member[0] != "image"])
def test_padding_changes_nothing(modality: str, fusion: str) -> None:
    member = _fusion(modality, fusion)
    text, image = _features(3)
    padded = torch.cat([text, torch.full((BATCH, 4, 32), 7.0)], dim=1)
    mask = torch.arange(7)[None].expand(BATCH, 7) < 3
    assert _close(member(text, image), member(padded, image, text_mask_BT=mask))


@pytest.mark.parametrize(("modality", "fusion"), FAMILY)
def test_a_missing_modality_is_one_token_however_long_its_place(modality: str, fusion: str) -> None:
    member = _fusion(modality, fusion)
    text, image = _features(5, 9)
    gone, there = torch.zeros(BATCH).bool(), torch.ones(BATCH).bool()
    for has_text, has_image in [(gone, there), (there, gone), (gone, gone)]:
        short_text = text[:, :1] if has_text is gone else text
        short_image = image[:, :1] if has_image is gone else image
        long = member(text, image, has_text, has_image)
        assert _close(long, member(short_text, short_image, has_text, has_image))


@pytest.mark.parametrize(("modality", "fusion"), FAMILY)
def test_an_answer_does_not_depend_on_its_batch_mates(modality: str, fusion: str) -> None:
    member = _fusion(modality, fusion)
    text, image = _features(3, 4)
    has_image = torch.tensor([1, 0, 1, 1, 0]).bool()
    together = member(text, image, None, has_image)
    for row in range(BATCH):
        one = slice(row, row + 1)
        assert _close([level[one] for level in together], member(text[one], image[one], None, has_image[one]))


def test_dropout_is_on_in_training_only() -> None:
    member = _fusion().train()
    text, image = _features()
    assert not _close(member(text, image), member(text, image))
    member.eval()
    assert _close(member(text, image), member(text, image))


@pytest.mark.parametrize("pooling", ["cls", "mean", "pooler", "layers"])
def test_padding_of_titles_changes_nothing_whatever_the_pooling(pooling: str) -> None:
    model = CategoryModel(replace(_config("text"), text_pooling=pooling)).eval()  # type: ignore[arg-type]  # by name
    ids, mask = torch.randint(5, 200, (BATCH, 6)), torch.ones(BATCH, 6, dtype=torch.int64)
    padded = torch.cat([ids, torch.zeros(BATCH, 5, dtype=torch.int64)], dim=1)
    padded_mask = torch.cat([mask, torch.zeros(BATCH, 5, dtype=torch.int64)], dim=1)
    with torch.no_grad():
        short, long = model.encode_text(ids, mask), model.encode_text(padded, padded_mask)
    assert short.shape == (BATCH, 1, model.config.text_width)
    assert torch.allclose(short, long, atol=1e-5)


def test_the_whole_model_equals_its_parts() -> None:
    model = CategoryModel(_config()).eval()
    ids, mask = torch.randint(5, 200, (2, 6)), torch.ones(2, 6, dtype=torch.int64)
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        parts = model.fuse(model.encode_text(ids, mask), model.encode_image(pixels))
        assert _close(model(ids, mask, pixels), parts)


def test_a_sequence_model_reads_tokens_and_cells_whatever_the_padding() -> None:
    model = CategoryModel(replace(_sequence(), image_layers="layer3+layer4", text_pooling="layers")).eval()
    ids, mask = torch.randint(5, 200, (2, 6)), torch.ones(2, 6, dtype=torch.int64)
    padded = torch.cat([ids, torch.zeros(2, 5, dtype=torch.int64)], dim=1)
    padded_mask = torch.cat([mask, torch.zeros(2, 5, dtype=torch.int64)], dim=1)
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        text, image = model.encode_text(ids, mask), model.encode_image(pixels)
        assert text.shape == (2, 6, model.config.text_width)
        assert image.shape == (2, model.config.image_cells, model.config.image_width) == (2, 5, 2048)
        assert _close(model(ids, mask, pixels), model(padded, padded_mask, pixels))
        assert _close(model(ids, mask, pixels), model.fuse(text, image))


def test_features_are_enough_without_encoders() -> None:
    model = CategoryModel(_config(), encoders=False).eval()
    assert sum(p.numel() for p in model.parameters()) < 500_000
    assert len(model.fuse(*_features())) == 4
    with pytest.raises(ModelError, match="without an image encoder"):
        model.encode_image(torch.zeros(1, 3, 64, 64))
    with pytest.raises(ModelError, match="without a text encoder"):
        model.encode_text(torch.zeros(1, 1), torch.ones(1, 1))
    with pytest.raises(ModelError, match="not given"):
        model.fuse(None, _features()[1])


def test_v1_strides_move_the_halving_into_the_first_convolution() -> None:
    v1, v15 = ImageEncoder("v1").eval(), ImageEncoder("v1.5").eval()
    v15.load_state_dict(v1.state_dict())
    reference = resnet50(weights=None).eval()
    reference.fc = torch.nn.Identity()
    reference.load_state_dict(v1.trunk.state_dict())
    pixels = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(v15(pixels)[:, 0], reference(pixels), atol=1e-5)
        assert v1(pixels).shape == (1, 1, 2048)
        assert not torch.allclose(v1(pixels), v15(pixels), atol=1e-5)
    assert v1.trunk.layer3[0].conv1.stride == (2, 2)
    assert v1.trunk.layer3[0].conv2.stride == (1, 1)


def test_two_stages_stand_side_by_side_as_square_roots_of_their_means() -> None:
    one, two = ImageEncoder().eval(), ImageEncoder(layers="layer3+layer4").eval()
    two.load_state_dict(one.state_dict())
    pixels = torch.randn(2, 3, 64, 64)
    seen: list[Tensor] = []
    two.trunk.layer3.register_forward_hook(lambda _, __, output: seen.append(output))
    with torch.no_grad():
        vector = two(pixels)
        assert torch.allclose(vector[:, 0, 1024:], one(pixels)[:, 0].sqrt(), atol=1e-5)
        assert torch.allclose(vector[:, 0, :1024] ** 2, seen[0].mean((2, 3)), atol=1e-5)
    model = CategoryModel(replace(_config(), image_layers="layer3+layer4", text_pooling="layers")).eval()
    ids, mask = torch.randint(5, 200, (2, 6)), torch.ones(2, 6, dtype=torch.int64)
    with torch.no_grad():
        assert len(model(ids, mask, pixels)) == 4


def test_cells_are_those_of_the_last_map_behind_one_of_the_map_before() -> None:
    encoder = ImageEncoder(layers="layer3+layer4", grid=2).eval()
    seen: dict[str, Tensor] = {}
    encoder.trunk.layer3.register_forward_hook(lambda _, __, output: seen.update(middle=output))
    encoder.trunk.layer4.register_forward_hook(lambda _, __, output: seen.update(last=output))
    with torch.no_grad():
        found = encoder(torch.randn(2, 3, 64, 64))
    for row in range(2):
        middle = seen["middle"][row].flatten(1)
        assert torch.allclose(found[row, 0], torch.cat([middle.mean(1), middle.std(1, correction=0)]), atol=1e-5)
        for y in range(2):
            for x in range(2):
                assert torch.allclose(found[row, 1 + 2 * y + x], seen["last"][row, :, y, x])


def test_zero_init_makes_each_residual_start_as_the_identity() -> None:
    assert all((block.bn3.weight == 0).all() for block in ImageEncoder(zero_init_residual=True).trunk.layer4)
    assert all((block.bn3.weight == 1).all() for block in ImageEncoder().trunk.layer4)


def test_loss_is_the_weighted_sum_over_the_levels_that_exist() -> None:
    logits = [torch.randn(3, 4) for _ in range(4)]
    targets = torch.tensor([[0, 1, 2, 3], [1, 0, -1, -1], [2, 2, 0, -1]])
    expected = 0.0
    for level, weight in enumerate((1.0, 1.2, 1.3, 1.4)):
        rows = [row for row in range(3) if targets[row, level] >= 0]
        costs = [-torch.log_softmax(logits[level][row], 0)[targets[row, level]].item() for row in rows]
        expected += weight * sum(costs) / len(costs)
    assert loss(logits, targets).item() == pytest.approx(expected, rel=1e-5)


def test_loss_of_an_empty_level_is_no_nan() -> None:
    logits = [torch.randn(2, 3, requires_grad=True) for _ in range(4)]
    value = loss(logits, torch.tensor([[0, 0, -1, -1], [1, 0, -1, -1]]))
    _backward(value)
    assert torch.isfinite(value)
    assert all(level.grad is not None and torch.isfinite(level.grad).all() for level in logits)


@pytest.mark.parametrize(("modality", "fusion"), FAMILY)
def test_loss_falls_on_sixteen_samples(modality: str, fusion: str) -> None:
    member = _fusion(modality, fusion).train()
    taxonomy = tiny_taxonomy()
    text, image = torch.randn(16, 1, 32), torch.randn(16, 1, 2048)
    targets = torch.from_numpy(taxonomy.path_classes.copy())[torch.arange(16) % len(taxonomy)]
    optimizer = torch.optim.AdamW(member.parameters(), lr=3e-3)
    values = []
    for _ in range(40):
        optimizer.zero_grad()
        value = loss(member(text, image), targets)
        _backward(value)
        optimizer.step()
        values.append(value.item())
    assert values[-1] < 0.2 * values[0]


@pytest.mark.parametrize(("modality", "fusion"), FAMILY)
def test_a_configuration_survives_json(modality: str, fusion: str) -> None:
    config = _config(modality, fusion)
    assert ModelConfig.from_json(config.to_json()) == config
    with pytest.raises(ModelError, match="depth"):
        ModelConfig.from_json({**config.to_json(), "depth": 4})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": 5}, "5 heads do not divide"),
        ({"modality": "img"}, "modality must be one of text, image, both"),
        ({"fusion": "simple"}, "fusion must be"),
        ({"text_pooling": "max"}, "text_pooling must be"),
        ({"resnet_strides": "v2"}, "resnet_strides must be"),
        ({"px": 16}, "px 16"),
        ({"blocks": 0}, "blocks 0"),
        ({"grid": 4, "keys": "sequence", "px": 224}, "4 × 4 cells needs keys sequence and photos of 128 px"),
        ({"grid": 7, "px": 224}, "not keys pooled"),
        ({"keys": "tokens"}, "keys must be"),
        ({"classes": (1, 2, 3)}, "four class counts"),
        ({"text_encoder": None}, "needs a text_encoder"),
        ({"given_photo_width": 9, "modality": "text"}, "come with the data"),
        ({"given_photo_width": 9, "grid": 2, "keys": "sequence", "px": 64}, "no grid of them"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused_by_name(change: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        ModelConfig.from_json({**_config().to_json(), **change})


def test_real_encoders_fill_the_model_and_nothing_else_does(test_weights: Path, tmp_path: Path) -> None:
    from mmcat.pretrained import load_resnet_weights, load_text_weights, text_config

    config = replace(
        _config(), text_encoder=text_config(test_weights / "minilm"), text_pooling="mean", resnet_strides="v1"
    )
    model = CategoryModel(config).eval()
    before = model.encode_image(torch.ones(1, 3, 64, 64)).detach()
    load_text_weights(model, test_weights / "minilm")
    load_resnet_weights(model, test_weights / "resnet50_v1.safetensors")
    assert not torch.allclose(before, model.encode_image(torch.ones(1, 3, 64, 64)).detach())
    assert model.config.text_width == 384
    (tmp_path / "broken.safetensors").write_bytes(b"no weights")
    with pytest.raises(ModelError, match="no ResNet50 weights"):
        load_resnet_weights(model, tmp_path / "broken.safetensors")
    with pytest.raises(ModelError, match="not a ResNet50"):
        load_resnet_weights(model, test_weights / "minilm" / "model.safetensors")
    with pytest.raises(ModelError, match="no fitting text encoder"):
        load_text_weights(CategoryModel(_config("text")), test_weights / "minilm")
    with pytest.raises(ModelError, match="no text encoder at"):
        text_config(tmp_path)
