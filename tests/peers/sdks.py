"""The same calls of the openai and anthropic SDKs, directly and through flowtap."""
import asyncio

# Headers that differ between two calls of the same server, with or without a proxy.
MAY_DIFFER = {"date", "x-request-id", "openai-processing-ms"}
ONE_HOP = {"connection", "keep-alive"}
# Fields of an answer that differ likewise.
FRESH = {"id", "created", "request_id", "_request_id"}


def compare(direct, via, warm=False):
    """Runs each call of `direct` and its twin of `via`; the faults found. `warm` runs each once before:
    a model with a cold cache rounds differently, and may then choose another word."""
    faults = []
    for name, call in direct.items():
        if warm:
            outcome(call)
        ours, theirs = outcome(call), outcome(via[name])
        if ours != theirs:
            faults.append(f"{name}: direct {ours!r}, through flowtap {theirs!r}")
    return faults


def outcome(call):
    """What a call gives, errors of the server included; any other error is one of this comparison."""
    import anthropic
    import openai

    try:
        return stable(call())
    except (openai.APIStatusError, anthropic.APIStatusError) as error:
        return type(error).__name__, error.status_code, error.body, headers(error.response)
    except (openai.APIError, anthropic.APIError) as error:
        return type(error).__name__, str(error)


def stable(value):
    """The value without what is fresh in every answer."""
    if hasattr(value, "model_dump"):
        value = value.model_dump()
    if isinstance(value, dict):
        return {key: stable(inner) for key, inner in value.items() if key not in FRESH}
    if isinstance(value, (list, tuple)):
        return [stable(inner) for inner in value]
    return value


def headers(response):
    raw = ((name.decode(), value.decode()) for name, value in response.headers.raw)
    kept = [(name, value) for name, value in raw if name.lower() not in ONE_HOP]
    return [(name, "*" if name.lower() in MAY_DIFFER else value) for name, value in kept]


def openai_calls(base_url, model):
    """The calls made of an OpenAI-compatible server."""
    import openai

    settings = {"base_url": base_url, "api_key": "sk-not-a-secret", "max_retries": 0, "timeout": 120}
    client = openai.OpenAI(**settings)
    asked = {
        "model": model,
        "messages": [{"role": "user", "content": "Say: the tent — 3000 mm, naïve café 🏕."}],
        "max_tokens": 12,
        "temperature": 0.0,
        "seed": 7,
    }

    async def streamed_async():
        async with openai.AsyncOpenAI(**settings) as other:
            return [chunk async for chunk in await other.chat.completions.create(**asked, stream=True)]

    def raw(call):
        response = call.with_raw_response.create(**asked)
        return headers(response), response.parse()

    return {
        "models": lambda: client.models.list().data,
        "chat": lambda: client.chat.completions.create(**asked),
        "chat, raw": lambda: raw(client.chat.completions),
        "chat, streamed": lambda: list(client.chat.completions.create(**asked, stream=True)),
        "chat, streamed, async": lambda: asyncio.run(streamed_async()),
        "completion": lambda: client.completions.create(model=model, prompt="The tent", max_tokens=6, temperature=0.0, seed=7),
        "completion, streamed": lambda: list(
            client.completions.create(model=model, prompt="The tent", max_tokens=6, temperature=0.0, seed=7, stream=True)
        ),
        "refused": lambda: client.chat.completions.create(**{**asked, "temperature": "warm"}),
        "unknown path": lambda: client.post("/nothing", cast_to=object, body={}),
    }


def anthropic_calls(base_url):
    """The calls made of a server that speaks Anthropic's messages."""
    import anthropic

    settings = {"base_url": base_url, "api_key": "sk-ant-not-a-secret", "max_retries": 0, "timeout": 30}
    client = anthropic.Anthropic(**settings)
    messages = [{"role": "user", "content": "Is the tent waterproof? — naïve café 🏕"}]
    asked = {"model": "claude-scripted-1", "max_tokens": 64, "messages": messages}
    tools = [{"name": "price_of", "input_schema": {"type": "object", "properties": {"article": {"type": "string"}}}}]

    def streamed(**more):
        with client.messages.stream(**{**asked, **more}) as stream:
            events = list(stream)
            return events, stream.get_final_message()

    async def streamed_async():
        async with anthropic.AsyncAnthropic(**settings) as other:
            return [event async for event in await other.messages.create(**asked, stream=True)]

    def raw():
        response = client.messages.with_raw_response.create(**asked)
        return headers(response), response.parse()

    return {
        "message": lambda: client.messages.create(**asked),
        "message, raw": raw,
        "message, streamed": streamed,
        "message, streamed, async": lambda: asyncio.run(streamed_async()),
        "raw events": lambda: list(client.messages.create(**asked, stream=True)),
        "tool, streamed": lambda: streamed(model="claude-tools", tools=tools),
        "error within a stream": lambda: streamed(model="claude-failing"),
        "count tokens": lambda: client.messages.count_tokens(model="claude-scripted-1", messages=messages),
        "unknown model": lambda: client.messages.create(**{**asked, "model": "claude-nobody"}),
        "rate limit": lambda: client.messages.create(**{**asked, "model": "claude-limited"}),
        "overloaded": lambda: client.messages.create(**{**asked, "model": "claude-overloaded"}),
    }
