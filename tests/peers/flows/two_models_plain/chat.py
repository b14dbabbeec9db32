"""Two models behind two deployments: a small one rewrites the question, a large one answers it."""
import os

from openai import OpenAI
from promptflow.tracing import trace


def completion(model: str, question: str) -> str:
    client = OpenAI(base_url=os.environ["LLM_BASE_URL"], api_key="none", max_retries=0)
    messages = [{"role": "user", "content": question}]
    return client.chat.completions.create(model=model, messages=messages).choices[0].message.content


@trace
def rewrite(question: str) -> str:
    return completion("small", "Say it shorter: " + question)


def chat(question: str) -> str:
    return completion("large", rewrite(question))
