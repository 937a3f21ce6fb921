"""Which rows does a condition such as `score < 0.5 and not truncated` stand for? It becomes a pyarrow expression.

The condition is written as in Python and read by Python's own parser; nothing of it is run. Allowed are columns,
numbers, texts, comparisons, `and`, `or`, `not`, `in`, `is None`, arithmetic, and the functions below. A name is a
column's or, if there is no such column, a field's of the prediction; `prediction.score`, `error.code` and `col("a
name")` say which.
A comparison with null is neither true nor false, as in SQL.
"""

import ast
from collections.abc import Callable, Iterable, Iterator

import pyarrow as pa
import pyarrow.compute as pc

from schemas.errors import SpecError

#: Characters of a condition, and things in it.
_LONGEST, _MOST = 10_000, 300

_COMPARE: dict[type[ast.cmpop], Callable[[pc.Expression, pc.Expression], pc.Expression]] = {
    ast.Lt: lambda a, b: a < b,
    ast.LtE: lambda a, b: a <= b,
    ast.Gt: lambda a, b: a > b,
    ast.GtE: lambda a, b: a >= b,
    ast.Eq: lambda a, b: a == b,
    ast.NotEq: lambda a, b: a != b,
}
_ARITHMETIC: dict[type[ast.operator], Callable[[pc.Expression, pc.Expression], pc.Expression]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: pc.divide(a.cast(pa.float64()), b.cast(pa.float64())),
}
#: Functions of a text or a number.
_FUNCTIONS: dict[str, Callable[[pc.Expression], pc.Expression]] = {
    "abs": pc.abs,
    "lower": pc.utf8_lower,
    "upper": pc.utf8_upper,
    "isnan": pc.is_nan,
}
#: Functions of a text and a piece of it, which is written out.
_PIECES: dict[str, Callable[..., pc.Expression]] = {
    "contains": pc.match_substring,
    "startswith": pc.starts_with,
    "endswith": pc.ends_with,
}
_KNOWN = sorted([*_FUNCTIONS, *_PIECES, "col", "len"])


class Where:
    """A condition. Raise SpecError if it can't be read."""

    def __init__(self, text: str) -> None:
        if len(text) > _LONGEST:
            raise SpecError.of("where", f"{len(text):,} characters; {_LONGEST:,} are allowed")
        try:
            tree = ast.parse(text.strip(), mode="eval")
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            why = error.msg if isinstance(error, SyntaxError) else str(error)
            raise SpecError.of("where", f"{text!r} can't be read: {why}; write a condition like score < 0.5") from None
        if sum(1 for _ in ast.walk(tree)) > _MOST:
            raise SpecError.of("where", f"the condition has more than {_MOST:,} parts")
        self._text = text
        self._body = tree.body
        self._schema: pa.Schema | None = None
        self._expression: pc.Expression | None = None

    def filtered(self, batches: Iterable[pa.RecordBatch], prediction: str = "prediction") -> Iterator[pa.RecordBatch]:
        """Yield the rows for which the condition is true. `prediction` is the column of that.

        Raise SpecError if the condition doesn't fit the columns.
        """
        for batch in batches:
            found = self._matching(batch, prediction)
            if found.num_rows:
                yield from found.combine_chunks().to_batches()

    def _matching(self, batch: pa.RecordBatch, prediction: str) -> pa.Table:
        plain = pa.Table.from_batches([batch])
        looked_at = _without_dictionaries(plain)
        if self._expression is None or self._schema is None or not looked_at.schema.equals(self._schema):
            self._schema = looked_at.schema
            self._expression = _Compiler(looked_at.schema, self._text, prediction).compiled(self._body)
        try:
            numbered = looked_at.append_column(_PLACE, pa.array(range(looked_at.num_rows), pa.int64()))
            return plain.take(numbered.filter(self._expression)[_PLACE])
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError, pa.ArrowKeyError) as error:
            raise SpecError.of("where", f"{self._text!r} doesn't fit the columns: {error}") from None


#: A column of ours, which no part has.
_PLACE = "\0place"


def _without_dictionaries(table: pa.Table) -> pa.Table:
    for place, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            table = table.set_column(place, field.name, table[field.name].cast(field.type.value_type))
    return table


