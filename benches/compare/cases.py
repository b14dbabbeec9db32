"""What is asked and answered: one pair of bodies a case. The words are invented."""

import json
from dataclasses import dataclass

WORDS = ("the flow reads a question finds what the documents say about it and answers in a few plain "
         "sentences so that whoever asked can act on them without reading everything").split()
USAGE = {"prompt_tokens": 412, "completion_tokens": 318, "total_tokens": 730}


@dataclass(frozen=True)
class Case:
    """One kind of exchange; its name is the deployment in the path."""

    name: str
    note: str
    request: bytes
    answer: bytes
    media: str = "application/json"

    @property
    def path(self):
        return f"/openai/deployments/{self.name}/chat/completions"


def prose(size):
    """About `size` bytes of words."""
    words, length = [], 0
    while length < size:
        words.append(WORDS[(len(words) * 7) % len(WORDS)])
        length += len(words[-1]) + 1
    return " ".join(words)


def asked(size, **more):
    messages = [{"role": "system", "content": "Answer briefly."}, {"role": "user", "content": prose(size)}]
    return json.dumps({"model": "gpt-4o-mini", "messages": messages, **more}).encode()


def answered(size, usage=USAGE):
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": prose(size)}}
    head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "gpt-4o-mini-2024-07-18"}
    return json.dumps({**head, "choices": [choice], **({"usage": usage} if usage else {})}).encode()


def streamed(events):
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o-mini-2024-07-18"}
    def event(choices, **more):
        return b"data: " + json.dumps({**head, "choices": choices, **more}).encode() + b"\n\n"
    deltas = [event([{"index": 0, "delta": {"content": WORDS[n % len(WORDS)] + " "}}]) for n in range(events - 2)]
    end = event([{"index": 0, "delta": {}, "finish_reason": "stop"}])
    return b"".join(deltas) + end + event([], usage=USAGE) + b"data: [DONE]\n\n"


CASES = {case.name: case for case in (
    Case("plain", "2 KiB answer, usage reported", asked(300), answered(1750)),
    Case("counted", "2 KiB answer, no usage reported: flowtap counts the tokens", asked(300), answered(1750, None)),
    Case("stream", "50 events in one piece, usage in the last", asked(300, stream=True), streamed(50),
         "text/event-stream"),
    Case("small", "1 KiB answer, usage reported", asked(300), answered(750)),
    Case("kib4", "4 KiB answer, usage reported", asked(300), answered(3800)),
    Case("kib16", "16 KiB answer, usage reported", asked(300), answered(16000)),
    Case("kib256", "256 KiB answer, usage reported", asked(300), answered(260_000)),
    Case("large", "64 KiB answer, usage reported", asked(300), answered(65000)),
    Case("huge", "1 MiB answer, usage reported", asked(300), answered(2**20)),
    Case("score", "a prompt flow's 2 KiB answer: tokens counted", json.dumps({"question": prose(300)}).encode(),
         json.dumps({"answer": prose(1950)}).encode()),
)}
# A prompt flow has one path of its own.
SCORE_PATH = "/score"


def path_of(case):
    return SCORE_PATH if case.name == "score" else case.path
