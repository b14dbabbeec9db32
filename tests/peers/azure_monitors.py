"""Builds monitor schedules with the real azure-ai-ml and dumps them, as its users do.

    pip install azure-ai-ml azure-identity
    python tests/peers/azure_monitors.py tests/fixtures/azureml/monitor

The first three are the scripts of Microsoft's article "Monitor quality and token usage of deployed prompt
flow applications" (MicrosoftDocs/azure-ai-docs), with names of ours and the runtime version that the
package still takes. The others use what the classes offer besides. Nothing is sent anywhere.
"""

import json
import sys
from datetime import datetime, timezone
from pathlib import Path

from azure.ai.ml.constants import MonitorDatasetContext, MonitorTargetTasks
from azure.ai.ml.entities import (
    AlertNotification,
    BaselineDataRange,
    CategoricalDriftMetrics,
    CronTrigger,
    CustomMonitoringMetricThreshold,
    CustomMonitoringSignal,
    DataDriftMetricThreshold,
    DataDriftSignal,
    DataQualitySignal,
    FeatureAttributionDriftMetricThreshold,
    FeatureAttributionDriftSignal,
    GenerationSafetyQualityMonitoringMetricThreshold,
    GenerationSafetyQualitySignal,
    GenerationTokenStatisticsMonitorMetricThreshold,
    GenerationTokenStatisticsSignal,
    LlmData,
    MonitorDefinition,
    ModelPerformanceSignal,
    MonitoringTarget,
    MonitorSchedule,
    NumericalDriftMetrics,
    PredictionDriftMetricThreshold,
    PredictionDriftSignal,
    RecurrencePattern,
    RecurrenceTrigger,
    ServerlessSparkCompute,
)
from azure.ai.ml.entities._inputs_outputs import Input
from azure.ai.ml.entities._monitoring.signals import (
    Connection,
    DataSegment,
    FADProductionData,
    ProductionData,
    ReferenceData,
)
from azure.ai.ml.entities._monitoring.thresholds import (
    DataQualityMetricThreshold,
    DataQualityMetricsNumerical,
    ModelPerformanceClassificationThresholds,
    ModelPerformanceMetricThreshold,
)

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


def folder(name):
    return Input(type="uri_folder", path=f"azureml:{name}:1")


def drifting():
    """One signal of each kind that has no counterpart in flowtap."""
    training = ReferenceData(
        input_data=Input(type="mltable", path="azureml:training:1"),
        data_context=MonitorDatasetContext.TRAINING,
        data_column_names={"target_column": "is_good"},
    )
    production = ProductionData(
        input_data=folder("production"), data_context=MonitorDatasetContext.MODEL_INPUTS,
        pre_processing_component="azureml:unpack_logs:3",
        data_window=BaselineDataRange(lookback_window_size="P5D", lookback_window_offset="P1D"),
    )
    return {
        "data-drift": DataDriftSignal(
            production_data=production, reference_data=training, features=["question_length"],
            data_segment=DataSegment(feature_name="language", feature_values=["de", "en"]),
            metric_thresholds=DataDriftMetricThreshold(
                numerical=NumericalDriftMetrics(jensen_shannon_distance=0.02),
                categorical=CategoricalDriftMetrics(pearsons_chi_squared_test=0.03)),
            alert_enabled=True),
        "data-quality": DataQualitySignal(
            production_data=production, reference_data=training, features="all_features",
            metric_thresholds=DataQualityMetricThreshold(
                numerical=DataQualityMetricsNumerical(null_value_rate=0.041))),
        "prediction-drift": PredictionDriftSignal(
            production_data=production, reference_data=training,
            metric_thresholds=PredictionDriftMetricThreshold(
                numerical=NumericalDriftMetrics(population_stability_index=0.15))),
        "attribution": FeatureAttributionDriftSignal(
            production_data=[FADProductionData(
                input_data=folder("inputs"), data_context=MonitorDatasetContext.MODEL_INPUTS,
                data_column_names={"correlation_id": "request_id"})],
            reference_data=training,
            metric_thresholds=FeatureAttributionDriftMetricThreshold(
                normalized_discounted_cumulative_gain=0.91)),
        "performance": ModelPerformanceSignal(
            production_data=production, reference_data=training,
            metric_thresholds=ModelPerformanceMetricThreshold(
                classification=ModelPerformanceClassificationThresholds(accuracy=0.92))),
        "politeness": CustomMonitoringSignal(
            component_id="azureml:politeness_component:2",
            inputs={"tones": Input(type="uri_file", path="azureml:tones:1")},
            input_data={"answers": ReferenceData(input_data=folder("answers"))},
            metric_thresholds=[CustomMonitoringMetricThreshold(metric_name="std_deviation", threshold=2.5)],
            connection=Connection(environment_variables={"AZUREML_OAI_MODEL": "gpt-4o"})),
    }


def schedule(name, signals, trigger=ARTICLE_TRIGGER, notification=None, **more):
    return MonitorSchedule(
        name=name,
        trigger=trigger,
        **more,
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
    schedule(
        "signals_of_every_kind",
        {
            **drifting(),
            "quality": quality(
                production_data=[data("P3D", "P0D"), data("P9D", "P2D")], sampling_rate=0.5,
                metric_thresholds=GenerationSafetyQualityMonitoringMetricThreshold(
                    groundedness={"aggregated_groundedness_pass_rate": 0.8,
                                  "acceptable_groundedness_score_per_instance": 3.5},
                    fluency={"acceptable_fluency_score_per_instance": 2})),
            "tokens": GenerationTokenStatisticsSignal(
                production_data=data("P2D", "P1D"), properties={"team": "chat"}),
        },
        trigger=RecurrenceTrigger(
            frequency="month", interval=2, start_time=datetime(2026, 3, 1, 4, 5, 6), time_zone="Tokyo Standard Time",
            end_time="2027-12-31T00:00:00", schedule=RecurrencePattern(hours=7, minutes=[0, 45], month_days=[1, 15]),
        ),
        display_name="All of it", description="what the classes offer", tags={"cost": "centre 7"},
        properties={"note": "kept"},
    ),
    schedule(
        "hourly_tokens",
        {"tokens": GenerationTokenStatisticsSignal(alert_enabled=True)},
        trigger=RecurrenceTrigger(frequency="hour", interval=6),
        notification="azmonitoring",
    ),
    schedule(
        "cron_between",
        {"gsq": quality(alert_enabled=True)},
        trigger=CronTrigger(
            expression="*/30 8-17 * * 1-5", start_time=datetime(2026, 1, 1, 8, 0, tzinfo=timezone.utc),
            end_time=datetime(2026, 12, 31), time_zone="India Standard Time"),
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
