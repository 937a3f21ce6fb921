"""CTC's merging of chunks against the Transformers pipeline's, and what padding does to a batch."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers.pipelines import automatic_speech_recognition

from schemas.errors import Permanent, RecordError
from schemas.tasks.automatic_speech_recognition import Params
from tests.checkpoints_speech import make_ctc
from tests.media import sounds
from workers.audio.chunks import Span
from workers.audio.ctc import CtcRecognizer, check_ctc
from workers.tasks.automatic_speech_recognition import AutomaticSpeechRecognition

#: Transformers' own, which has no types.
rescale_stride: Any = automatic_speech_recognition.rescale_stride


@pytest.fixture(scope="module", params=["group", "layer"])
def recognizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> CtcRecognizer:
    model = make_ctc(tmp_path_factory.mktemp("model"), request.param)
    return make_recognizer(model, timestamps="char")


def make_recognizer(model: Path, **params: Any) -> CtcRecognizer:
    loaded = AutomaticSpeechRecognition.load(model, torch.device("cpu"), torch.float32)
    return CtcRecognizer(loaded, Params(**params))


def whole(samples: int) -> Span:
    return Span(samples, 0, 0, first=True)


@pytest.mark.parametrize(
    "span", [(16_000, 0, 0), (16_000, 0, 3200), (16_000, 3200, 3200), (9999, 3200, 0), (401, 0, 0)]
)
def test_the_frames_of_a_chunk_are_those_that_the_pipeline_keeps(
    span: tuple[int, int, int], recognizer: CtcRecognizer
) -> None:
    ((total, left, right),) = rescale_stride([span], 1 / 320)
    frames = np.arange(total)
    assert np.array_equal(recognizer._own(Span(*span, first=True), frames), frames[left : total - right])


def test_a_chunk_is_heard_in_company_as_alone(recognizer: CtcRecognizer) -> None:
    pieces = [recognizer.piece(wave, whole(len(wave))) for wave in sounds(12, seed=8)]
    with torch.inference_mode():
        together = recognizer.infer(pieces)
        alone = [recognizer.infer([piece])[0] for piece in pieces]
    assert all(torch.equal(one, other) for one, other in zip(together, alone, strict=True))
    assert [len(tokens) for tokens in alone] == [(piece.notes.length - 400) // 320 + 1 for piece in pieces]


def test_a_short_last_chunk_has_no_frames_beside_others_that_do(recognizer: CtcRecognizer) -> None:
    wave = sounds(1)[0]
    pieces = [
        recognizer.piece(wave[:399], Span(399, 0, 0, first=False)),
        recognizer.piece(wave, whole(len(wave))),
        recognizer.piece(wave[:1], Span(1, 0, 0, first=False)),
    ]
    with torch.inference_mode():
        none, some, no = recognizer.infer(pieces)
        nothing = recognizer.infer(pieces[:1])
    assert [len(none), len(no), len(nothing[0])] == [0, 0, 0]
    assert len(some) > 0


def test_a_clip_of_less_than_a_frame_is_too_short(recognizer: CtcRecognizer) -> None:
    with pytest.raises(RecordError, match="399 samples") as error:
        recognizer.piece(np.zeros(399, np.float32), whole(399))
    assert error.value.code == "audio_too_short"


def test_nothing_said_is_an_empty_text(recognizer: CtcRecognizer) -> None:
    blank, space = 0, 4
    for token in (blank, space):
        found = recognizer.transcript([whole(3200)], [np.full(9, token)])
        assert found.text == ""
    assert not recognizer.transcript([whole(3200)], [np.full(9, blank)]).chunks


def test_repeats_are_one_and_times_are_frames(recognizer: CtcRecognizer) -> None:
    """Across chunks too: what a chunk ends with and the next begins with was said once."""
    first, second = Span(3200, 0, 640, first=True), Span(3200, 640, 0, first=False)
    tokens = [np.array([5, 5, 0, 5, 6, 6, 6, 6, 9, 9]), np.array([9, 9, 6, 4, 7, 0, 0, 0, 0, 0])]
    found = recognizer.transcript([first, second], tokens)
    assert found.text == "EET A"
    assert [chunk["text"] for chunk in found.chunks] == ["E", "E", "T", " ", "A"]
    assert [(chunk["start_s"], chunk["end_s"]) for chunk in found.chunks] == [
        (0.0, 0.04),
        (0.06, 0.08),
        (0.08, 0.18),
        (0.18, 0.2),
        (0.2, 0.22),
    ]


def test_a_model_that_reads_features_is_refused() -> None:
    class ReadsFeatures:
        main_input_name = "input_features"
        config = None

    with pytest.raises(Permanent, match="a ReadsFeatures reads input_features") as error:
        check_ctc(ReadsFeatures())
    assert error.value.code == "model"
