"""Results to look at: a job's first records as pictures, each with its prediction drawn on it.

Only for tasks over pictures and sound. What draws is imported when it is used: it needs the extra `vision`, and for
sound `audio`.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from schemas.errors import NightshiftError, SpecError
from schemas.extras import missing_extra
from schemas.output import OwnColumns
from schemas.task import Kind, Task

Row = dict[str, Any]


def render(
    task: Task, rows: Iterable[Row], fetch: Callable[[Row], bytes], folder: Path, own: OwnColumns
) -> Iterator[Path]:
    """Write a PNG for each output row into `folder`, `00000.png` and so on. Yield each file once it is written.

    `fetch` returns the bytes of a row's source media. A row with an error, or whose source is gone or can't be read,
    becomes a picture of what is wrong. Raise SpecError for a task over text, Permanent (`missing_extra`) if a package
    for drawing isn't installed.
    """
    if task.media is None:
        raise SpecError.of("render", f"{task.id} is over text: there is nothing to draw")
    draw = _drawer(task, own)
    folder.mkdir(parents=True, exist_ok=True)
    for number, row in enumerate(rows):
        file = folder / f"{number:05d}.png"
        draw(row, fetch).save(file)
        yield file


def _drawer(task: Task, own: OwnColumns) -> Callable[[Row, Callable[[Row], bytes]], Any]:
    try:
        from PIL.Image import DecompressionBombError

        from jobs.results.drawing import ALARM, card

        sketch: Callable[[bytes, Row], Any]
        if task.media is not None and task.media.kind is Kind.AUDIO:
            from jobs.results.waveform import draw_clip as sketch
        else:
            sketch = _picture(task.id)
    except ImportError as error:
        raise missing_extra("drawing", "vision,audio", error) from error

    def draw(row: Row, fetch: Callable[[Row], bytes]) -> Any:
        place = f"{row[own.source_uri]}, row {row[own.source_row]}"
        error = row[own.error]
        if error is not None:
            return card([f"error {error['code']}", error["message"], place], ALARM)
        try:
            return sketch(fetch(row), row[own.prediction])
        except (NightshiftError, OSError, ValueError, DecompressionBombError) as cause:
            return card([f"the original can't be drawn: {cause}", place], ALARM)

    return draw


def _picture(task: str) -> Callable[[bytes, Row], Any]:
    """Return the picture with a prediction of this task drawn on it, or written below it."""
    from jobs.results import drawing

    if task == "image-segmentation":
        import pycocotools.mask  # noqa: F401 (if it is missing, say so before anything is read)
    own = {
        "object-detection": drawing.draw_objects,
        "image-segmentation": drawing.draw_segments,
        "depth-estimation": drawing.draw_depth,
    }
    if task in own:
        return lambda data, prediction: own[task](drawing.original(data), prediction)
    return lambda data, prediction: drawing.captioned(drawing.original(data), _lines(prediction))


def _lines(prediction: Row) -> list[str]:
    """Return a prediction as a few lines of text."""
    if "top" in prediction:
        return [f"{found['label']}  {found['score']:.3f}" for found in prediction["top"]]
    if "embedding" in prediction:
        first = ", ".join(f"{number:.3f}" for number in prediction["embedding"][:6])
        return [f"{len(prediction['embedding'])} numbers: {first}, …"]
    return [f"{name}: {value}" for name, value in prediction.items()]
