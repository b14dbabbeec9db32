#!/usr/bin/env bash
# Installs what reads Parquet: pandas with pyarrow, and DuckDB, into .cache/peers/tables.

source "$(dirname "${BASH_SOURCE[0]}")/venv.sh"
make_venv tables
