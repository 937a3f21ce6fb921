"""Which pieces of a block are made at a time? A round: as many as are computed next.

Texts are encoded a block at once, and are one round. A picture or an hour of sound decodes to a lot of data. Such a
record therefore gives its pieces one by one: several records at once in threads, and only as far as the next round.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field

from schemas.errors import Permanent
from workers.handler import Piece


@dataclass
class Round:
    """Pieces that are computed together. `owners` has the number of each piece's record.

    `ended` are the records whose last piece is in the round; `failed` are those whose pieces could not be made. If the
    round is `lazy`, its pieces were made for it alone. If it is `last`, no round of the block follows.
    """

    pieces: list[Piece] = field(default_factory=list)
    owners: list[int] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)
    failed: dict[int, Exception] = field(default_factory=dict)
    cost: int = 0
    lazy: bool = False
    last: bool = False


@dataclass
class _Pulled:
    pieces: list[Piece]
    over: bool = True
    error: Exception | None = None


def rounds(sources: Sequence[tuple[int, Iterable[Piece]]], cost: int, pool: Executor, width: int) -> Iterator[Round]:
    """Yield the records' pieces in order, in rounds of about `cost`. Lists, which are made already, don't count.

    The pool makes the pieces of `width` records at a time. Raise Permanent if making a piece raises it.
    """
    waiting = deque((number, pieces if isinstance(pieces, list) else iter(pieces)) for number, pieces in sources)
    share = max(1, cost // width)
    pulls: deque[tuple[int, Iterator[Piece], Future[_Pulled]]] = deque()
    current = Round()
    while waiting or pulls:
        while waiting and len(pulls) < width and not isinstance(waiting[0][1], list):
            number, source = waiting.popleft()
            assert not isinstance(source, list)
            pulls.append((number, source, pool.submit(_pull, source, share)))
        if not pulls:
            number, listed = waiting.popleft()
            assert isinstance(listed, list)
            _add(current, number, _Pulled(listed))
            continue
        number, source, future = pulls.popleft()
        pulled = future.result()
        _add(current, number, pulled)
        current.lazy = True
        current.cost += sum(piece.cost for piece in pulled.pieces)
        if not pulled.over:
            pulls.appendleft((number, source, pool.submit(_pull, source, share)))
        if current.cost >= cost:
            yield current
            current = Round()
    current.last = True
    yield current


def _pull(source: Iterator[Piece], cost: int) -> _Pulled:
    pulled = _Pulled([], over=False)
    left = cost
    try:
        while left > 0:
            piece = next(source, None)
            if piece is None:
                pulled.over = True
                return pulled
            pulled.pieces.append(piece)
            left -= piece.cost
    except Permanent:
        raise
    except Exception as error:  # noqa: BLE001 (this record's alone; the runner reports it as such)
        return _Pulled([], error=error)
    return pulled


def _add(current: Round, number: int, pulled: _Pulled) -> None:
    if pulled.error is not None:
        current.failed[number] = pulled.error
        return
    current.pieces += pulled.pieces
    current.owners += [number] * len(pulled.pieces)
    if pulled.over:
        current.ended.append(number)
