"""For authors of models: a loopback server with faults on demand, and conformance tests to subclass."""

from optograph.testing.lm import LMConformance
from optograph.testing.server import FAULTS, LoopbackServer, Received

__all__ = ["FAULTS", "LMConformance", "LoopbackServer", "Received"]
