"""Reads an export as Azure ML's own components read the collector's folder: every line of a collection,
one row for each element of `data`, inputs and outputs joined by `correlationid`. Prints JSON."""

import glob
import json
import sys

import pandas as pd


def collection(folder, name):
    """All rows of a collection, with their correlation id."""
    files = sorted(glob.glob(f"{folder}/modelDataCollector/*/*/{name}/????/??/??/??/*.jsonl"))
    lines = pd.concat([pd.read_json(file, lines=True, dtype=False) for file in files], ignore_index=True)
    rows = lines.explode("data", ignore_index=True)
    table = pd.json_normalize(rows["data"].tolist(), max_level=0)
    table["correlationid"] = rows["correlationid"]
    return table


folder = sys.argv[1]
inputs, outputs = collection(folder, "model_inputs"), collection(folder, "model_outputs")
joined = inputs.merge(outputs, on="correlationid", how="inner", validate="one_to_one")
print(json.dumps({"inputs": len(inputs), "outputs": len(outputs), "joined": joined.to_dict(orient="records")}))
