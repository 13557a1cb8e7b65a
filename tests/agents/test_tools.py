"""Tools: what a model is told about a function, and what reaches the function."""

from __future__ import annotations

import asyncio
import datetime
import enum
import functools
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from optograph.agents import Tool
from optograph.agents.calling import Action, menu_schema, menu_text, read_call, shape, write_call
from optograph.agents.tools import result_text, use
from optograph.errors import ModelError, UserError
from optograph.graphs import OpError, Parameter, op
from optograph.serving import run_sync


class Size(BaseModel):
    """A size."""

    width: float
    height: float


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


def order(
    item: Annotated[str, Field(description="what to order")],
    when: datetime.date,
    size: Size,
    colour: Colour = Colour.RED,
    count: int = 1,
) -> str:
    """Order something
    from the shop.

    Args:
        item: Not for the model.
    """
    return f"{count} {colour.value} {item} of {size.width:g} x {size.height:g} on {when.isoformat()}"


GOOD = {"item": "rug", "when": "2026-03-01", "size": {"width": "2", "height": 3}}


def test_the_description_is_the_docstring_without_its_sections() -> None:
    assert Tool(order).description == "Order something from the shop."
    assert Tool(order, description="Buy.").description == "Buy."


def test_arguments_reach_the_function_with_their_types() -> None:
    tool = Tool(order)
    checked = tool.check(GOOD)
    assert checked == {"item": "rug", "when": datetime.date(2026, 3, 1), "size": Size(width=2, height=3)}
    assert order(**checked) == "1 red rug of 2 x 3 on 2026-03-01"
    assert tool.check({**GOOD, "colour": "blue"})["colour"] is Colour.BLUE


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"when": "tomorrow"}, "when: "),
        ({"size": {"width": 1}}, "size.height: Field required"),
        ({"price": 3}, "price: Extra inputs are not permitted"),
        ({"colour": "green"}, "colour: "),
    ],
)
def test_wrong_arguments_say_what_is_wrong(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        Tool(order).check({**GOOD, **change})
    assert "'order'" in str(caught.value)


def test_the_schema_names_the_arguments_even_where_pydantic_wants_the_name_itself() -> None:
    def odd(copy: str, model_config: int, _json: bool = True) -> str:
        """Use odd names."""
        return f"{copy}{model_config}{_json}"

    tool = Tool(odd)
    assert list(tool.schema["properties"]) == ["copy", "model_config", "_json"]
    assert odd(**tool.check({"copy": "a", "model_config": 1})) == "a1True"


def test_a_default_that_json_cannot_hold_is_left_to_the_function() -> None:
    def look(where: list[str] | None = None, since: datetime.date = datetime.date(2026, 1, 1)) -> str:
        """Look."""
        return f"{where} {since}"

    assert look(**Tool(look).check({})) == "None 2026-01-01"


class Shop:
    def __init__(self) -> None:
        self.tax = Parameter(0.1, name="shop.tax")

    def price(self, net: float) -> float:
        """Give the price."""
        return float(net * (1 + self.tax.data))

    @staticmethod
    async def wait(seconds: float) -> str:
        """Wait."""
        await asyncio.sleep(seconds)
        return "waited"


def test_methods_partials_and_ops_are_tools() -> None:
    assert list(Tool(Shop().price).schema["properties"]) == ["net"]
    part = Tool(functools.partial(order, item="rug"), name="order_rug", description="Order a rug.")
    assert part.schema["required"] == ["when", "size"]

    @op(name="own")
    def doubled(x: int) -> int:
        """Double a number."""
        return 2 * x

    traced = Tool(doubled).traced("agent.doubled")
    assert traced.info.name == "own"
    assert asyncio.run(use(traced, {"x": 4})).data == 8


def test_a_sync_tool_runs_in_a_thread_and_an_async_one_on_the_loop() -> None:
    def where() -> str:
        """Tell the thread."""
        return threading.current_thread().name

    async def where_async() -> str:
        """Tell the thread."""
        return threading.current_thread().name

    async def both() -> list[str]:
        sync, other = Tool(where), Tool(where_async)
        values = [
            await use(sync.traced("a.where"), {}),
            await use(other.traced("a.where"), {}),
        ]
        return [value.data for value in values]

    assert asyncio.run(both()) == ["optograph-blocking", "MainThread"]
    assert Tool(Shop.wait).is_async


def test_what_a_tool_reads_is_an_ancestor_of_its_result() -> None:
    shop = Shop()
    tool = Tool(shop.price)
    value = asyncio.run(use(tool.traced("a.price"), {"net": 10.0}))
    assert "shop.tax" in {parent.name for parent in value.parents}


def test_a_failing_tool_is_a_traced_failure_with_its_line() -> None:
    def broken(x: int) -> float:
        """Break."""
        return 1 / x

    with pytest.raises(OpError, match="division by zero") as caught:
        asyncio.run(use(Tool(broken).traced("a.broken"), {"x": 0}))
    assert caught.value.value.data["line"].startswith("return 1 / x")


def logged(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator that hides that a function is async."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return call


def test_an_async_function_below_a_sync_decorator_is_awaited() -> None:
    shop = Shop()

    @logged
    async def halve(net: float) -> float:
        """Halve a price."""
        await asyncio.sleep(0)
        return float(shop.tax.data / net)

    def quarter(net: float) -> Any:
        """Halve half a price."""
        return halve(2 * net)

    async def both() -> list[Any]:
        return [await use(Tool(one).traced("a.part"), {"net": 2.0}) for one in (halve, quarter)]

    first, second = asyncio.run(both())
    assert (first.data, second.data) == (shop.tax.data / 2, shop.tax.data / 4)
    assert all("shop.tax" in {parent.name for parent in one.parents} for one in (first, second))
    with pytest.raises(OpError, match="division by zero") as caught:
        asyncio.run(use(Tool(halve).traced("a.halve"), {"net": 0.0}))
    assert caught.value.value.data["line"].startswith("return float(shop.tax.data / net)")
    with pytest.raises(UserError, match="put @op next to its async function"):
        asyncio.run(use(Tool(op(halve)).traced("a.halve"), {"net": 1.0}))


def test_an_op_below_a_sync_decorator_is_awaited() -> None:
    @logged
    @op(name="own")
    async def halve(net: float) -> float:
        """Halve a price."""
        return net / 2

    assert asyncio.run(use(Tool(halve).traced("a.halve"), {"net": 1.0})).data == 0.5


def test_a_tool_that_raises_stop_iteration_does_not_hang() -> None:
    def first(start: str) -> str:
        """Find a word."""
        return next(word for word in ("a", "b") if word.startswith(start))

    with pytest.raises(OpError, match="first raised StopIteration"):
        asyncio.run(asyncio.wait_for(use(Tool(first).traced("a.first"), {"start": "x"}), 20))


@pytest.mark.parametrize("is_async", [False, True])
def test_a_tool_that_calls_exit_does_not_end_the_process(is_async: bool) -> None:
    def leave(code: int) -> None:
        """Leave."""
        raise SystemExit(code)

    async def leave_async(code: int) -> None:
        """Leave."""
        raise SystemExit(code)

    tool = Tool(leave_async if is_async else leave)
    with pytest.raises(RuntimeError, match=r"exit\(3\)"):
        run_sync(use(tool.traced("a.leave"), {"code": 3}))
    assert run_sync(asyncio.sleep(0, "alive")) == "alive"


def undocumented(x: int) -> int:
    return x


def untyped(x) -> int:  # type: ignore[no-untyped-def]
    """Return it."""
    return int(x)


def starred(*numbers: int) -> int:
    """Add."""
    return sum(numbers)


def unfit(x: Callable[[], int]) -> int:
    """Call."""
    return x()


def words(text: str) -> Iterator[str]:
    """Give the words one by one."""
    yield from text.split()


async def words_async(text: str) -> AsyncIterator[str]:
    """Give the words one by one."""
    yield text


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (words, "'words' is a generator"),
        (words_async, "'words_async' is a generator"),
        (undocumented, "needs a description"),
        (untyped, "argument 'x' of tool 'untyped' has no type"),
        (starred, "given by name"),
        (unfit, "a type that JSON cannot hold"),
        (lambda: 1, "letters, digits"),
        (Size, "a tool is a function"),
        (3, "a tool is a function"),
    ],
)
def test_unfit_functions_are_refused(function: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Tool(function)


ACTIONS = (
    Tool(order).action("Orders."),
    Action("stop", "Stops.", {"type": "object", "properties": {}}),
)


def test_the_menu_shows_each_call_as_it_is_to_be_written() -> None:
    text = menu_text(ACTIONS)
    assert (
        '- {"order": {"item": string (what to order), "when": string, "size": {"width": number, "height": number}, '
        '"colour": "red" | "blue" (optional), "count": integer (optional)}}: Orders.\n- {"stop": {}}: Stops.'
    ) in text


def test_the_schema_of_the_menu_closes_every_object_and_keeps_the_definitions_apart() -> None:
    schema = menu_schema(ACTIONS).schema
    assert [list(one["properties"]) for one in schema["anyOf"]] == [["order"], ["stop"]]
    assert set(schema["$defs"]) == {"order.Size", "order.Colour"}
    assert schema["$defs"]["order.Size"]["additionalProperties"] is False
    order_schema = schema["anyOf"][0]["properties"]["order"]
    assert order_schema["properties"]["size"]["$ref"] == "#/$defs/order.Size"
    assert order_schema["additionalProperties"] is False
    assert "anyOf" not in menu_schema(ACTIONS[1:]).schema


def test_an_open_object_stays_open() -> None:
    def keep(facts: dict[str, int]) -> str:
        """Keep."""
        return str(facts)

    schema = menu_schema([Tool(keep).action("Keeps.")]).schema
    assert schema["properties"]["keep"]["properties"]["facts"]["additionalProperties"] == {"type": "integer"}


@pytest.mark.parametrize(
    "text",
    [
        '{"order": {"item": "rug"}}',
        'I will order.\n```json\n{"order": {"item": "rug"}}\n```',
        '{"tool": "order", "arguments": {"item": "rug"}}',
        '{"name": "order", "parameters": {"item": "rug"}}',
        '{"name": "order", "arguments": "{\\"item\\": \\"rug\\"}"}',
        '[{"order": {"item": "rug"}}]',
        '{"thought": "a rug", "order": {"item": "rug"}}',
    ],
)
def test_calls_are_read_in_the_usual_forms(text: str) -> None:
    action, arguments = read_call(text, ACTIONS)
    assert (action.name, arguments) == ("order", {"item": "rug"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"buy": {}}', "no 'buy' here; use one of 'order', 'stop'"),
        ('{"order": 3}', "arguments of 'order' must be a JSON object"),
        ('{"order": {}, "stop": {}}', "with one field"),
        ("[1, 2]", "with one field"),
        ("I would order a rug.", "no complete JSON value"),
    ],
)
def test_what_is_no_call_says_so(text: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        read_call(text, ACTIONS)


def test_a_call_without_arguments() -> None:
    assert read_call('{"stop": null}', ACTIONS)[1] == {}
    assert read_call('{"tool": "stop"}', ACTIONS)[1] == {}


def test_a_written_call_is_read_again() -> None:
    text = write_call("order", Tool(order).check(GOOD))
    assert json.loads(text)["order"]["when"] == "2026-03-01"
    action, arguments = read_call(text, ACTIONS)
    assert Tool(order).check(arguments) == Tool(order).check(GOOD)
    assert action.name == "order"


class Tree(BaseModel):
    leaves: list[Tree] = []
    kind: Literal["a"] = "a"
    any: Any = None


def test_recursive_types_have_a_shape_and_a_schema() -> None:
    assert shape(Tree.model_json_schema()).count("leaves") >= 2

    def plant(tree: Tree) -> str:
        """Plant."""
        return tree.kind

    schema = menu_schema([Tool(plant).action("Plants.")]).schema
    assert schema["$defs"]["plant.Tree"]["properties"]["leaves"]["items"]["$ref"] == "#/$defs/plant.Tree"


def test_results_are_shown_as_json_and_cut() -> None:
    assert result_text({"day": datetime.date(2026, 1, 2)}, 100) == '{"day": "2026-01-02"}'
    assert result_text(Size(width=1, height=2), 100) == '{"width": 1.0, "height": 2.0}'
    assert result_text("abcdef", 4) == "abcd… (2 characters left out)"
    assert result_text(object(), 100).startswith('"<object')
