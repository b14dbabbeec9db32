"""The shop's answers as a plain Python class."""
import json
from pathlib import Path
from typing import TypedDict

CATALOGUE = Path(__file__).resolve().parents[1] / "catalogue.json"


class Result(TypedDict):
    answer: str
    context: str


class Shop:
    def __init__(self, greeting: str = ""):
        self.greeting = greeting
        self.catalogue = json.loads(CATALOGUE.read_text("utf-8"))

    def __call__(self, question: str, chat_history: list = None) -> Result:
        asked = question.lower()
        found = [text for article, text in self.catalogue.items() if article in asked]
        answer = found[0] if found else "I only know about our tents, boots, stoves and the like."
        return {"answer": self.greeting + answer, "context": "\n".join(found)}
