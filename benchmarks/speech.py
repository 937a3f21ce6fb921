"""Speech: the product's runner against Transformers' pipeline at batch 16, on short and long clips mixed.

Small models of random weights, Wav2Vec2 with CTC and Whisper (greedy, finding the language), float32. The product reads
WAV files out of a Parquet file; the pipeline gets the samples. The contestants take turns within each round, a ratio is
of one round, and the median of the rounds' ratios counts.

Transcripts have to be those of the pipeline with one clip at a time: in a batch it may hear a frame of padding.
"""

import json
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from io import BytesIO
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import transformers
from tokenizers import pre_tokenizers
from transformers import (
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
)

from benchmarks.inputs import quiet, tell
from benchmarks.speed import timed
from jobs.planning.planner import Limits, planned
from jobs.settings import Settings
from jobs.storage import Storage
from jobs.submission.accept import new_job
from jobs.submission.validate import validate
from schemas.job import parse_spec
from schemas.output import kept_columns, output_schema, task_columns
from workers.engine.runner import ShardRun
from workers.io.media_reader import reader_for
from workers.io.part_writer import PartWriter
from workers.models.cache import ModelCache
from workers.tasks import handler_of

RATE = 16_000
SHORT, LONG = 21, 3
ROUNDS = 3
BATCH = 16
TARGET = 2.0


def clips() -> list[np.ndarray]:
    """Clips of 1 to 12 seconds and some of 40 to 100, in no order: noise whose loudness comes and goes."""
    random = np.random.default_rng(1)
    lengths = [*np.geomspace(1, 12, SHORT), *np.linspace(40, 100, LONG)]
    made = []
    for seconds in random.permutation(lengths):
        place = np.arange(round(seconds * RATE)) / RATE
        loud = 0.1 + 0.1 * np.sin(place * random.uniform(2, 9))
        made.append((loud * random.standard_normal(len(place))).astype(np.float32))
    return made


def wav(samples: np.ndarray) -> bytes:
    import av

    out = BytesIO()
    with av.open(out, "w", format="wav") as target:
        stream: Any = target.add_stream("pcm_f32le", rate=RATE, layout="mono", format="flt")
        frame = av.AudioFrame.from_ndarray(samples[None], format="flt", layout="mono")
        frame.sample_rate, frame.pts = RATE, 0
        target.mux(stream.encode(frame))
        target.mux(stream.encode(None))
    return out.getvalue()


def make_wav2vec2(folder: Path) -> Path:
    """Of the large models' kind, which normalises each frame: its batches may be padded, so that answers agree."""
    quiet()
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    vocabulary = {token: place for place, token in enumerate(["<pad>", "<s>", "</s>", "<unk>", "|", *"ETAONIHSRDLU"])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    tokenizer, extractor, shape, auto = _untyped(
        Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor, Wav2Vec2Config, Wav2Vec2ForCTC
    )
    tokenizer(str(folder / "vocab.json")).save_pretrained(folder)
    sizes = {"hidden_size": 192, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 768}
    kind = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True, "conv_dim": (64,) * 7}
    model = auto(shape(vocab_size=len(vocabulary), pad_token_id=0, initializer_range=0.05, **sizes, **kind))
    with torch.no_grad():
        model.lm_head.weight.mul_(20)
    model.save_pretrained(folder)
    extractor(return_attention_mask=True).save_pretrained(folder)
    return folder


def make_whisper(folder: Path) -> Path:
    """Of two languages, with bytes for tokens. Some transcripts end by themselves."""
    quiet()
    torch.manual_seed(0)
    tokenizers, extractor, shape, auto = _untyped(
        WhisperTokenizer, WhisperFeatureExtractor, WhisperConfig, WhisperForConditionalGeneration
    )
    alphabet = {token: place for place, token in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    names = ("endoftext", "startoftranscript", "en", "de", "transcribe", "startofprev", "notimestamps")
    tokenizer = tokenizers(vocab=alphabet, merges=[], extra_special_tokens=[f"<|{name}|>" for name in names])
    tokenizer.pad_token = "<|endoftext|>"
    end, start, english, german, transcribe, _, untimed = tokenizer.convert_tokens_to_ids(
        [f"<|{name}|>" for name in names]
    )
    sizes = {f"{side}_{name}": n for side in ("encoder", "decoder") for name, n in (("layers", 2), ("ffn_dim", 512))}
    ids = {"bos_token_id": end, "eos_token_id": end, "pad_token_id": end, "decoder_start_token_id": start}
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4}
    model = auto(shape(vocab_size=untimed + 1502, d_model=128, init_std=0.1, **sizes, **heads, **ids))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "encoder_attn" in name:
                weight.mul_(3)
        model.get_input_embeddings().weight[end].mul_(1.5)
    own = model.generation_config
    own._from_model_config = False
    own.update(max_length=100, begin_suppress_tokens=[end], suppress_tokens=list(range(start, untimed + 1502)))
    own.no_timestamps_token_id, own.is_multilingual = untimed, True
    own.lang_to_id, own.task_to_id = {"<|en|>": english, "<|de|>": german}, {"transcribe": transcribe}
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    extractor().save_pretrained(folder)
    return folder


