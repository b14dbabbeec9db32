"""One run of a flowtap monitor on Spark: the same bucket, the same figures, the same result.

    flowtap monitor plan daily --config flowtap.yaml > plan.json
    spark-submit flowtap_monitor.py --bucket s3a://samples/prod --plan plan.json

Spark counts what the window holds (scores, and totals of all requests); the driver makes figures of the
counts, as src/monitor does. Windows, limits and constants come with the plan, so that they are said in
one place; docs/MONITORS.md has the formulas and their sources. Exits 0 ok, 3 violated, 4 not enough data.
README.md beside this file tells how to run it and when.
"""

import argparse
import gzip
import json
import os
import sys
import time
from datetime import datetime, timezone

from flowtap_counts import count_scores, count_usage
from flowtap_figures import operations, quality, tokens, worst


def objects(spark, bucket, dataset, plan):
    """The objects of the window's days, by name."""
    deployment = plan["scope"]["deployment"] or "*"
    days = [f"{bucket}/{dataset}/deployment={deployment}/date={date}" for date in plan["dates"]]
    context = spark.sparkContext
    hadoop = context._jvm.org.apache.hadoop.fs
    found = []
    for day in days:
        path = hadoop.Path(f"{day}/hour=*/*")
        if len(path.getFileSystem(context._jsc.hadoopConfiguration()).globStatus(path) or []):
            found.append(path.toString())
    if not found:
        return context.emptyRDD()
    return context.binaryFiles(",".join(found), context.defaultParallelism)


def hour_of(micros_since):
    return datetime.fromtimestamp(micros_since // 1_000_000, timezone.utc).strftime("%Y-%m-%dT%H")


def compute(spark, bucket, plan):
    """The signals, how many samples could not be scored, and how many objects could not be read."""
    first, last = hour_of(plan["bounds_us"]["from"]), hour_of(plan["bounds_us"]["to"])
    signals, unscored, unreadable = [], 0, 0
    if plan["quality"] is not None:
        scores = objects(spark, bucket, "scores", plan)
        scores, unscored, unreadable = count_scores(scores, plan, first, last)
        signals.append(quality(plan, scores))
    if plan["tokens"] is not None or plan["operations"] is not None:
        usage = count_usage(objects(spark, bucket, "usage", plan), plan, first, last)
        unreadable += usage.unreadable
        signals += [tokens(plan, usage)] if plan["tokens"] is not None else []
        signals += [operations(plan, usage)] if plan["operations"] is not None else []
    return signals, unscored, unreadable


def ulid(now):
    """48 bits of milliseconds, 80 random ones (https://github.com/ulid/spec)."""
    number = int(now * 1000) << 80 | int.from_bytes(os.urandom(10), "big")
    return "".join("0123456789ABCDEFGHJKMNPQRSTVWXYZ"[number >> 5 * i & 31] for i in reversed(range(26)))


def result(plan, computed, instance):
    signals, unscored, unreadable = computed
    now = time.time()
    attempt = ulid(now)
    made = datetime.fromtimestamp(now, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return {
        "schema": plan["words"]["schemas"]["monitors"], "id": plan["id"] + attempt, "attempt": attempt,
        "monitor": plan["monitor"], "at": plan["at"], "made": made, "instance": instance,
        "trigger": "manual", "from": plan["from"], "to": plan["to"], "scope": plan["scope"],
        "method": plan["method"], "state": worst(of["state"] for of in signals), "signals": signals,
        "alerts": [], "unscored": unscored, "unreadable": unreadable,
    }


def store(spark, bucket, plan, run):
    """Puts the result beside those that flowtap makes."""
    context = spark.sparkContext
    path = context._jvm.org.apache.hadoop.fs.Path(f"{bucket}/{plan['object']}{run['attempt']}.jsonl.gz")
    files = path.getFileSystem(context._jsc.hadoopConfiguration())
    files.setWriteChecksum(False)
    stream = files.create(path, True)
    stream.write(gzip.compress(json.dumps(run).encode() + b"\n"))
    stream.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bucket", required=True, help="s3a://, abfss://, gs:// or file:// folder")
    parser.add_argument("--plan", required=True, help="what `flowtap monitor plan` printed, or - for stdin")
    parser.add_argument("--instance", default="spark", help="who made it, in the result")
    parser.add_argument("--dry-run", action="store_true", help="print the results and store nothing")
    arguments = parser.parse_args()
    with sys.stdin if arguments.plan == "-" else open(arguments.plan) as file:
        plans = [json.loads(line) for line in file if line.strip()]
    unknown = [plan.get("schema") for plan in plans if plan.get("schema") != "flowtap.plan.v1"]
    if unknown or not plans:
        parser.error(f"{arguments.plan}: not what `flowtap monitor plan` of this version prints")

    from pyspark.sql import SparkSession

    # An object may be removed by its lifecycle rule since it was listed.
    missing = ("spark.files.ignoreMissingFiles", "true")
    spark = SparkSession.builder.appName("flowtap monitor").config(*missing).getOrCreate()
    # Executors count; whoever ships the files by --py-files loses nothing by it.
    spark.sparkContext.addPyFile(os.path.join(os.path.dirname(os.path.abspath(__file__)), "flowtap_counts.py"))
    bucket, states = arguments.bucket.rstrip("/"), []
    for plan in plans:
        run = result(plan, compute(spark, bucket, plan), arguments.instance)
        if not arguments.dry_run:
            store(spark, bucket, plan, run)
        print(json.dumps(run), flush=True)
        states.append(run["state"])
    spark.stop()
    sys.exit({"ok": 0, "violated": 3, "not_enough_data": 4}[worst(states)])


if __name__ == "__main__":
    main()
