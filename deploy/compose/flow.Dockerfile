# The example flow, as prompt flow serves it; its telemetry is off.
FROM python:3.12-slim-bookworm
RUN pip install --no-cache-dir promptflow==1.18.5 promptflow-core==1.18.5 promptflow-devkit==1.18.5 \
    && mkdir -p /home/flow/.promptflow \
    && printf 'telemetry:\n  enabled: false\n' >/home/flow/.promptflow/pf.yaml \
    && chown -R 65532:65532 /home/flow
ENV HOME=/home/flow PF_DISABLE_TRACING=true APPLICATIONINSIGHTS_STATSBEAT_DISABLED_ALL=true
COPY --chown=65532:65532 examples/flows /flows
USER 65532:65532
EXPOSE 8080
CMD ["pf", "flow", "serve", "--skip-open-browser", "--host", "0.0.0.0", "--port", "8080", "--source", "/flows/qa_basic"]
