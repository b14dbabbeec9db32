"""Builds monitor schedules with the real azure-ai-ml and dumps them, as its users do.

    pip install azure-ai-ml azure-identity
    python tests/peers/azure_monitors.py tests/fixtures/azureml/monitor

The first three are the scripts of Microsoft's article "Monitor quality and token usage of deployed prompt
flow applications" (MicrosoftDocs/azure-ai-docs), with names of ours and the runtime version that the
package still takes. The others use what the classes offer besides. Nothing is sent anywhere.
"""

import json
import sys
from pathlib import Path

from azure.ai.ml.constants import MonitorDatasetContext, MonitorTargetTasks
from azure.ai.ml.entities import (
    AlertNotification,
    BaselineDataRange,
    CronTrigger,
    GenerationSafetyQualityMonitoringMetricThreshold,
    GenerationSafetyQualitySignal,
    GenerationTokenStatisticsMonitorMetricThreshold,
    GenerationTokenStatisticsSignal,
    LlmData,
    MonitorDefinition,
    MonitoringTarget,
    MonitorSchedule,
    RecurrencePattern,
    RecurrenceTrigger,
    ServerlessSparkCompute,
)
from azure.ai.ml.entities._inputs_outputs import Input

EMAILS = ["test@example.com", "def@example.com"]
CONNECTION = (
    "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/rg/providers/"
    "Microsoft.MachineLearningServices/workspaces/proj/connections/aoai-conn"
)
ARTICLE_TRIGGER = CronTrigger(expression="15 10 * * *")
PASS = {"aggregated_groundedness_pass_rate": 0.7, "aggregated_relevance_pass_rate": 0.7,
        "aggregated_coherence_pass_rate": 0.7, "aggregated_fluency_pass_rate": 0.7}


def data(size="P7D", offset="P0D"):
    return LlmData(
        input_data=Input(type="uri_folder", path="azureml:contoso-chatbot-contoso-chatbot-1-app_traces:1"),
        data_column_names={"prompt_column": "question", "completion_column": "answer",
                           "context_column": "context"},
        data_window=BaselineDataRange(lookback_window_size=size, lookback_window_offset=offset),
    )


def quality(**more):
    averages = [{"metricName": "average_fluency", "threshold": {"value": 4}},
                {"metricName": "average_coherence", "threshold": {"value": 4}}]
    settings = dict(
        connection_id=CONNECTION,
        metric_thresholds=GenerationSafetyQualityMonitoringMetricThreshold(
            groundedness={k: v for k, v in PASS.items() if "groundedness" in k},
            relevance={k: v for k, v in PASS.items() if "relevance" in k},
            coherence={k: v for k, v in PASS.items() if "coherence" in k},
            fluency={k: v for k, v in PASS.items() if "fluency" in k},
        ),
        production_data=[data()],
        sampling_rate=1.0,
        properties={"aoai_deployment_name": "gpt-4", "enable_action_analyzer": "false",
                    "azureml.modelmonitor.gsq_thresholds": json.dumps(averages, separators=(",", ":"))},
    )
    settings.update(more)
    return GenerationSafetyQualitySignal(**settings)


def schedule(name, signals, trigger=ARTICLE_TRIGGER, notification=None):
    return MonitorSchedule(
        name=name,
        trigger=trigger,
        create_monitor=MonitorDefinition(
            compute=ServerlessSparkCompute(instance_type="standard_e4s_v3", runtime_version="3.4"),
            monitoring_target=MonitoringTarget(
                ml_task=MonitorTargetTasks.QUESTION_ANSWERING,
                endpoint_deployment_id="azureml:contoso-chatbot:contoso-chatbot-1",
            ),
            monitoring_signals=signals,
            alert_notification=notification or AlertNotification(emails=EMAILS),
        ),
    )


SCHEDULES = [
    schedule("gen_ai_monitor_both_signals",
             {"gsq-signal": quality(), "token-usage-signal": GenerationTokenStatisticsSignal()}),
    schedule("gen_ai_monitor_tokens", {"token-usage-signal": GenerationTokenStatisticsSignal()}),
    schedule("gen_ai_monitor_generation_quality", {"gsq-signal": quality()}),
    schedule(
        "weekly_with_limits",
        {
            "quality": quality(
                production_data=[data("P14D", "P1D")], alert_enabled=True, sampling_rate=0.25,
                metric_thresholds=GenerationSafetyQualityMonitoringMetricThreshold(
                    similarity={"aggregated_similarity_pass_rate": 0.6,
                                "acceptable_similarity_score_per_instance": 4}),
                properties={"aoai_deployment_name": "gpt-4o"}),
            "tokens": GenerationTokenStatisticsSignal(
                alert_enabled=True, sampling_rate=0.1,
                metric_thresholds=GenerationTokenStatisticsMonitorMetricThreshold(
                    totaltoken={"total_token_count": 5000000, "total_token_count_per_group": 100000})),
        },
        trigger=RecurrenceTrigger(
            frequency="week", interval=1, time_zone="W. Europe Standard Time",
            schedule=RecurrencePattern(hours=[6, 18], minutes=[30], week_days=["monday", "thursday"]),
        ),
    ),
]


def main():
    out = Path(sys.argv[1])
    for made in SCHEDULES:
        path = out / f"{made.name}.yml"
        path.unlink(missing_ok=True)
        made.dump(path)
        print(path)


if __name__ == "__main__":
    main()
