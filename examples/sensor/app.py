"""Two numbers and text feedback: calibrate a thermometer. No model is in the workflow; one proposes the numbers."""

from __future__ import annotations

from typing import Any

from optograph.agents import Module
from optograph.graphs import Feedback, FloatSpec, Parameter, op


@op(description="Turn a raw reading into degrees: reading * gain + offset.")
def to_degrees(reading: float, gain: float, offset: float) -> float:
    """Return the temperature in degrees Celsius."""
    return reading * gain + offset


class Thermometer(Module):
    """A sensor with two numbers to set."""

    def __init__(self) -> None:
        self.gain = Parameter(1.0, name="gain", spec=FloatSpec(0.1, 5.0), description="Degrees for each raw unit.")
        self.offset = Parameter(0.0, name="offset", spec=FloatSpec(-50.0, 50.0), description="Degrees at reading 0.")

    def forward(self, reading: float) -> Any:
        """Return the temperature."""
        return to_degrees(reading, self.gain, self.offset)


def score(expected: float, output: float) -> Feedback:
    """Judge by distance, and say in words which way it is off; 0 is perfect."""
    error = output - float(expected)
    if abs(error) < 0.05:
        return Feedback(score=0.0, text=f"Right: {output:.1f} degrees.")
    way = "too high" if error > 0 else "too low"
    text = f"It shows {output:.1f} degrees where the true temperature is {float(expected):.1f}: {abs(error):.1f} {way}."
    return Feedback(score=-abs(error), text=text, failure_type=way.replace(" ", "_"))


def build() -> Thermometer:
    """Make the workflow for a job."""
    return Thermometer()
