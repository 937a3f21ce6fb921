"""A picture of a comparison: what became of the rows, how the values are spread, and which labels changed.

Drawn once as rectangles, lines and texts, which are then written as SVG or, with Pillow, as PNG.
"""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np

from jobs.results.compare import Comparison
from schemas.errors import SpecError
from schemas.extras import missing_extra

WIDTH, MARGIN, LINE = 720, 24, 20
INK, PALE, BAR, OTHER, PAPER = "#191c21", "#787e87", "#3a7ca5", "#b22222", "#fafaf8"
BINS = 24
#: Labels of a matrix; characters of one.
_LABELS, _CHARACTERS = 10, 14
_TEXT = 13


@dataclass
class Canvas:
    """What is drawn: rectangles as (x, y, width, height, colour), lines, and texts as (x, y, text, anchor, colour)."""

    height: float = MARGIN
    rectangles: list[tuple[float, float, float, float, str]] = field(default_factory=list)
    texts: list[tuple[float, float, str, str, str]] = field(default_factory=list)

    def rectangle(self, x: float, y: float, width: float, height: float, colour: str) -> None:
        self.rectangles.append((x, y, max(width, 0.0), max(height, 0.0), colour))

    def text(self, x: float, y: float, text: str, anchor: str = "start", colour: str = INK) -> None:
        """Write a line of text whose base line is at `y`. `anchor` is start, middle or end."""
        self.texts.append((x, y, "".join(c if c.isprintable() else " " for c in text), anchor, colour))

    def heading(self, text: str) -> None:
        self.height += LINE
        self.text(MARGIN, self.height, text)
        self.height += LINE / 2

    def svg(self) -> str:
        """Return the picture as SVG."""
        height = self.height + MARGIN
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height:.0f}" '
            f'viewBox="0 0 {WIDTH} {height:.0f}" font-family="sans-serif" font-size="{_TEXT}">',
            f'<rect width="{WIDTH}" height="{height:.0f}" fill="{PAPER}"/>',
        ]
        for x, y, width, tall, colour in self.rectangles:
            parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{tall:.1f}" fill="{colour}"/>')
        for x, y, text, anchor, colour in self.texts:
            parts.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>')
        return "\n".join([*parts, "</svg>\n"])

    def save_png(self, file: Path, scale: int = 2) -> None:
        """Write the picture as PNG. Raise Permanent (`missing_extra`) if Pillow isn't installed."""
        try:
            from PIL import Image, ImageDraw, ImageFont
        except ImportError as error:
            raise missing_extra("drawing", "vision", error) from error
        image = Image.new("RGB", (WIDTH * scale, round(self.height + MARGIN) * scale), PAPER)
        pen, font = ImageDraw.Draw(image), ImageFont.load_default(_TEXT * scale)
        for x, y, width, tall, colour in self.rectangles:
            left, top = round(x * scale), round(y * scale)
            right, bottom = round((x + width) * scale) - 1, round((y + tall) * scale) - 1
            if left <= right and top <= bottom:
                pen.rectangle((left, top, right, bottom), fill=colour)
        for x, y, text, anchor, colour in self.texts:
            at = {"start": "ls", "middle": "ms", "end": "rs"}[anchor]
            pen.text((x * scale, y * scale), text, fill=colour, font=font, anchor=at)
        image.save(file, "PNG")


def plot(found: Comparison, title: str, file: Path) -> None:
    """Draw a comparison into a file whose name ends in .svg or .png. Raise SpecError for another name."""
    if file.suffix not in (".svg", ".png"):
        raise SpecError.of("plot", f"{file} has to end in .svg or .png")
    canvas = drawn(found, title)
    if file.suffix == ".png":
        canvas.save_png(file)
    else:
        file.write_text(canvas.svg(), encoding="utf-8")


def drawn(found: Comparison, title: str) -> Canvas:
    """Return the picture of a comparison."""
    canvas = Canvas()
    canvas.heading(title)
    _outcomes(canvas, found)
    if found.values:
        canvas.height += LINE
        canvas.heading(f"{found.measure.value}, of {len(found.values):,} rows")
        _histogram(canvas, np.asarray(found.values))
    if found.changed:
        canvas.height += LINE
        _matrix(canvas, found)
    return canvas


