"""How a policy is trained: the method, the adapter and the optimizer's numbers."""

from __future__ import annotations

from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from optograph.errors import UserError

Method = Literal["oreo", "momentum_dpo", "dpo", "ipo", "sppo", "sft", "kto", "grpo"]
PAIRED: tuple[Method, ...] = ("momentum_dpo", "dpo", "ipo", "sppo")
"""Methods that learn from two answers to the same tokens."""

_BETA = {"oreo": 0.03, "momentum_dpo": 0.1, "dpo": 0.1, "ipo": 0.1, "kto": 0.1, "grpo": 0.0, "sppo": 0.0, "sft": 0.0}


class PolicyConfig(BaseModel):
    """Everything about a training run but its data: with the same rows it gives the same adapter.

    Numbers are for LoRA on small models; those of the papers, which train all weights, are in docs/training.md.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Method
    rank: int = Field(default=8, ge=1, le=512)
    """Rank of a new adapter; one that training begins from keeps its own."""
    lora_alpha: float = Field(default=16.0, gt=0)
    """A new adapter's update counts lora_alpha / rank times."""
    target_modules: tuple[str, ...] | Literal["all-linear"] = "all-linear"
    """Modules with an adapter; ``"all-linear"`` is all but the output layer, which vLLM cannot serve adapted."""
    learning_rate: float = Field(default=2e-4, gt=0)
    critic_learning_rate: float = Field(default=1e-3, gt=0)
    """OREO: of the critic's adapter and head."""
    epochs: float = Field(default=1.0, gt=0)
    batch_size: int = Field(default=16, ge=1)
    """Rows (pairs, where there are any) a step of the optimizer, on each device."""
    accumulation: int = Field(default=1, ge=1)
    """A batch is worked through in so many parts, to save memory."""
    beta: float | None = Field(default=None, gt=0)
    """Weight of staying close to the reference; 0.03 for OREO, 0.1 for DPO and its kin and KTO, none for GRPO."""
    kl_weight: float = Field(default=0.0, ge=0)
    """OREO: weight of the KL regularizer. The paper has 0.01; it raises the temperature, see `beta_effective`."""
    level: Literal["token", "step", "response"] = "token"
    """OREO: what an action is. A step ends with a line or a sentence."""
    alpha: float = Field(default=0.3, ge=0, lt=1)
    """Momentum DPO: the momentum; 0 is iterative DPO."""
    sft_weight: float = Field(default=0.0, ge=0)
    """DPO and momentum DPO: weight of the negative log-likelihood of a chosen answer's tokens beside the loss (RPO,
    arXiv 2404.19733). Without it the chosen answers of pairs that differ in a few tokens grow less likely too."""
    eta: float = Field(default=10.0, gt=0)
    """Soft SPPO: step size."""
    win_scale: float = Field(default=1.0, gt=0)
    """Soft SPPO: rewards times this are scores of a Bradley-Terry model; great ones make every difference a win."""
    desirable_weight: float = Field(default=1.0, gt=0)
    undesirable_weight: float = Field(default=1.0, gt=0)
    """KTO: weights of good and bad answers; TRL advises a ratio of summed weights between 1 and 1.33."""
    threshold: float | None = None
    """SFT: rows with a smaller reward are left out. KTO: rows with a greater reward are good; the mean by default."""
    generations: int = Field(default=4, ge=2)
    """GRPO: answers to each prompt."""
    max_new_tokens: int = Field(default=64, ge=1)
    """GRPO: longest answer."""
    temperature: float = Field(default=1.0, gt=0)
    """GRPO: of sampling."""
    vllm: bool = False
    """GRPO: sample with vLLM on the same GPU (colocated) instead of with the model itself."""
    warmup: float = Field(default=0.1, ge=0, lt=1)
    """Share of the steps in which the learning rate rises; then it falls as `schedule` says."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    seed: int = Field(default=0, ge=0, lt=2**32)
    max_length: int = Field(default=2048, ge=2)
    """Rows with more tokens are refused: a row that is cut has lost the end that earned its reward."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the frozen base; adapters are float32. ``"auto"`` is bfloat16 on a GPU or a CPU with AMX, else float32."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    threads: int | None = Field(default=None, ge=1)
    """CPU threads; as torch has it by default. Another number of them rounds otherwise and gives another adapter."""
    gradient_checkpointing: bool = False
    """Less memory for a third more time; for long rows on a GPU."""

    @model_validator(mode="after")
    def _fits(self) -> PolicyConfig:
        if self.beta is not None and self.method in ("sft", "sppo"):
            raise ValueError(f"{self.method!r} has no beta" + ("; set eta" if self.method == "sppo" else ""))
        if self.kl_weight and self.method != "oreo":
            raise ValueError(f"kl_weight is OREO's, and {self.method!r} would not use it")
        if self.sft_weight and self.method not in ("momentum_dpo", "dpo"):
            raise ValueError(f"sft_weight is DPO's, and {self.method!r} would not use it")
        if self.batch_size % self.accumulation:
            raise ValueError(f"batch_size {self.batch_size} must be a multiple of accumulation {self.accumulation}")
        if self.method == "kto" and self.batch_size // self.accumulation < 2:
            raise ValueError("KTO compares answers within a part of a batch: it needs at least 2 rows")
        if isinstance(self.target_modules, tuple) and not self.target_modules:
            raise ValueError("target_modules must name at least one module")
        return self

    @classmethod
    def of(cls, method: str, **options: Any) -> PolicyConfig:
        """Make a configuration, or say plainly what is wrong with it.

        Raises:
            UserError: An option is unknown or out of range.
        """
        try:
            return cls.model_validate({"method": method, **options})
        except ValidationError as error:
            wrong = "; ".join(f"{'.'.join(map(str, one['loc'])) or 'options'}: {one['msg']}" for one in error.errors())
            raise UserError(f"these options do not train a policy: {wrong}. Methods: {get_args(Method)!r}") from None

    @property
    def beta_or_default(self) -> float:
        """`beta`, or the method's own."""
        return _BETA[self.method] if self.beta is None else self.beta
