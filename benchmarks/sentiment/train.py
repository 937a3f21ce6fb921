"""Train the demo job's sentiment classifier: the small delta that turns all-MiniLM-L6-v2 into one.

Only the last encoder layer, the pooler and the classifier of a BertForSequenceClassification learn;
the embeddings and the layers before stay those of the base, so the output file (the delta) holds
just the learned tensors, as float16. `assemble` says how base and delta become one model again.
README.md beside this file has the command, the data and the accuracy.
"""

import argparse
import hashlib
import random
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoConfig, AutoTokenizer, BertForSequenceClassification

LABELS = {0: "NEGATIVE", 1: "POSITIVE"}
MIN_SCORE = 0.5  # the mean human score runs from -4 to 4; nearer to 0 than this, a sentence is left out
MAX_TOKENS = 64
BATCH = 32  # sentences a step


def read_sentences(path: Path) -> dict[str, int]:
    """The clearly judged sentences of one ground-truth file (id, mean score, text): text -> label 0 or 1."""
    rows = (line.split("\t") for line in path.read_text(encoding="utf-8").split("\n") if line)
    return {text: int(float(score) > 0) for _, score, text in rows if abs(float(score)) >= MIN_SCORE}


def held_out(texts: Iterable[str], count: int = 1000) -> list[str]:
    """The `count` distinct texts whose SHA-256 (of their UTF-8 bytes) sorts first: never trained on."""
    return sorted(set(texts), key=lambda text: hashlib.sha256(text.encode()).hexdigest())[:count]


def assemble(base: dict[str, torch.Tensor], delta: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The classifier's state dict: the base's tensors under "bert.", those in the delta replaced by it."""
    state = {"bert." + name: tensor for name, tensor in base.items()}
    return state | {name: tensor.float() for name, tensor in delta.items()}


def load_model(base: Path, delta: dict[str, torch.Tensor]) -> BertForSequenceClassification:
    """The classifier in evaluation mode; with an empty delta, its classifier is freshly initialised."""
    config = AutoConfig.from_pretrained(base, id2label=LABELS, label2id={v: k for k, v in LABELS.items()})
    model = BertForSequenceClassification(config)
    state = assemble(load_file(base / "model.safetensors"), delta)
    state.pop("bert.embeddings.position_ids", None)  # a buffer that older transformers saved
    missing, unexpected = model.load_state_dict(state, strict=False)
    if unexpected or (missing and delta):
        raise SystemExit(f"base and delta do not fit: missing {missing}, unexpected {unexpected}")
    model.train(False)
    return model


def batches(texts: list[str], mixing: float = 0.0) -> list[list[int]]:
    """Indices of all texts in groups of BATCH with like lengths, so that little padding is computed.

    With `mixing`, each length counts as up to that share longer, by chance: new groups at every call.
    """
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]) * (1 + mixing * random.random()))
    return [order[i : i + BATCH] for i in range(0, len(order), BATCH)]


@torch.inference_mode()
def accuracy(model: Any, tokenizer: Any, labelled: dict[str, int]) -> float:
    """The share (0 to 1) of the labelled texts to which the model gives their label."""
    texts, right = list(labelled), 0
    for group in batches(texts):
        chosen = [texts[i] for i in group]
        inputs = tokenizer(chosen, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
        guesses = model(**inputs).logits.argmax(-1).tolist()
        right += sum(guess == labelled[text] for guess, text in zip(guesses, chosen, strict=True))
    return right / len(texts)


@torch.no_grad()
def frozen_states(model: Any, tokenizer: Any, texts: list[str]) -> list[torch.Tensor]:
    """What the last encoder layer gets for each text: float32, (tokens of the text, hidden size)."""
    states: list[torch.Tensor] = [torch.empty(0)] * len(texts)
    for group in batches(texts):
        chosen = [texts[i] for i in group]
        inputs = tokenizer(chosen, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
        hidden = model.bert(**inputs, output_hidden_states=True).hidden_states[-2]
        for i, row, mask in zip(group, hidden, inputs["attention_mask"], strict=True):
            states[i] = row[: int(mask.sum())].clone()
    return states


def train(model: Any, tokenizer: Any, labelled: dict[str, int], epochs: int, rate: float) -> None:
    """Fit the last layer, the pooler and the classifier in place; `rate` is the highest learning rate."""
    texts, labels = list(labelled), torch.tensor(list(labelled.values()))
    states = frozen_states(model, tokenizer, texts)
    layer = model.bert.encoder.layer[-1]
    learned = [p for part in (layer, model.bert.pooler, model.classifier) for p in part.parameters()]
    optimizer = torch.optim.AdamW(learned, lr=rate, weight_decay=0.01)
    steps = epochs * len(batches(texts))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
    model.train()
    for epoch in range(epochs):
        groups, losses = batches(texts, mixing=0.5), 0.0
        random.shuffle(groups)
        for group in groups:
            hidden = pad_sequence([states[i] for i in group], batch_first=True)
            lengths = torch.tensor([len(states[i]) for i in group])
            mask = (torch.arange(hidden.shape[1]) < lengths[:, None])[:, None, None, :]
            pooled = model.bert.pooler(layer(hidden, mask))
            loss = torch.nn.functional.cross_entropy(model.classifier(model.dropout(pooled)), labels[group])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            losses += loss.item()
        print(f"epoch {epoch + 1} of {epochs}: mean loss {losses / len(groups):.3f}", flush=True)
    model.train(False)


def main() -> None:
    """Train, write the delta, and measure it on the held-out snippets as read back from its file."""
    parser = argparse.ArgumentParser(description="Train the demo job's sentiment delta.")
    parser.add_argument("--base", type=Path, required=True, help="model folder of all-MiniLM-L6-v2")
    parser.add_argument("--data", type=Path, required=True, help="folder hutto_ICWSM_2014 of vaderSentiment")
    parser.add_argument("--output", type=Path, required=True, help="the delta to write (.safetensors)")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--rate", type=float, default=5e-4, help="highest learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dev", action="store_true", help="hold back 1,000 more snippets and score on those")
    args = parser.parse_args()

    began = time.monotonic()
    torch.set_num_threads(1)  # sums in one order, so the same seed gives the same file
    torch.manual_seed(args.seed)
    random.seed(args.seed)
    movies = read_sentences(args.data / "movieReviewSnippets_GroundTruth.txt")
    products = read_sentences(args.data / "amazonReviewSnippets_GroundTruth.txt")
    unseen = held_out(movies, 2000 if args.dev else 1000)
    barred = {text.lower() for text in unseen}  # the base does not see case: nor does this
    training = {text: label for text, label in (products | movies).items() if text.lower() not in barred}
    tested = {text: movies[text] for text in unseen[-1000:]}
    print(f"{len(training)} sentences to train on, {len(tested)} held out", flush=True)

    tokenizer = AutoTokenizer.from_pretrained(args.base)
    model = load_model(args.base, {})
    train(model, tokenizer, training, args.epochs, args.rate)
    learned = ("bert.encoder.layer.5.", "bert.pooler.", "classifier.")
    delta = {name: t.half() for name, t in model.state_dict().items() if name.startswith(learned)}
    args.output.parent.mkdir(parents=True, exist_ok=True)
    save_file(delta, args.output, metadata={"format": "pt"})

    share = accuracy(load_model(args.base, load_file(args.output)), tokenizer, tested)
    print(f"{len(delta)} tensors, {args.output.stat().st_size} bytes: {args.output}")
    print(f"held-out accuracy {share:.1%}, {time.monotonic() - began:.0f} s in all")


if __name__ == "__main__":
    main()
