"""Search at test time, led by a critic: the best of K answers, and a beam search over steps (OREO, arXiv 2412.16145).

A critic's value is what a state is expected to earn, so it can choose between answers, and between beginnings of
answers, which log-probabilities cannot.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from optograph.errors import UserError
from optograph.optimizers.policy.credit import Critic
from optograph.serving import LM, Completion, Request, Usage, WrappingLM, run_sync


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer, or the beginning of one.

    Attributes:
        text: What was written.
        value: V of the state after it; of a finished one, before the token that ended it.
        finished: Whether the model ended it by itself.
        steps: Number of steps.
    """

    text: str
    value: float
    finished: bool
    steps: int = 1


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What a search found.

    Attributes:
        best: The answer of the highest value; a finished one where there is any.
        answers: All answers to choose from: finished ones, then beginnings, each the highest value first.
        usage: Tokens read and written, over all that was tried.
    """

    best: Answer
    answers: tuple[Answer, ...]
    usage: Usage


@dataclass(frozen=True, slots=True)
class StepBeam:
    """How a beam search over steps goes.

    Attributes:
        beams: Beginnings that are kept after each step, at least 1.
        samples: Next steps that are sampled for each; as many as `beams` by default.
        steps: Most steps of an answer.
        step_ends: What ends a step: a line break by default. With several, the endpoint must give log-probabilities of
            all tokens, stop strings included, as vLLM does.
        step_tokens: Most tokens of a step; a longer one is cut, and goes on as the next.
        temperature: Of sampling, above 0.
        seed: Of sampling; None for the server's own.
    """

    beams: int = 5
    samples: int | None = None
    steps: int = 20
    step_ends: tuple[str, ...] = ("\n",)
    step_tokens: int = 128
    temperature: float = 1.0
    seed: int | None = 0

    def __post_init__(self) -> None:
        counts = (self.beams, self.samples if self.samples is not None else 1, self.steps, self.step_tokens)
        if min(counts) < 1 or not 0 < self.temperature <= 2 or not self.step_ends or not all(self.step_ends):
            raise UserError(
                "a step beam needs beams, samples, steps and step_tokens of at least 1, a temperature above 0 and "
                f"step_ends, not {self!r}"
            )


async def astep_beam_search(
    lm: LM, critic: Critic, prompt: str, end_ids: Iterable[int], options: StepBeam = StepBeam()
) -> SearchResult:
    """Like `step_beam_search`, for callers on an event loop."""
    search = _Search(lm, critic, prompt, frozenset(end_ids), options)
    beams = [Answer("", 0.0, finished=False, steps=0)]
    pool: list[Answer] = []
    for step in range(options.steps):
        found = await search.expand(beams, step)
        best = _ranked(found)[: options.beams]
        pool += [one for one in best if one.finished]
        beams = [one for one in best if not one.finished]
        if not beams:
            break
    answers = _ranked(pool) + _ranked(beams)
    return SearchResult(answers[0], tuple(answers), search.usage)


def step_beam_search(
    lm: LM, critic: Critic, prompt: str, end_ids: Iterable[int], options: StepBeam = StepBeam()
) -> SearchResult:
    """Write an answer step by step, and keep after each step the beginnings that the critic values most.

    Finished answers among the best leave the beam for a pool; the search ends when no beginning is left, or after
    `options.steps`. The pool's highest value wins; where nothing was finished, the best beginning does.

    Args:
        lm: A model that gives token ids and continues raw prompts.
        critic: Values of states, for the tokens of that model.
        prompt: The prompt as text, with the chat template applied (``tokenizer.apply_chat_template(..., tokenize=False,
            add_generation_prompt=True)``).
        end_ids: Ids of the tokens with which the model ends an answer (``tokenizer.eos_token_id``).
        options: Width and length.

    Raises:
        UserError: The model gives no token ids, the critic no finite value, or with several `step_ends` the endpoint
            does not say which of them ended a step.
    """
    return run_sync(astep_beam_search(lm, critic, prompt, end_ids, options))


@dataclass
class _Search:
    lm: LM
    critic: Critic
    prompt: str
    end_ids: frozenset[int]
    options: StepBeam
    usage: Usage = field(default_factory=Usage)

    async def expand(self, beams: Sequence[Answer], step: int) -> list[Answer]:
        """Sample next steps of each beam; each different text once, with its value."""
        options = self.options
        asked = [
            Request(
                prompt=self.prompt + beam.text,
                n=options.samples or options.beams,
                max_tokens=options.step_tokens,
                temperature=options.temperature,
                stop=options.step_ends,
                seed=options.seed,
                draw=step,
                logprobs=1 if self.lm.capabilities.logprobs else 0,
                token_ids=True,
            )
            for beam in beams
        ]
        given = await asyncio.gather(*(self.lm.complete(request) for request in asked))
        found: dict[str, tuple[Answer, list[int]]] = {}
        for beam, completion in zip(beams, given, strict=True):
            self.usage = _sum(self.usage, completion.usage)
            for place, reason in enumerate(completion.finish_reasons):
                ids = _ids(completion, place)
                finished = reason != "length" and ids[-1] in self.end_ids
                text = completion.texts[place] if finished or reason == "length" else self._whole(completion, place)
                made = Answer(beam.text + text, 0.0, finished, beam.steps + 1)
                found.setdefault(made.text + "\0" * finished, (made, ids))
        values = await _values(self.critic, [(ids, one.finished) for one, ids in found.values()])
        return [replace(one, value=value) for (one, _), value in zip(found.values(), values, strict=True)]

    def _whole(self, completion: Completion, place: int) -> str:
        """Return a step with what ended it, as the model wrote it."""
        text, tokens = completion.texts[place], completion.logprobs[place]
        written = "".join(token.token for token in tokens or ())
        if written.startswith(text) and any(end in written[len(text) :] for end in self.options.step_ends):
            return written
        if len(self.options.step_ends) > 1:
            raise UserError(
                f"model {self.lm.name!r} does not say which of {self.options.step_ends!r} ended a step: give one only"
            )
        return text + self.options.step_ends[0]


async def abest_of_k(lm: LM, critic: Critic, request: Request, k: int) -> SearchResult:
    """Like `best_of_k`, for callers on an event loop."""
    if k < 1 or request.temperature == 0:
        raise UserError(f"the best of k needs k of at least 1 and a temperature above 0, got {k!r} and {request!r}")
    result, _ = await _sampled(lm, critic, replace(request, n=k, token_ids=True))
    return result


def best_of_k(lm: LM, critic: Critic, request: Request, k: int) -> SearchResult:
    """Sample K answers, and rank them by the critic's value of each, read as OREO trained it (see `Answer`).

    Args:
        lm: A model that gives token ids.
        critic: Values of states, for the tokens of that model.
        request: What is asked; its temperature is above 0.
        k: Number of answers, at least 1.

    Raises:
        UserError: `k` or the temperature is wrong, or the critic gives no finite value.
    """
    return run_sync(abest_of_k(lm, critic, request, k))


class BestOfLM(WrappingLM):
    """A model whose every sampled answer is the critic's choice of K: give it to a workflow in the place of the model.

    Greedy requests, and those of several texts, are handed on.

    Args:
        inner: A model that gives token ids.
        critic: Values of states, for the tokens of that model.
        k: Answers to choose from, at least 1.
    """

    def __init__(self, inner: LM, critic: Critic, k: int) -> None:
        super().__init__(inner)
        if k < 1:
            raise UserError(f"the best of k needs k of at least 1, got {k!r}")
        self.critic, self.k = critic, k

    async def _complete(self, request: Request) -> Completion:
        if request.temperature == 0 or request.n != 1:
            return await self.inner.complete(request)
        asked = replace(request, n=self.k, token_ids=True)
        _, (completion, place) = await _sampled(self.inner, self.critic, asked)
        return replace(
            completion,
            texts=(completion.texts[place],),
            finish_reasons=(completion.finish_reasons[place],),
            token_ids=(completion.token_ids[place] if request.token_ids else None,),
            logprobs=(completion.logprobs[place],),
            prompt_token_ids=completion.prompt_token_ids if request.token_ids else None,
        )


async def _sampled(lm: LM, critic: Critic, request: Request) -> tuple[SearchResult, tuple[Completion, int]]:
    """Answer and value a request of several texts; the completion comes along, with the place of the best text."""
    completion = await lm.complete(request)
    finished = [reason != "length" for reason in completion.finish_reasons]
    values = await _values(critic, [(_ids(completion, place), ended) for place, ended in enumerate(finished)])
    answers = [Answer(*one) for one in zip(completion.texts, values, finished, strict=True)]
    best = max(range(len(answers)), key=lambda place: answers[place].value)
    return SearchResult(answers[best], tuple(_ranked(answers)), completion.usage), (completion, best)


def _ids(completion: Completion, place: int) -> list[int]:
    """Return the ids of prompt and answer as the model read and wrote them."""
    prompt, answer = completion.prompt_token_ids, completion.token_ids[place]
    if not prompt or not answer:
        raise UserError(
            f"{completion.identity.endpoint} gave no token ids of prompt and answer, which the critic reads: use the "
            "embedded engine or vLLM"
        )
    return [*prompt, *answer]


async def _values(critic: Critic, texts: Sequence[tuple[Sequence[int], bool]]) -> list[float]:
    """Return the value of each (token ids, whether they were ended); the critic works in a thread.

    OREO trains a critic on the states in which a token was chosen. Nothing is chosen after the token that ends an
    answer, so an ended one is valued before it.
    """
    given = await asyncio.to_thread(critic.values, [ids for ids, _ in texts])
    if [len(one) for one in given] != [len(ids) for ids, _ in texts]:
        raise UserError(f"the critic must give one value a token, got {[len(one) for one in given]!r} values")
    values = [float(one[-2 if ended else -1]) for one, (_, ended) in zip(given, texts, strict=True)]
    if not all(math.isfinite(one) for one in values):
        raise UserError(f"the critic must give finite values for {len(texts)} sequences, got {values!r}")
    return values


def _ranked(answers: Sequence[Answer]) -> list[Answer]:
    return sorted(answers, key=lambda one: -one.value)


def _sum(one: Usage, other: Usage) -> Usage:
    return Usage(one.prompt_tokens + other.prompt_tokens, one.completion_tokens + other.completion_tokens)
