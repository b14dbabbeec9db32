"""Finds what the catalogue says about the articles in the question."""
import json
from pathlib import Path

from promptflow.core import tool

CATALOGUE = json.loads((Path(__file__).resolve().parents[1] / "catalogue.json").read_text("utf-8"))


@tool
def look_up(question: str) -> str:
    asked = question.lower()
    return "\n".join(text for article, text in CATALOGUE.items() if article in asked)
