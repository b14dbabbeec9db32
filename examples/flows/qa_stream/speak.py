"""Says the context word by word, at the pace of a model."""
import time

from promptflow.core import tool


@tool
def speak(context: str, chat_history: list, pause_ms: int, fail_after: int):
    answer = context or "I only know about our tents, boots, stoves and the like 🏔"
    if chat_history:
        answer = "As I said: " + answer
    for count, word in enumerate(answer.split(" ")):
        if fail_after and count == fail_after:
            raise RuntimeError("the stream breaks here, as it was asked to")
        time.sleep(pause_ms / 1000)
        yield word if count == 0 else " " + word
