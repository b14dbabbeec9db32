"""One chat completion: the context as the system's message, the turns so far, the question."""
import os

from openai import OpenAI
from promptflow.core import tool


@tool
def ask_model(question: str, chat_history: list, context: str) -> str:
    client = OpenAI(
        base_url=os.environ["LLM_BASE_URL"],
        api_key=os.environ.get("LLM_API_KEY", "none"),
        max_retries=0,
    )
    messages = [{"role": "system", "content": "You sell outdoor gear. Answer from this: " + context}]
    for turn in chat_history:
        messages.append({"role": "user", "content": turn["inputs"]["question"]})
        messages.append({"role": "assistant", "content": turn["outputs"]["answer"]})
    messages.append({"role": "user", "content": question})
    reply = client.chat.completions.create(
        model=os.environ.get("LLM_MODEL", "smollm2-135m"),
        messages=messages,
        max_tokens=24,
        temperature=0.0,
    )
    return reply.choices[0].message.content