def _untyped(*classes: Any) -> Sequence[Any]:
    return classes


class Runner:
    """The product, from a Parquet file of clips to a finished part on local disk, its model loaded beforehand."""

    def __init__(self, folder: Path, model: Path, sounds: Sequence[np.ndarray], params: dict[str, Any]) -> None:
        self._folder = folder
        self._storage, self._settings = Storage(), Settings.read()
        self._numbers = count()
        source = folder / "clips.parquet"
        pq.write_table(pa.table({"audio": [wav(samples) for samples in sounds]}), source)
        job = {"task": "automatic-speech-recognition", "model": str(model), "params": params}
        places = {"input": {"uri": str(source)}, "output": {"uri": str(folder / "output")}}
        checked = validate(parse_spec(job | places), self._storage, self._settings)
        self._job = new_job(checked.spec, checked.model)
        self._spec = self._job.spec
        whole = Limits(rows=1 << 30, bytes=1 << 40)
        plan = planned(self._spec, None, self._storage, self._settings, whole)
        (self._shard,), self._columns = plan.shards, plan.columns
        self._handler = handler_of(self._spec.task_schema)
        self._held = ModelCache(self._settings, self._storage).get(self._job, self._handler)

    def run(self) -> list[str]:
        """The transcripts, read back from the part."""
        spec, columns = self._spec, self._columns
        kept = pa.schema([columns.field(name) for name in kept_columns(spec, columns)])
        reader = reader_for(self._job, columns, self._storage, self._settings)
        with PartWriter(output_schema(spec, kept)) as writer:
            run = ShardRun(self._handler(self._held.loaded, spec.task_params, spec), self._held.budget, lambda _: None)
            run.run(self._shard, reader, task_columns(spec, columns), writer)
            known = {"job": "bench", "attempt": "bench", "worker": "bench", "fingerprint": "", "versions": {}}
            report = run.report(shard=self._shard.shard, device="cpu", dtype="float32", **known)
            part = str(self._folder / "output" / f"part-{next(self._numbers)}.parquet")
            self._storage.create(part, writer.close(report), "bench")
        reader.close()
        return [row["prediction"]["text"] for row in pq.read_table(part).to_pylist()]


def transcripts(pipe: Any, sounds: Sequence[np.ndarray], batch: int, options: dict[str, Any]) -> list[str]:
    found = pipe([samples.copy() for samples in sounds], batch_size=batch, **options)
    return [one["text"] for one in found]


def equal(some: Sequence[str], others: Sequence[str]) -> str:
    return f"{sum(a == b for a, b in zip(some, others, strict=True))} of {len(others)}"


def compare(name: str, make: Callable[[Path], Path], params: dict[str, Any], options: dict[str, Any]) -> bool:
    """Print one model's comparison; whether the product's transcripts were right."""
    sounds = clips()
    with tempfile.TemporaryDirectory(prefix="nightshift-bench-") as folder:
        model = make(Path(folder) / "model")
        runner = Runner(Path(folder), model, sounds, params)
        pipe: Any = transformers.pipeline("automatic-speech-recognition", model=str(model), dtype=torch.float32)
        options = {"chunk_length_s": 30, "stride_length_s": 5} | options
        minutes = sum(map(len, sounds)) / RATE / 60
        print(f"Speech: {name}, {len(sounds)} clips, {minutes:.1f} minutes, {torch.get_num_threads()} threads")
        right = transcripts(pipe, sounds, 1, options)
        ratios, cpu_ratios = [], []
        for number in range(1, ROUNDS + 1):
            run_s, run_cpu_s, ours = timed(runner.run)
            pipe_s, pipe_cpu_s, other = timed(partial(transcripts, pipe, sounds, BATCH, options))
            ratios.append(pipe_s / run_s)
            cpu_ratios.append(pipe_cpu_s / run_cpu_s)
            print(f"  round {number}: runner {run_s:.1f} s, pipeline {pipe_s:.1f} s", flush=True)
        tell("right transcripts: runner", equal(ours, right), "all", ours == right)
        tell(f"right transcripts: pipeline at batch {BATCH}", equal(other, right))
        tell(f"{name}: runner over pipeline at batch {BATCH}: CPU time", f"{median(cpu_ratios):.2f}x")
        ratio = median(ratios)
        tell(f"{name}: runner over pipeline at batch {BATCH}", f"{ratio:.2f}x", f">= {TARGET}x", ratio >= TARGET)
    return ours == right


def main() -> bool:
    """Print the comparisons; whether all transcripts were right."""
    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    agreed = compare("Wav2Vec2", make_wav2vec2, {}, {})
    return (
        compare("Whisper", make_whisper, {"num_beams": 1}, {"generate_kwargs": {"num_beams": 1, "task": "transcribe"}})
        and agreed
    )
