"""Reads Parquet as its users do: a file, or all of a dataset below a folder, by pandas and pyarrow and by
DuckDB. Prints what each saw as JSON.

    read_tables.py FILE.parquet
    read_tables.py FOLDER DATASET
"""

import json
import sys

import duckdb
import pandas as pd
import pyarrow.parquet as pq

ASKED = {
    "exchanges": "SELECT count(*), min(question), sum(usage.total), min(epoch_us(time)), min(model.response) FROM {}",
    "usage": "SELECT sum(count)::INT, sum(tokens.reported.input)::INT, sum(latency_ms.count)::INT FROM {}",
    "ledger": "SELECT sum(seen)::INT, bool_and(closed) FROM {}",
}


def plain(value):
    """A cell of a frame as JSON has it."""
    if isinstance(value, pd.Timestamp):
        return value.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    if isinstance(value, dict):
        return {name: plain(of) for name, of in value.items()}
    if pd.isna(value):
        return None
    return value.item() if hasattr(value, "item") else value


if len(sys.argv) == 2:
    where, dataset = sys.argv[1], "exchanges"
    table, source = pq.read_table(where), f"read_parquet('{where}')"
    groups = pq.ParquetFile(where).num_row_groups
else:
    where, dataset = f"{sys.argv[1]}/{sys.argv[2]}", sys.argv[2]
    table = pq.read_table(where, partitioning=None)
    source, groups = f"read_parquet('{where}/**/*.parquet', hive_partitioning = true)", None
frame = table.to_pandas()
print(json.dumps({
    "columns": {field.name: str(field.type) for field in table.schema},
    "rows": [{name: plain(value) for name, value in row.items()} for row in frame.to_dict("records")],
    "groups": groups,
    "pandas_sees_times": any(isinstance(of, pd.DatetimeTZDtype) for of in frame.dtypes),
    "duckdb": duckdb.sql(ASKED[dataset].format(source)).fetchall()[0],
}))
