"""The way back: from an output and its feedback to the part of the graph that parameters can be blamed for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from optograph.errors import UserError
from optograph.graphs.feedback import Feedback
from optograph.graphs.parameter import Parameter, ParameterValue
from optograph.graphs.pausing import collection_paused
from optograph.graphs.shown import shown
from optograph.graphs.snapshot import Ancestry, as_value, snapshot
from optograph.graphs.trace import VERSION, Node, checked, nodes_from_json, nodes_to_json
from optograph.graphs.value import Value, parents_of


@dataclass(frozen=True)
class Subgraph:
    """What led from parameters to one output, with the output's feedback.

    Attributes:
        nodes: The nodes, parents first: values of the parameters, ops between them and the output, and the ops'
            other parents, frozen.
        output: Id of the output.
        feedback: What was said about the output.
    """

    nodes: tuple[Node, ...]
    output: str
    feedback: Feedback

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of the parameters that had a part in the output, each once."""
        return tuple(dict.fromkeys(n.parameter.name for n in self.nodes if n.parameter is not None and not n.frozen))

    def to_json(self) -> dict[str, Any]:
        """Return the subgraph as JSON data."""
        graph = nodes_to_json(self.nodes)
        return {"version": VERSION, "output": self.output, "feedback": self.feedback.to_json(), **graph}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Subgraph:
        """Return the subgraph that `to_json` wrote; the live graph is not needed.

        Raises:
            UserError: The data is no subgraph, or of a version that this one cannot read.
        """
        nodes, output = nodes_from_json(data), checked(data, "output")
        if all(node.id != output for node in nodes):
            raise UserError(f"not a subgraph: its output {output!r} is not among its nodes")
        return cls(nodes, output, Feedback.from_json(checked(data, "feedback")))


def propagate(output: Any, feedback: Feedback, parameters: Iterable[Parameter]) -> Subgraph:
    """Send feedback from an output back to the parameters.

    The subgraph holds the descendants of the parameters that are ancestors of the output, and their other parents
    as frozen inputs. It takes time in proportion to the output's history, and nothing is written on the values:
    any number of feedbacks may go back through shared values at once.

    Args:
        output: A value, an `OpError`, or a list or dict of values.
        feedback: The judgement of this output.
        parameters: The parameters of interest.

    Raises:
        UserError: The output is not traced, or an argument has the wrong type.
    """
    if not isinstance(feedback, Feedback):
        raise UserError(f"feedback must be a Feedback, got {shown(feedback)}: write Feedback(score, text)")
    wanted = set()
    for parameter in parameters:
        if not isinstance(parameter, Parameter):
            raise UserError(f"parameters must be Parameter objects, got {shown(parameter)}")
        wanted.add(id(parameter))
    root = as_value(output)
    with collection_paused():
        return _back(root, feedback, wanted)


def _back(root: Value, feedback: Feedback, wanted: set[int]) -> Subgraph:
    ancestry = Ancestry([root])
    cone: set[Value] = set()
    frozen: set[Value] = set()
    for value in ancestry.order:
        if type(value) is ParameterValue:
            if id(value.parameter) in wanted:
                cone.add(value)
            continue
        parents = parents_of(value)
        if value is root or not cone.isdisjoint(parents):
            cone.add(value)
            for parent in parents:
                if parent not in cone:
                    frozen.add(parent)
    if root not in cone:
        frozen.add(root)
    kept = ancestry.order
    if len(cone) < len(kept):
        kept = [value for value in kept if value in cone or value in frozen]
    nodes, refs = snapshot(kept, frozen)
    return Subgraph(nodes, str(refs[root]), feedback)
