"""Sends spans of model calls as any program instrumented with OpenTelemetry would: `spans.py PROTOCOL
ENDPOINT`, with PROTOCOL grpc or http. Each line of the input is a traceparent and a number N; a workflow of
two calls is told under it, the first of N tokens."""
import importlib
import sys

from opentelemetry import trace
from opentelemetry.propagate import extract
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

protocol, endpoint = sys.argv[1:]
exporters = importlib.import_module(f"opentelemetry.exporter.otlp.proto.{protocol}.trace_exporter")
options = {"insecure": True} if protocol == "grpc" else {}
if protocol == "http":
    from opentelemetry.exporter.otlp.proto.http import Compression

    options["compression"] = Compression.Gzip
provider = TracerProvider(resource=Resource.create({"service.name": "agent"}))
exporter = exporters.OTLPSpanExporter(endpoint=endpoint, **options)
provider.add_span_processor(BatchSpanProcessor(exporter))
tracer = provider.get_tracer("agent")


def chat(asked, answered, tokens):
    names = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "azure.ai.openai"}
    with tracer.start_as_current_span(f"chat {asked}", kind=trace.SpanKind.CLIENT, attributes=names) as span:
        span.set_attribute("gen_ai.request.model", asked)
        span.set_attribute("gen_ai.response.model", answered)
        span.set_attribute("gen_ai.input.messages", '[{"role": "user", "parts": [{"content": "hello"}]}]')
        for name, value in tokens.items():
            span.set_attribute(f"gen_ai.usage.{name}", value)


for line in sys.stdin:
    traceparent, number = line.split()
    with tracer.start_as_current_span("invoke_agent shop", extract({"traceparent": traceparent})) as agent:
        agent.set_attribute("gen_ai.operation.name", "invoke_agent")
        # An agent's span sums up its calls: these must not count twice.
        agent.set_attribute("gen_ai.usage.input_tokens", int(number) + 7)
        chat("prod", "gpt-4o-2024-11-20", {"input_tokens": int(number), "output_tokens": 3})
        chat("mini", "gpt-4o-mini", {"prompt_tokens": 7, "completion_tokens": 2})
provider.shutdown()
