"""vLLM servers of our own: started, watched, given trained adapters, checked and stopped."""

from optograph.serving.vllm.adapters import Probe, ServedAdapterError, adapter_hash, check_servable, served_name
from optograph.serving.vllm.interpreter import Installation, find_vllm
from optograph.serving.vllm.metrics import ServerMetrics, parse_metrics
from optograph.serving.vllm.served import ServedLM
from optograph.serving.vllm.server import VLLMServer
from optograph.serving.vllm.weights import model_weights

__all__ = [
    "Installation",
    "Probe",
    "ServedAdapterError",
    "ServedLM",
    "ServerMetrics",
    "VLLMServer",
    "adapter_hash",
    "check_servable",
    "find_vllm",
    "model_weights",
    "parse_metrics",
    "served_name",
]
