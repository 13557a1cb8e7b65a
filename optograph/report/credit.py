"""Credit per node: what the traces, the optimizers' answers and the decisions of a run say about each node."""

from __future__ import annotations

from pydantic import Field

from optograph.report.record import Row


class NodeCredit(Row):
    """What the evidence of a run says about one node of the workflow: an op, a step or a node of a LangGraph app.

    A run is an example under a candidate, traced; it fails where its score is below that of a right answer.

    Attributes:
        node: Name of the node.
        parameters: Names of the parameters that it reads.
        failed_before: Failed runs that led through it, under all candidates before the final one.
        passed_before: Right runs, likewise.
        failed_after: Failed runs that led through it, under the final candidate.
        passed_after: Right runs, likewise.
        named: Proposals that named one of its parameters at fault.
        unusable: Proposals whose new value of one of its parameters could not be used, so that nothing was run.
        tried: Candidates that changed one of its parameters.
        accepted: Those of them that were accepted.
        gain: Dev score that these gained, summed; None where none was accepted.
        shared: Those of the accepted ones that changed other nodes too, so that their gain counts for several.
    """

    node: str
    parameters: list[str] = Field(default_factory=list)
    failed_before: int = Field(default=0, ge=0)
    passed_before: int = Field(default=0, ge=0)
    failed_after: int = Field(default=0, ge=0)
    passed_after: int = Field(default=0, ge=0)
    named: int = Field(default=0, ge=0)
    unusable: int = Field(default=0, ge=0)
    tried: int = Field(default=0, ge=0)
    accepted: int = Field(default=0, ge=0)
    gain: float | None = None
    shared: int = Field(default=0, ge=0)

    @property
    def before(self) -> int:
        """Runs that led through it before the final candidate."""
        return self.failed_before + self.passed_before

    @property
    def after(self) -> int:
        """Runs that led through it under the final candidate."""
        return self.failed_after + self.passed_after


class Credit(Row):
    """Credit per node.

    Attributes:
        nodes: The nodes, in the order in which they run.
        runs_before: Traced runs under all candidates before the final one.
        runs_after: Traced runs under the final candidate; 0 where it is the starting one.
        proposals: Proposals of optimizers that say what is at fault; 0 where none ever named a parameter.
    """

    nodes: list[NodeCredit] = Field(default_factory=list)
    runs_before: int = Field(default=0, ge=0)
    runs_after: int = Field(default=0, ge=0)
    proposals: int = Field(default=0, ge=0)
