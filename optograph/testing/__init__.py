"""For authors of models: a loopback server with faults on demand, and conformance tests to subclass."""

from optograph.testing.faults import FAULTS, FaultPlan, request_key
from optograph.testing.lm import LMConformance
from optograph.testing.server import LoopbackServer, Received

__all__ = ["FAULTS", "FaultPlan", "LMConformance", "LoopbackServer", "Received", "request_key"]
