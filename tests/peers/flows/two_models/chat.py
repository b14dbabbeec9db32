"""Two models behind two deployments: a small one rewrites the question, a large one streams the answer."""
import os

from openai import OpenAI
from promptflow.tracing import trace


def client():
    return OpenAI(base_url=os.environ["LLM_BASE_URL"], api_key="none", max_retries=0)


@trace
def rewrite(question: str) -> str:
    messages = [{"role": "user", "content": "Say it shorter: " + question}]
    return client().chat.completions.create(model="small", messages=messages).choices[0].message.content


def chat(question: str) -> str:
    messages = [{"role": "user", "content": rewrite(question)}]
    chunks = client().chat.completions.create(
        model="large", messages=messages, stream=True, stream_options={"include_usage": True}
    )
    for chunk in chunks:
        if chunk.choices and chunk.choices[0].delta.content:
            yield chunk.choices[0].delta.content
