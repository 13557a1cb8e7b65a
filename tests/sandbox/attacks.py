"""All attacks by name."""

from __future__ import annotations

from tests.sandbox.attack import Attack
from tests.sandbox.attacks_files import FILES, network
from tests.sandbox.attacks_kernel import kernel
from tests.sandbox.attacks_processes import PROCESSES
from tests.sandbox.attacks_resources import PROTOCOL, RESOURCES

ATTACKS: dict[str, Attack] = {**FILES, **network(), **PROCESSES, **kernel(), **RESOURCES, **PROTOCOL}
