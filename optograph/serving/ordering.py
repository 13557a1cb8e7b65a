"""The order of a rollout's calls, by the structure of the workflow that asked and not by how long its answers took.

A *lane* holds what one task or thread asked, in order, with the lanes that branched off where they did. The calls of a
lane come one after another; those of a branch come where it began, before whatever its parent asked next. So a call
whose prompt may hold an earlier answer comes after it, wherever what runs at once meets again where it was started.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import weakref
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import Context, ContextVar
from dataclasses import dataclass, field
from typing import Any, cast

Branch = tuple[str, str]
"""One of several that run at once, and can be told apart by more than time: the name of their fork, and its place."""
_Strand = asyncio.Task[Any] | int
"""Who runs: the asyncio task, or the number of the thread where there is none."""


class CallOrder:
    """The calls of one rollout, as they are asked and answered.

    Attributes:
        keys: Those of the answered calls in their order, each once, when the rollout has ended; none where one task or
            thread made all calls, for then they ended in the order in which they were asked.
    """

    __slots__ = ("_lanes", "keys", "lock")

    def __init__(self) -> None:
        self.keys: tuple[str, ...] = ()
        self.lock = threading.RLock()  # a finalizer may make a task at any time
        self._lanes: list[_Lane] = []

    def close(self) -> None:
        """Settle the keys, and let go of the lanes: they know this object, and cycles are left to the collector."""
        if len(self._lanes) > 1:
            self.keys = self._in_order()
        self._lanes.clear()

    def _in_order(self) -> tuple[str, ...]:
        made: dict[_Lane, list[_Asked]] = {}
        with self.lock:
            for lane in reversed(self._lanes):  # a lane comes after the one that it branched off
                made[lane] = _in_order(lane, made)
        return tuple(dict.fromkeys(one.key for one in made[self._lanes[0]]))

    def lane(self, branch: Branch | None = None) -> _Lane:
        """Return a new lane; the first is that of the workflow itself."""
        made = _Lane(self, branch)
        self._lanes.append(made)
        return made


@dataclass(eq=False, slots=True)
class _Asked:
    """A call; `ended` is None while it has no answer."""

    key: str
    begun: int
    ended: int | None = None


@dataclass(eq=False, slots=True)
class _Fork:
    """Lanes of things that ran at once, by their places; those without a place are told apart by time alone."""

    name: str | None
    lanes: dict[str | int, _Lane] = field(default_factory=dict)


@dataclass(eq=False, slots=True)
class _Lane:
    """What one task or thread asked, and what branched off meanwhile.

    `owner` is who asks in it: the number of a thread, or a weak reference to a task, that no later task passes for it.
    """

    calls: CallOrder
    branch: Branch | None = None
    owner: weakref.ref[asyncio.Task[Any]] | int | None = None
    items: list[_Asked | _Lane | _Fork] = field(default_factory=list)

    def own(self, strand: _Strand) -> None:
        self.owner = strand if isinstance(strand, int) else weakref.ref(strand)

    def owned_by(self, strand: _Strand) -> bool:
        owner = self.owner
        return owner is None or (owner == strand if isinstance(owner, int) else owner() is strand)

    def ended(self) -> bool:
        """Whether it is that of a task, and the task has ended."""
        owner = self.owner
        if owner is None or isinstance(owner, int):
            return False
        task = owner()
        return task is None or task.done()

    def child(self) -> _Lane:
        """Open the lane of a task that is being made; whoever makes tasks makes them in the same order every time."""
        with self.calls.lock:  # a workflow that is over its time may go on while its order is settled
            made = self.calls.lane(self.branch)
            self.items.append(made)
        return made

    def fork(self, name: str | None) -> _Fork:
        """Return the fork that is open here; whatever was asked in between has closed it."""
        last = self.items[-1] if self.items else None
        if not isinstance(last, _Fork) or last.name != name:
            last = _Fork(name)
            self.items.append(last)
        return last


_clock = itertools.count()
_lane: ContextVar[_Lane | None] = ContextVar("optograph_lane", default=None)
_branches: ContextVar[Callable[[], Branch | None] | None] = ContextVar("optograph_branches", default=None)


@contextmanager
def ordering_calls() -> Iterator[CallOrder]:
    """Keep the order of the calls made in a rollout; it is entered in the task that runs the workflow."""
    follow_tasks(asyncio.get_running_loop())
    calls = CallOrder()
    root = calls.lane()
    root.own(_strand())
    token = _lane.set(root)
    try:
        yield calls
    finally:
        _lane.reset(token)
        calls.close()


@contextmanager
def branching(find: Callable[[], Branch | None]) -> Iterator[None]:
    """Have branches that run in threads told apart by their places.

    Args:
        find: Returns the branch that the caller runs in, or None in none; called when a thread gets its lane.
    """
    token = _branches.set(find)
    try:
        yield
    finally:
        _branches.reset(token)


class asking:
    """Note a call within a ``with`` block, which counts when it ends with an answer.

    Within it there is no lane: the tasks that a client makes for one request are none of the workflow's.

    Args:
        key: The call's key.
    """

    __slots__ = ("_asked", "_key", "_token")

    def __init__(self, key: str) -> None:
        self._key = key

    def __enter__(self) -> None:
        lane = own_lane()
        self._asked = None if lane is None else _Asked(self._key, next(_clock))
        if lane is not None and self._asked is not None:
            lane.items.append(self._asked)
        self._token = _lane.set(None)

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        _lane.reset(self._token)
        if kind is None and self._asked is not None:
            self._asked.ended = next(_clock)


def own_lane() -> _Lane | None:
    """Give the running task or thread a lane of its own, if it has none yet, and return it; None outside of rollouts.

    Call it where threads are about to be started, so that theirs branch off it.
    """
    lane = _lane.get()
    if lane is None:
        return None
    strand = _strand()
    if lane.owned_by(strand):
        return lane
    find = _branches.get()
    branch = None if find is None else find()
    calls = lane.calls
    with calls.lock:
        if branch is not None and branch != lane.branch:
            places = lane.fork(branch[0]).lanes
            lane = places.get(branch[1]) or places.setdefault(branch[1], calls.lane(branch))
        lanes = lane.fork(None).lanes
        lane = lanes[len(lanes)] = calls.lane(lane.branch)
    lane.own(strand)
    _lane.set(lane)
    return lane


def _strand() -> _Strand:
    try:
        task = asyncio.current_task()
    except RuntimeError:
        task = None
    return threading.get_ident() if task is None else task


# -- tasks ----------------------------------------------------------------------------------------


def follow_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """Have the tasks of an event loop get lanes as they are made, from now on; outside of rollouts nothing changes."""
    factory = loop.get_task_factory()
    if not isinstance(factory, _Laned):
        loop.set_task_factory(cast(Any, _Laned(factory)))


class _Laned:
    """Makes tasks, each with a lane that branches off its maker's.

    Args:
        inner: What makes tasks otherwise.
    """

    def __init__(self, inner: Any) -> None:
        self._inner = inner or _plain

    def __call__(self, loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], **given: Any) -> Any:
        context: Context | None = given.get("context")
        around = _lane.get() if context is None else context.get(_lane)
        if around is None:
            return self._inner(loop, coro, **given)
        if context is None:
            lane = around.child()
            token = _lane.set(lane)  # the task copies the context
            try:
                task = self._inner(loop, coro, **given)
            finally:
                _lane.reset(token)
        else:
            lane = around if around.ended() else around.child()  # one context for task after task is one lane
            try:
                context.run(_lane.set, lane)
            except RuntimeError:  # it is the context of what runs, whose lane it shares
                return self._inner(loop, coro, **given)
            task = self._inner(loop, coro, **given)
        lane.own(task)
        return task


def _plain(loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], **given: Any) -> Any:
    return asyncio.Task(coro, loop=loop, **given)


# -- order ----------------------------------------------------------------------------------------


def _in_order(lane: _Lane, made: Mapping[_Lane, list[_Asked]]) -> list[_Asked]:
    """Return the answered calls of a lane and all that branched off it."""
    found: list[_Asked] = []
    for item in lane.items:
        if isinstance(item, _Lane):
            found += made[item]
        elif isinstance(item, _Asked):
            found += [item] if item.ended is not None else []
        elif item.name is None:
            found += _by_time([made[one] for one in item.lanes.values()])
        else:
            found += [call for place in sorted(item.lanes) for call in made[item.lanes[place]]]
    return found


def _by_time(lanes: Sequence[list[_Asked]]) -> list[_Asked]:
    """Return the calls of lanes of which only the times are known.

    Lanes that followed each other stay whole. Of others the calls are in the order in which they were asked, which
    keeps what depends on an answer behind it; those that were all under way at once, so that none of them depends on
    another, are in the order of their keys.
    """
    found: list[_Asked] = []
    group: list[list[_Asked]] = []
    end = -1
    for lane in sorted(filter(None, lanes), key=_begin):
        if group and _begin(lane) > end:
            found += _mixed(group)
            group = []
        group.append(lane)
        end = max(end, *map(_end, lane))
    return found + _mixed(group)


def _mixed(lanes: Sequence[list[_Asked]]) -> list[_Asked]:
    if len(lanes) == 1:
        return lanes[0]
    found: list[_Asked] = []
    at_once: list[_Asked] = []
    for call in sorted((call for lane in lanes for call in lane), key=lambda call: call.begun):
        if at_once and call.begun > min(map(_end, at_once)):
            found += sorted(at_once, key=lambda call: call.key)
            at_once = []
        at_once.append(call)
    return found + sorted(at_once, key=lambda call: call.key)


def _begin(lane: Sequence[_Asked]) -> int:
    return min(call.begun for call in lane)


def _end(call: _Asked) -> int:
    return call.begun if call.ended is None else call.ended
