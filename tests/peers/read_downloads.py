"""Reads three files of samples as programs do; prints the questions that each holds, as JSON."""
import csv
import json
import sys

import pandas
import pyarrow.parquet

as_csv, as_lines, as_parquet = sys.argv[1:]
with open(as_csv, newline="", encoding="utf-8") as file:
    rows = list(csv.DictReader(file, strict=True))
with open(as_lines, encoding="utf-8", newline="\n") as file:
    lines = [json.loads(line) for line in file]
print(json.dumps({
    "csv": [row["question"] for row in rows],
    "columns_are_whole": all(None not in row and None not in row.values() for row in rows),
    "pandas": pandas.read_csv(as_csv, dtype=str, keep_default_na=False)["question"].tolist(),
    "jsonl": [line["question"] for line in lines],
    "parquet": pyarrow.parquet.read_table(as_parquet)["question"].to_pylist(),
}))
