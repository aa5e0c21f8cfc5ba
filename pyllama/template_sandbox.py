"""transformers' environment for chat templates, safe for templates that nobody vouches for.

jinja2's sandbox keeps a template from the interpreter, not from `'a' * 10**10`. Here every value
goes through `made`, and loops, calls, filters and tests look at the clock.
"""

from __future__ import annotations

import datetime
import functools
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn

from jinja2 import Template, TemplateError, nodes, pass_context, pass_eval_context
from jinja2.ext import Extension
from jinja2.filters import do_join
from jinja2.lexer import Token, TokenStream
from jinja2.parser import Parser
from jinja2.runtime import Context, markup_join, str_join
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from .template_limits import (
    ELEMENT,
    FILTERS,
    MAX_VALUE,
    MAX_WIDTH,
    METHODS,
    OPERATORS,
    PATHS,
    LimitError,
    check,
    check_path,
    made,
    spend,
    tick,
    too_large,
    weigh,
)  # fmt: skip

MAX_TOKENS = 20_000  # of a template; those of real models have about 500. Compiling so many takes 2 s
MAX_OUTPUT = 16 << 20  # characters of a rendered text


# ---- what transformers gives its templates


def raise_exception(message: str) -> NoReturn:
    """The template refuses its messages."""
    raise TemplateError(message)


def strftime_now(format: str) -> str:
    """The local time."""
    if len(format) > MAX_WIDTH:
        raise LimitError(f"formats the time by {len(format)} characters, expected at most {MAX_WIDTH}")
    return datetime.datetime.now().strftime(format)


def tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON in which nothing is escaped for HTML."""
    encoder = json.JSONEncoder(
        ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
    if indent is None and separators is None:
        return encoder.encode(value)
    if (len(indent) if isinstance(indent, str) else indent or 0) > MAX_WIDTH:
        raise LimitError(f"indents by more than {MAX_WIDTH}")
    return concat(encoder.iterencode(value))


class Generation(Extension):
    """{% generation %} ... {% endgeneration %} marks what the model wrote; here it changes nothing."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        """The body, in a scope of its own."""
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)

    def filter_stream(self, stream: TokenStream) -> Iterator[Token]:
        """The template's tokens, up to MAX_TOKENS of them."""
        for n, token in enumerate(stream):
            if n == MAX_TOKENS:
                raise LimitError(f"has more than {MAX_TOKENS} tokens")
            yield token


# ---- jinja2's own, with a scale


def concat(pieces: Iterable[str]) -> str:
    """The pieces as one text, weighed while they come."""
    size, found = 0, []
    for piece in pieces:
        tick()
        found.append(piece)
        size += len(piece)
        if size > MAX_VALUE:
            too_large()
    spend(size)
    return "".join(found)


@pass_eval_context
def _join(eval_ctx: nodes.EvalContext, value: Any, d: Any = "", attribute: Any = None) -> str:
    items = list(value)
    if weigh(items) + len(items) * len(str(d)) > MAX_VALUE:
        too_large()
    return do_join(eval_ctx, items, d, attribute)


@pass_eval_context
def _tilde(eval_ctx: nodes.EvalContext, values: list[Any]) -> str:
    return markup_join(values) if eval_ctx.autoescape else str_join(values)


class SafeNamespace(Namespace):
    """A namespace whose text does not show what it holds: that is not weighed."""

    def __repr__(self) -> str:
        return "<Namespace>"


def _guarded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The filter between its guard and made()."""
    guard, at = FILTERS.get(name), PATHS.get(name)
    first = int(hasattr(function, "jinja_pass_arg"))  # an argument of jinja2's own comes before

    @functools.wraps(function)
    def run(*args: Any, **named: Any) -> Any:
        check(guard, *args[first:], **named)
        if at is not None:
            check_path(at, args[first + 1 :], named)
        return made(function(*args, **named))

    return run


def _timed(function: Any) -> Any:
    """The test, which looks at the clock."""

    @functools.wraps(function)
    def run(*args: Any, **named: Any) -> Any:
        tick()
        return function(*args, **named)

    return run


class _Hooks(NodeTransformer):
    """Puts made() around values that no hook of the environment sees, and tick() into loops."""

    def _made(self, node: nodes.Expr) -> nodes.Expr:
        self.generic_visit(node)
        return _filter(node, "(made)")

    visit_List = visit_Dict = _made

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Expr:
        """A tuple, where it is a value and not a target."""
        return self._made(node) if node.ctx == "load" else node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        """x[a:b] copies, x[a] does not. Python's compiler would warn of 1[2:]: it is shown a call."""
        if not isinstance(node.arg, nodes.Slice):
            return self.generic_visit(node)
        made_node = self._made(node)
        node.node = _filter(node.node, "(made)")
        return made_node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Expr:
        """a ~ b"""
        self.generic_visit(node)
        return _filter(nodes.List(node.nodes, lineno=node.lineno), "(tilde)")

    def visit_For(self, node: nodes.For) -> nodes.For:
        """Each iteration begins with a look at the clock."""
        self.generic_visit(node)
        look = _filter(nodes.Const(None, lineno=node.lineno), "(tick)")
        node.body.insert(0, nodes.ExprStmt(look, lineno=node.lineno))
        return node


def _filter(node: nodes.Expr, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


class Environment(ImmutableSandboxedEnvironment):
    """What templates are compiled and rendered in. Threads may share it."""

    intercepted_binops = frozenset(ImmutableSandboxedEnvironment.default_binop_table)
    concat = staticmethod(concat)  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[Generation, "jinja2.ext.loopcontrols"],
            optimized=False,  # constants, too, are computed by the render
            finalize=pass_context(lambda context, value: made(value)),
        )
        self.filters.update(tojson=tojson, join=_join)
        self.filters = {name: _guarded(name, function) for name, function in self.filters.items()}
        self.filters |= {"(made)": made, "(tick)": lambda _: tick(), "(tilde)": _guarded("~", _tilde)}
        self.tests = {name: _timed(function) for name, function in self.tests.items()}
        self.globals |= {"raise_exception": raise_exception, "strftime_now": strftime_now}
        self.globals["namespace"] = SafeNamespace
        del self.globals["lipsum"]  # it has loops of its own

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """left operator right"""
        check(OPERATORS.get(operator), left, right)
        return made(self.binop_table[operator](left, right))

    def call(self, context: Context, obj: Any, /, *args: Any, **named: Any) -> Any:
        """A call in the template."""
        spend(ELEMENT * (len(args) + len(named)))
        method = getattr(obj, "__wrapped__", obj)  # jinja2 wraps str.format
        owner, guard = getattr(method, "__self__", None), None
        if isinstance(owner, (str, bytes, int)):
            guard = METHODS.get(method.__name__)
            if method.__name__ == "join" and args and isinstance(args[0], Iterator):
                args = ([*args[0]], *args[1:])
        check(guard, owner, *args, **named)
        return made(super().call(context, obj, *args, **named))

    def compile_text(self, text: str) -> Template:
        """The template of a text. Raises LimitError and what jinja2 raises."""
        return self.from_string(_Hooks().visit(self.parse(text)))


@functools.cache
def environment() -> Environment:
    """The one environment."""
    return Environment()


def render(template: Template, variables: dict[str, Any]) -> str:
    """The text of a template. Raises LimitError and whatever else the template raises."""
    size, found = 0, []
    for piece in template.generate(variables):
        found.append(piece)
        size += len(piece)
        if size > MAX_OUTPUT:
            raise LimitError(f"writes more than {MAX_OUTPUT} characters")
    return "".join(found)
