"""vLLM servers of our own: started, watched, given trained adapters, checked and stopped."""

from optograph.serving.vllm.adapters import Probe, ServedAdapterError, adapter_hash, check_servable, served_name

__all__ = ["Probe", "ServedAdapterError", "adapter_hash", "check_servable", "served_name"]