class _Compiler:
    def __init__(self, schema: pa.Schema, text: str, prediction: str) -> None:
        self._schema = schema
        self._text = text
        self._prediction = prediction

    def compiled(self, node: ast.expr) -> pc.Expression:
        """Return the condition as an expression that is true or false."""
        expression, arrow = self._value(node)
        if arrow is not None and not pa.types.is_boolean(arrow):
            raise self._refused(node, f"is {arrow}, not a condition")
        return expression

    def _value(self, node: ast.expr) -> tuple[pc.Expression, pa.DataType | None]:
        """Return an expression, and the type of a column."""
        if isinstance(node, ast.Constant):
            if isinstance(node.value, str | bool | int | float) or node.value is None:
                return pc.scalar(node.value), None
        elif isinstance(node, ast.Name | ast.Attribute):
            return self._column(self._path(node), node)
        elif isinstance(node, ast.BoolOp):
            values = [self.compiled(value) for value in node.values]
            joined = values[0]
            for value in values[1:]:
                joined = joined & value if isinstance(node.op, ast.And) else joined | value
            return joined, pa.bool_()
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return ~self.compiled(node.operand), pa.bool_()
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            if isinstance(node.operand, ast.Constant) and isinstance(node.operand.value, int | float):
                return pc.scalar(-node.operand.value), None
            return pc.negate(self._value(node.operand)[0]), None
        elif isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
            return _ARITHMETIC[type(node.op)](self._value(node.left)[0], self._value(node.right)[0]), None
        elif isinstance(node, ast.Compare):
            return self._compared(node), pa.bool_()
        elif isinstance(node, ast.Call):
            return self._called(node)
        raise self._refused(node, "isn't allowed here")

    def _compared(self, node: ast.Compare) -> pc.Expression:
        found: pc.Expression | None = None
        left = node.left
        for operator, right in zip(node.ops, node.comparators, strict=True):
            one = self._pair(left, operator, right)
            found = one if found is None else found & one
            left = right
        assert found is not None
        return found

    def _pair(self, left: ast.expr, operator: ast.cmpop, right: ast.expr) -> pc.Expression:
        value, _ = self._value(left)
        is_none = isinstance(right, ast.Constant) and right.value is None
        if is_none and isinstance(operator, ast.Is | ast.Eq):
            return value.is_null()
        if is_none and isinstance(operator, ast.IsNot | ast.NotEq):
            return value.is_valid()
        if isinstance(operator, ast.In | ast.NotIn):
            if not isinstance(right, ast.List | ast.Tuple | ast.Set) or not right.elts:
                raise self._refused(right, "isn't a list of values; write label in ['A', 'B']")
            found = [self._constant(item) for item in right.elts]
            is_in = value == pc.scalar(found[0])
            for item in found[1:]:
                is_in = is_in | (value == pc.scalar(item))
            return ~is_in if isinstance(operator, ast.NotIn) else is_in
        compare = _COMPARE.get(type(operator))
        if compare is None:
            raise self._refused(right, "can only be compared by < <= > >= == != in, or `is None`")
        return compare(value, self._value(right)[0])

    def _called(self, node: ast.Call) -> tuple[pc.Expression, pa.DataType | None]:
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if node.keywords or name not in _KNOWN:
            raise self._refused(node.func, f"is no function here; there are {', '.join(_KNOWN)}")
        if len(node.args) != (2 if name in _PIECES else 1):
            raise self._refused(node, "has the wrong number of arguments")
        if name == "col":
            return self._column([str(self._constant(node.args[0]))], node)
        value, arrow = self._value(node.args[0])
        if name in _PIECES:
            return _PIECES[name](value, pattern=str(self._constant(node.args[1]))), pa.bool_()
        if name == "len":
            is_list = arrow is not None and (pa.types.is_list(arrow) or pa.types.is_large_list(arrow))
            return (pc.list_value_length if is_list else pc.utf8_length)(value), None
        return _FUNCTIONS[name](value), pa.bool_() if name == "isnan" else None

    def _constant(self, node: ast.expr) -> str | int | float | bool:
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant):
            inner = node.operand.value
            if isinstance(inner, int | float):
                return -inner
        if isinstance(node, ast.Constant) and isinstance(node.value, str | int | float | bool):
            return node.value
        raise self._refused(node, "isn't a number or a text that is written out")

    def _path(self, node: ast.expr) -> list[str]:
        if isinstance(node, ast.Attribute):
            return [*self._path(node.value), node.attr]
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "col" and node.args:
            return [str(self._constant(node.args[0]))]
        if isinstance(node, ast.Name):
            return [node.id]
        raise self._refused(node, "isn't a column")

    def _column(self, path: list[str], node: ast.expr) -> tuple[pc.Expression, pa.DataType]:
        """Return a column, or a field in one. A name that isn't a column's may be a field's of the prediction."""
        for whole in (path, [self._prediction, *path]):
            arrow = self._type_of(whole)
            if arrow is not None:
                return pc.field(*whole), arrow
        names = ", ".join(map(repr, self._schema.names))
        inner = self._type_of([self._prediction])
        fields = ", ".join(repr(inner.field(i).name) for i in range(inner.num_fields)) if inner is not None else ""
        raise self._refused(node, f"is no column; there are {names}, and of the prediction {fields}")

    def _type_of(self, path: list[str]) -> pa.DataType | None:
        if path[0] not in self._schema.names:
            return None
        arrow = self._schema.field(path[0]).type
        for name in path[1:]:
            if not pa.types.is_struct(arrow) or arrow.get_field_index(name) < 0:
                return None
            arrow = arrow.field(name).type
        return arrow

    def _refused(self, node: ast.expr, why: str) -> SpecError:
        return SpecError.of("where", f"{ast.unparse(node)!r} in {self._text!r} {why}")
