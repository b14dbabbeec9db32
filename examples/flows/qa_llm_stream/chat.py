"""Streams a model's answer; its pieces come out as the field `output`."""
import os

from openai import OpenAI


def chat(question: str, chat_history: list = None) -> str:
    client = OpenAI(
        base_url=os.environ["LLM_BASE_URL"],
        api_key=os.environ.get("LLM_API_KEY", "none"),
        max_retries=0,
    )
    chunks = client.chat.completions.create(
        model=os.environ.get("LLM_MODEL", "smollm2-135m"),
        messages=[{"role": "user", "content": question}],
        max_tokens=24,
        temperature=0.0,
        stream=True,
    )
    for chunk in chunks:
        if chunk.choices and chunk.choices[0].delta.content:
            yield chunk.choices[0].delta.content