def _outcomes(canvas: Canvas, found: Comparison) -> None:
    """Draw a bar for each thing that became of rows, to one scale from 0."""
    errors: Counter[str] = Counter()
    for (a, b), count in found.errors.items():
        errors["error in both" if a and b else "error in A" if a else "error in B"] += count
    bars = {
        f"same {found.measure.kind}": found.same,
        f"another {found.measure.kind}": found.answered - found.same,
        **errors,
        "only in A": found.only_a,
        "only in B": found.only_b,
        "without a clear key": found.no_key,
    }
    shown = {name: count for name, count in bars.items() if count or name.startswith(("same", "another"))}
    left, total, most = 190, found.rows + found.only_a + found.only_b + found.no_key, max(*shown.values(), 1)
    for place, (name, count) in enumerate(shown.items()):
        canvas.height += LINE
        width = (WIDTH - left - 150) * count / most
        canvas.text(left - 8, canvas.height, name, "end")
        canvas.rectangle(left, canvas.height - LINE + 8, width, LINE - 6, BAR if place == 0 else OTHER)
        canvas.text(left + width + 6, canvas.height, f"{count:,} ({count / max(total, 1):.1%})", colour=PALE)


def _histogram(canvas: Canvas, values: np.ndarray, height: float = 140) -> None:
    """Draw how many rows have which value. Both axes are labelled with their ends."""
    low, high = float(values.min()), float(values.max())
    if low == high:
        low, high = low - 0.5, high + 0.5
    counts, edges = np.histogram(values, BINS, (low, high))
    left, width = 70, WIDTH - 70 - MARGIN
    top, bottom = canvas.height + 6, canvas.height + 6 + height
    for place, count in enumerate(counts):
        tall = height * count / counts.max()
        canvas.rectangle(left + width * place / BINS + 1, bottom - tall, width / BINS - 2, tall, BAR)
    canvas.rectangle(left, bottom, width, 1, INK)
    canvas.text(left - 8, top + 10, f"{counts.max():,}", "end", PALE)
    canvas.text(left - 8, bottom, "0", "end", PALE)
    for place in (0, BINS // 2, BINS):
        anchor = {0: "start", BINS: "end"}.get(place, "middle")
        canvas.text(left + width * place / BINS, bottom + 18, f"{edges[place]:.4g}", anchor, PALE)
    canvas.text(left, bottom + 36, f"mean {values.mean():.4g}, median {np.median(values):.4g}", colour=PALE)
    canvas.height = bottom + 40


def _matrix(canvas: Canvas, found: Comparison) -> None:
    """Draw how many rows have which label in A (down) and in B (across): the most frequent labels, the rest as one."""
    totals: Counter[str] = Counter()
    for (a, b), count in found.labels.items():
        totals[a] += count
        totals[b] += count
    names = [name for name, _ in totals.most_common(_LABELS)]
    rest = len(totals) - len(names)
    rows = [*names, "others"] if rest else names
    counts: Counter[tuple[str, str]] = Counter()
    for (a, b), count in found.labels.items():
        counts[a if a in names else "others", b if b in names else "others"] += count
    canvas.heading(
        "labels: A down, B across, in rows; shaded by the square root"
        + (f"; {rest:,} labels together as others" if rest else "")
    )
    left = 130
    wide = min(90.0, (WIDTH - left - MARGIN) / len(rows))
    canvas.height += LINE
    fits = max(3, int(wide / 9))
    for across, name in enumerate(rows):
        canvas.text(left + wide * (across + 0.5), canvas.height, _cut(name, fits), "middle", PALE)
    canvas.height += 6
    most = max(counts.values())
    for a in rows:
        canvas.text(left - 8, canvas.height + 16, _cut(a, _CHARACTERS), "end", PALE)
        for across, b in enumerate(rows):
            count = counts[a, b]
            # By the root, so that a few changed rows are seen beside many equal ones.
            shade = (count / most) ** 0.5
            colour = _mixed(BAR if a == b else OTHER, shade)
            canvas.rectangle(left + wide * across + 1, canvas.height + 1, wide - 2, LINE + 2, colour)
            if count:
                ink = PAPER if shade > 0.6 else INK
                canvas.text(left + wide * (across + 0.5), canvas.height + 17, f"{count:,}", "middle", ink)
        canvas.height += LINE + 4


def _mixed(colour: str, share: float) -> str:
    """Return so much of the colour in so much of the paper's."""
    ends = [[int(text[i : i + 2], 16) for i in (1, 3, 5)] for text in ("#ececea", colour)]
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in zip(*ends, strict=True))


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
