"""`python -m training.train` takes the research code's flags and makes the three steps of one model family."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from mmcat import Categorizer, Listing
from mmcat.bundle import load
from mmcat.cli import main as program
from mmcat.errors import BundleError
from mmcat.listing import ImageStatus
from tests.unit.training.kakao_files import write_chunk
from tests.unit.training.small import small_recipe, write_encoders, write_folder
from training.data import Dataset
from training.earlier import earlier_bundles
from training.errors import CheckpointError, DataError, RecipeError
from training.progress import Quiet
from training.research import main, options_of, parser, read_data, recipe_of, shares_of
from training.store import Features

SMALL = [
    *("--set", "photo.px=32", "--set", "text.pooling=mean", "--set", "fusion.width=16", "--set", "features=fp32"),
    *("--n_epochs", "2", "--batch_size", "16", "--lr", "0.01", "--n_block", "1", "--num_head", "2"),
    *("--max_length", "16", "--device", "cpu", "--warmup_ratio", "0.1"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("research")
    write_folder(folder / "data")
    write_encoders(folder / "encoders")
    return folder


def call(place: Path, *flags: str) -> None:
    encoders = str(place / "encoders")
    given = ["--train_fn", str(place / "data"), "--pretrained_model_name", encoders, *SMALL, *flags]
    main([*given, "--model_fn", str(place / "models")], Quiet())


def test_three_calls_make_a_fusion_of_the_very_encoders_that_were_trained(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call(place, "--modality", "text")
    call(place, "--modality", "img")
    call(place, "--modality", "both", "--multiModal_type", "cross", "--load_model_path", str(place / "models"))
    assert "cross, path accuracy on test" in capsys.readouterr().out
    cross = load(place / "models" / "cross").model
    assert (cross.config.blocks, cross.config.heads, cross.config.fusion) == (1, 2, "cross")
    alone = load_file(str(place / "models" / "text" / "model.safetensors"))
    fused = load_file(str(place / "models" / "cross" / "model.safetensors"))
    shared = [name for name in alone if name.startswith("text_encoder.")]
    assert shared
    assert all(alone[name].equal(fused[name]) for name in shared)
    given = load_file(str(place / "encoders" / "tiny" / "model.safetensors"))
    name = "encoder.layer.0.attention.self.query.weight"
    assert not alone[f"text_encoder.trunk.{name}"].equal(given[name])  # step 1 learned


def test_three_calls_on_kakao_s_chunks_end_in_the_contest_s_file_and_score(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    chunks = tmp_path / "chunks"
    chunks.mkdir()
    for number in range(2):
        write_chunk(chunks / f"train.chunk.0{number + 1}", "train", number * 60, 60)
    titles = [f"직소퍼즐 {number}피스".encode() for number in range(120)]
    dev = np.array([b"\xff", *titles[1:]], "S64")  # the same listings, truth withheld, and one that cannot be read
    write_chunk(chunks / "dev.chunk.01", "dev", 0, 120, truth=False, product=dev)
    monkeypatch.setenv("MMCAT_HOME", str(tmp_path))
    text_encoder = place / "encoders" / "tiny"  # alone: no ResNet50 is asked for, of a folder or a hub
    given = ["--train_fn", str(chunks), "--pretrained_model_name", str(text_encoder), *SMALL]
    given += ["--model_fn", str(tmp_path / "models"), "--cache", str(tmp_path / "features")]
    main([*given, "--modality", "text"], Quiet())
    main([*given, "--modality", "img"], Quiet())
    main([*given, "--modality", "both", "--load_model_path", str(tmp_path / "models")], Quiet())
    capsys.readouterr()
    command = ["evaluate", str(tmp_path / "models" / "cross"), "--data", str(chunks), "--part", "test", "--no-suspects"]
    assert program([*command, "--json", "--out", str(tmp_path / "evaluation")]) == 0
    said = json.loads(capsys.readouterr().out)
    answers = (tmp_path / "evaluation" / "contest.csv").read_text().splitlines()
    assert answers[0] == "pid,b,m,s,d"
    assert len(answers) - 1 == said["rows"] > 10
    assert 0 <= said["kakao_score"] <= 1.225
    predict = [*command[:4], "--chunks", "dev", "--json", "--out", str(tmp_path / "dev")]
    assert program(predict) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["rows"], said["bad_rows"]) == (119, 1)
    assert sorted(path.name for path in (tmp_path / "dev").iterdir()) == ["contest.csv", "run.json"]
    predicted = (tmp_path / "dev" / "contest.csv").read_text().splitlines()
    assert [line.partition(",")[0] for line in predicted] == ["pid", *(f"K{number:07d}" for number in range(1, 120))]
    assert set(answers) - {line for line in answers if line.startswith("K0000000,")} <= set(predicted)
    run = json.loads((tmp_path / "dev" / "run.json").read_text())
    assert (run["chunks"], run["recipe"]["name"], run["bundle"]["name"]) == ("dev", "seed_kakao", "kakao-train-cross")
    assert [(line, column) for line, column, _ in run["skipped"]] == [(1, "product")]
    (chunks / "dev.chunk.01").unlink()
    assert program(predict) == 1
    assert "has no chunk files named dev" in capsys.readouterr().err
    models = tmp_path / "models"
    for name in ("image", "cross"):
        loaded = load(models / name)
        assert (loaded.config.given_photo_width, loaded.model.image_encoder) == (2048, None)
        assert "photo vectors of width 2048 that came with the data" in (models / name / "README.md").read_text()
        with pytest.raises(BundleError, match=f"{name}: its photo vectors .2048 wide. came with the data"):
            Categorizer.load(models / name)
    answer = Categorizer.load(models / "text", device="cpu").categorize(
        [Listing("a", title="직소퍼즐 3피스", image=b"")]
    )
    assert answer[0].image is ImageStatus.ABSENT


def test_bundles_of_another_validation_share_are_evaluated_by_it(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MMCAT_HOME", str(tmp_path))
    models, data = tmp_path / "models", str(place / "data")
    given = ["--train_fn", data, "--pretrained_model_name", str(place / "encoders"), *SMALL, "--valid_ratio", "0.2"]
    given += ["--seed", "3", "--model_fn", str(models)]
    main([*given, "--modality", "text"], Quiet())
    main([*given, "--modality", "img"], Quiet())  # its report takes the place of the first
    capsys.readouterr()
    for name in ("text", "image"):
        command = ["evaluate", str(models / name), "--data", data, "--no-suspects", "--json"]
        assert program([*command, "--out", str(tmp_path / name)]) == 0
        assert 12 <= json.loads(capsys.readouterr().out)["rows"] <= 24  # 0.2 of 90
    assert program([*command, "--part", "test", "--out", str(tmp_path / "test")]) == 0
    (ledger,) = (tmp_path / "features").glob("*.ledger.jsonl")
    assert len(ledger.read_text().splitlines()) == 3  # two trainings and this one


def test_of_a_run_on_brought_vectors_the_text_bundle_is_offered_for_prediction(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MMCAT_HOME", str(tmp_path))
    chunk, out = write_chunk(tmp_path / "train.chunk.01", "train", 0, 120), tmp_path / "out"
    recipe = tmp_path / "small.yaml"
    recipe.write_text(json.dumps(small_recipe().model_dump(mode="json")))
    given = ["train", str(chunk), "--encoders", str(place / "encoders" / "tiny"), "--recipe", str(recipe)]
    assert program([*given, "--only", "text", "--only", "concat", "--device", "cpu", "--out", str(out)]) == 0
    heard = capsys.readouterr()
    assert f"try: mmcat predict 'a title' --bundle {out / 'text'}" in " ".join(heard.out.split())
    assert "no ResNet50 is loaded, and what reads them can be measured and not served" in " ".join(heard.err.split())


def test_an_image_encoder_is_not_trained_on_data_that_brings_its_vectors(place: Path, tmp_path: Path) -> None:
    chunk = write_chunk(tmp_path / "train.chunk.01", "train", 0, 60)
    given = ["--train_fn", str(chunk), "--pretrained_model_name", str(place / "encoders"), *SMALL]
    given += ["--model_fn", str(tmp_path / "models"), "--modality", "img"]
    for change in ("image_training={steps: 2}", "fusion.tune.image_blocks=1"):
        with pytest.raises(SystemExit, match="kakao-train brings photo vectors and no photos"):
            main([*given, "--set", change], Quiet())
    with pytest.raises(SystemExit, match="there is no grid of them"):
        main([*given, "--set", "fusion.keys=sequence", "--set", "photo.grid=2", "--set", "photo.px=64"], Quiet())
    assert not (tmp_path / "models").exists()


def test_encoders_of_another_preparation_are_refused_by_name(place: Path) -> None:
    call(place, "--modality", "text")
    with pytest.raises(SystemExit, match="was trained with another max_tokens: train that step again"):
        call(place, "--modality", "both", "--max_length", "12", "--load_model_path", str(place / "models"))
    with pytest.raises(SystemExit, match="was trained with another split"):
        call(place, "--modality", "both", "--valid_ratio", "0.2", "--load_model_path", str(place / "models"))
    with pytest.raises(SystemExit, match="holds no bundle of an earlier step"):
        call(place, "--modality", "both", "--load_model_path", str(place / "encoders"))
    call(place, "--modality", "img")
    scaled = ("--set", "photo.scaled_decode=true")
    with pytest.raises(SystemExit, match="was trained with another scaled_decode: train that step again"):
        call(place, "--modality", "both", *scaled, "--load_model_path", str(place / "models" / "image"))


def test_an_image_step_on_photos_is_not_joined_to_vectors_that_the_data_brings(place: Path) -> None:
    call(place, "--modality", "img")
    image = load(place / "models" / "image")
    photos = read_data(place / "data", None, place / "features")
    given = Features(np.ones((len(photos), 2048), np.float16), np.ones(len(photos), np.bool_))
    vectors = Dataset(photos.name, photos.taxonomy, photos.rows, photo_vectors=given)
    found = earlier_bundles(place / "models" / "image", photos, image.split_fingerprint, image.preprocessing)
    assert list(found) == ["image"]
    with pytest.raises(CheckpointError, match="was trained with another kind of photo vectors: train that step again"):
        earlier_bundles(place / "models" / "image", vectors, image.split_fingerprint, image.preprocessing)


def test_flags_go_where_the_step_is_trained() -> None:
    given = parser().parse_args(
        ["--modality", "text", "--train_fn", "x", "--lr", "3e-5", "--set", "text.fields=[brand]"]
    )
    recipe = recipe_of(given)
    assert recipe.text_training is not None
    assert (recipe.text_training.lr, recipe.fusion.lr, recipe.text.fields) == (3e-5, 5e-5, ("brand",))
    given = parser().parse_args(["--modality", "img", "--train_fn", "x", "--n_epochs", "9", "--n_block", "12"])
    assert (recipe_of(given).fusion.epochs, recipe_of(given).fusion.blocks) == (9, 12)


def test_simple_is_concatenation() -> None:
    given = parser().parse_args(["--modality", "both", "--multiModal_type", "simple", "--train_fn", "x"])
    assert options_of(given).models == ("concat",)


def test_the_validation_share_comes_out_of_training() -> None:
    assert shares_of(0.1) == pytest.approx({"train": 0.62, "select": 0.1, "calibrate": 0.08, "test": 0.2})
    with pytest.raises(RecipeError, match=r"between 0 and 0.72"):
        shares_of(0.9)


def test_what_cannot_be_meant_is_refused(tmp_path: Path) -> None:
    given = parser().parse_args(["--modality", "text", "--train_fn", "x", "--load_model_path", "y"])
    with pytest.raises(RecipeError, match="belongs to --modality both"):
        options_of(given)
    with pytest.raises(DataError, match="listings"):
        read_data(tmp_path, None, tmp_path / "cache")
    write_folder(tmp_path / "data")
    with pytest.raises(DataError, match="brings its own photos"):
        read_data(tmp_path / "data", tmp_path / "elsewhere", tmp_path / "cache")
    with pytest.raises(SystemExit):
        parser().parse_args(["--modality", "video", "--train_fn", "x"])
