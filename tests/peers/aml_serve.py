"""prompt flow's server as the image of an Azure ML deployment runs it, on loopback: `aml_serve.py PORT`.

The environment names the flow (PROMPTFLOW_PROJECT_PATH), the engine (ENGINE: flask or fastapi) and where
the data collector's client posts to (AZUREML_MDC_HOST, AZUREML_MDC_PORT).

prompt flow 1.18 replaces a method of OpenTelemetry's OTLP exporters whose arguments have changed since;
the exporters are taken as they are instead."""
import importlib
import os
import sys

from promptflow.core._serving.extension import otel_exporter_provider_factory as providers

PLAIN = {
    "OTLPTraceExporterProvider": ("trace_exporter", "OTLPSpanExporter"),
    "OTLPMetricsExporterProvider": ("metric_exporter", "OTLPMetricExporter"),
    "OTLPLogExporterProvider": ("_log_exporter", "OTLPLogExporter"),
}


def plain(module, name):
    def get_exporter(self, **_):
        exporters = importlib.import_module("opentelemetry.exporter.otlp.proto.http." + module)
        return getattr(exporters, name)(endpoint=self.otel_exporter_endpoint)

    return get_exporter


for provider, (module, name) in PLAIN.items():
    getattr(providers, provider).get_exporter = plain(module, name)

from promptflow.core._serving.app import create_app  # noqa: E402, after the exporters are replaced

engine, port = os.environ.get("ENGINE", "flask"), int(sys.argv[1])
app = create_app(engine=engine, extension_type="azureml")
if engine == "flask":
    from waitress import serve

    serve(app, host="127.0.0.1", port=port, threads=4)
else:
    import uvicorn

    uvicorn.run(app, host="127.0.0.1", port=port)
