"""Two thousand broken photos end in pixels or in the decoder's own refusal, within the memory they are given.

`make fuzz` runs twenty thousand.
"""

import sys
from pathlib import Path

import numpy as np
import pytest

from mmcat import photos
from tests.fuzz.decoding import CAP_BYTES, EXPECTED, Decoder
from tests.fuzz.mutants import mutant
from tests.fuzz.originals import bombs, originals
from tests.fuzz.run import FLAT_BYTES, MB, Report, decode_all, table

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is capped and read as Linux does it")

COUNT = 2_000
BREAKING = f"""
import os, signal, time
from mmcat import photos
from tests.fuzz import decoding

def broken(real):
    def called(data, *more):
        if data.endswith(b"hung"):
            time.sleep(3600)
        if data.endswith(b"crashed"):
            os.kill(os.getpid(), signal.SIGSEGV)
        if data.endswith(b"memory"):
            bytearray({2 * CAP_BYTES})
        return real(data, *more)
    return called

def unguarded(data, *more, **options):
    if data.endswith(b"LookupError"):
        raise LookupError("past the net")
    return real_decode(data, *more, **options)

photos.read_header = broken(photos.read_header)
real_decode, decoding.decode = decoding.decode, unguarded
decoding.main()
"""
"""A decoder that breaks by what a photo ends in, within the net that makes everything undecodable or past it."""

SPOILT = """
import numpy as np
from tests.fuzz import decoding

warmed_up = []

def decode(data, px, **_):
    if warmed_up:
        raise LookupError("not this one")
    warmed_up.append(data)
    return np.zeros((px, px, 3), np.uint8)

decoding.decode = decode
decoding.main()
"""


@pytest.mark.slow
def test_any_broken_photo_is_decoded_or_refused_within_its_memory(tmp_path: Path) -> None:
    report = decode_all(originals(), bombs(), range(COUNT), Report(), tmp_path)
    print(table([report]))
    assert report.failures == []
    assert (report.started, len(report.held)) == (1, COUNT)
    for name, row in report.rows.items():
        assert set(row.outcomes) == EXPECTED, f"{name}: mutations reach all three ends"


@pytest.mark.slow
def test_the_run_sees_a_decoder_that_breaks_and_goes_on_with_another(tmp_path: Path) -> None:
    whole = originals()["PNG colour"]
    with Decoder([whole], (sys.executable, "-c", BREAKING)) as decoder:
        assert decoder.decode(whole).outcome == "decoded"
        for outcome in ("memory", "LookupError"):
            assert decoder.decode(whole + outcome.encode()).outcome == outcome
        crashed = decoder.decode(whole + b"crashed")
        assert crashed.outcome == "crashed"
        assert "SIGSEGV" in crashed.detail
        assert "in called" in crashed.detail  # where it was
        assert decoder.decode(whole + b"hung", answer_s=1).outcome == "hung"  # past its start, that is
        assert decoder.started == 2


def test_memory_that_grows_is_told() -> None:
    steady, leaking = Report(held=[0, *[MB] * 999]), Report(held=[number * MB // 10 for number in range(1000)])
    assert steady.grown_bytes == 0
    assert leaking.grown_bytes > FLAT_BYTES


def test_what_fails_is_kept_and_told_by_its_seed(tmp_path: Path) -> None:
    whole = {"PNG colour": originals()["PNG colour"]}
    report = decode_all(whole, {}, [5], Report(), tmp_path, (sys.executable, "-c", SPOILT))
    [file], [failure] = tmp_path.iterdir(), report.failures
    assert file.read_bytes() == mutant(whole, 5).data
    assert failure.startswith("seed 5, PNG colour")
    assert str(file) in failure


def test_a_mutant_is_the_same_each_time() -> None:
    assert [mutant(originals(), seed, bombs()) for seed in range(99)] == [
        mutant(originals(), seed, bombs()) for seed in range(99)
    ]


def test_the_interlaced_photo_is_the_plain_one() -> None:
    made = originals()
    assert np.array_equal(photos.decode(made["PNG interlaced"], 32), photos.decode(made["PNG colour"], 32))
