"""Ask language models for captions: a server of the OpenAI form (vLLM and others), or transformers in this process.

In: instructions with seeds. Out: answers. A server that is down or sends invalid answers is asked again with growing
pauses, then given up; the captions so far are on the disk by then.
"""

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

from synclones.base.errors import InputError, MachineError
from synclones.base.json_file import parse_json
from synclones.prompts.captions.transformers_model import TextModelFolder, load_text_model

TRIES = 6
MAX_ANSWER_BYTES = 1 << 20
RETRIED = (408, 409, 425, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class Request:
    """One caption to be written."""

    instruction: str
    seed: int


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How answers are drawn."""

    temperature: float
    top_p: float
    max_tokens: int


class LanguageModel(Protocol):
    """Any model that answers requests."""

    def answers(self, requests: Sequence[Request]) -> list[str]:
        """Return one answer per request, in their order."""
        ...


class Server:
    """A server with ``/v1/chat/completions``; the key, if it wants one, comes from OPENAI_API_KEY and goes nowhere."""

    def __init__(self, url: str, model: str, sampling: Sampling, parallel: int, pause_s: float = 1.0):
        """Prepare the requests; nothing is sent yet.

        Raises:
            InputError: when ``url`` is no HTTP address.
        """
        if not url.startswith(("http://", "https://")):
            raise InputError(f"--server: {url!r} was given, expected http://host:port of an OpenAI-compatible server")
        self._url = url.rstrip("/").removesuffix("/v1") + "/v1/chat/completions"
        self._model, self._sampling, self._pause_s = model, sampling, pause_s
        self._pool = ThreadPoolExecutor(parallel)

    def answers(self, requests: Sequence[Request]) -> list[str]:
        """Return one answer per request, in their order.

        Raises:
            MachineError: when the server stays down, or keeps sending invalid answers.
            InputError: when it refuses.
        """
        return list(self._pool.map(self._answer, requests))

    def _answer(self, request: Request) -> str:
        problem = ""
        for attempt in range(TRIES):
            if attempt:
                time.sleep(self._pause_s * 2 ** (attempt - 1))
            try:
                return _text_of(self._post(request))
            except urllib.error.HTTPError as error:
                if error.code not in RETRIED:
                    raise InputError(f"--server {self._url}: refused with {error.code} ({_body_text(error)})") from None
                problem = f"HTTP {error.code}"
            except (OSError, ValueError) as error:
                problem = f"{type(error).__name__}: {str(error)[:80]}"
        raise MachineError(
            f"--server {self._url}: no usable answer in {TRIES} tries ({problem}); start it and run the same "
            "command to resume"
        )

    def _post(self, request: Request) -> Any:
        body = {
            "model": self._model,
            "messages": [{"role": "user", "content": request.instruction}],
            "temperature": self._sampling.temperature,
            "top_p": self._sampling.top_p,
            "max_tokens": self._sampling.max_tokens,
            "seed": request.seed,
        }
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get("OPENAI_API_KEY"):
            headers["Authorization"] = f"Bearer {key}"
        post = urllib.request.Request(self._url, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(post, timeout=120) as answer:
            return parse_json(answer.read(MAX_ANSWER_BYTES))


def _text_of(answer: Any) -> str:
    """Return the text of an answer.

    Raises:
        ValueError: when it has another form.
    """
    try:
        text = answer["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError):
        raise ValueError("an answer of another form") from None
    if not isinstance(text, str):
        raise ValueError("an answer without text")
    return text


def _body_text(error: urllib.error.HTTPError) -> str:
    return error.read(200).decode("utf-8", "replace").replace("\n", " ")


class Local:
    """A causal language model of transformers. A batch is drawn with the first request's seed."""

    def __init__(self, folder: TextModelFolder, sampling: Sampling, device: str, threads: int = 0):
        """Load the model; ``threads`` of the CPU, 0 for those that the process has.

        Raises:
            InputError: when it is incomplete.
        """
        self._sampling, self._loaded = sampling, load_text_model(folder, "text", device, "--model", threads)
        tokenizer = self._loaded.processor
        tokenizer.padding_side = "left"
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token

    def answers(self, requests: Sequence[Request]) -> list[str]:
        """Return one answer per request; the same batch gives the same answers."""
        import torch

        tokenizer, sampling = self._loaded.processor, self._sampling
        texts = [self._framed(request.instruction) for request in requests]
        inputs = tokenizer(texts, return_tensors="pt", padding=True).to(self._loaded.device)
        inputs.pop("token_type_ids", None)
        drawn = {"temperature": sampling.temperature, "top_p": sampling.top_p} if sampling.temperature else {}
        torch.manual_seed(requests[0].seed)
        with torch.inference_mode():
            tokens = self._loaded.model.generate(
                **inputs,
                max_new_tokens=sampling.max_tokens,
                do_sample=bool(drawn),
                pad_token_id=tokenizer.pad_token_id,
                **drawn,
            )
        written: list[str] = tokenizer.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return written

    def _framed(self, instruction: str) -> str:
        tokenizer = self._loaded.processor
        if getattr(tokenizer, "chat_template", None) is None:
            return f"{instruction}\nCaption:"
        messages = [{"role": "user", "content": instruction}]
        framed: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return framed
