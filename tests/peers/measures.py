"""Writes tests/fixtures/evaluate/measures.json: what the reference implementations say of pairs of
texts. Run it by hand in an environment with sacrebleu 2.6.0, rouge-score 0.1.2 and the source of
azure-ai-evaluation 1.18.10 (its F1 is that of SQuAD):

    python tests/peers/measures.py > tests/fixtures/evaluate/measures.json
"""
import ast
import importlib.util
import json
import pathlib
import random
from collections import Counter

from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU


def reference_f1():
    """The method `_compute_f1_score` of the installed package, without importing what it depends on."""
    home = pathlib.Path(importlib.util.find_spec("azure").submodule_search_locations[0])
    source = (home / "ai/evaluation/_evaluators/_f1_score/_f1_score.py").read_text()
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name == "_compute_f1_score":
            node.decorator_list = []
            function = node
    scope = {"Counter": Counter, "List": list, "Optional": object}
    exec(compile(ast.Module([function], []), "f1", "exec"), scope)
    return scope["_compute_f1_score"]


WORDS = "the a an tent keeps rain out Paris, lies on Seine. 3,000 mm 3.14 of water! don't it's well-known (yes) \"no\" A.B. x-ray 50% $5 naïve café".split()
FIXED = [
    ("Paris is the capital of France.", "The capital of France is Paris."),
    ("Paris", "Paris"),
    ("paris", "Paris."),
    ("London", "Paris"),
    ("the", "a"),
    ("The tent keeps 3,000 mm of rain out.", "The rainfly keeps 3,000 mm out, the tent's floor 5,000 mm."),
    ("yes", "It is, yes: well-known since 1999-2001."),
    ("one two three four five six seven eight", "one two three four nine ten"),
    ("a b c d a b c d", "a b c d"),
    ("Zelt & Plane <b>bold</b> &quot;quoted&quot; &amp;", "Zelt und Plane \"quoted\" &"),
    ("line one\nline two", "line one line two"),
    ("naïve café — “quotes”", "naive cafe - quotes"),
    ("北京是中国的首都", "中国的首都是北京"),
]


def pairs():
    yield from FIXED
    random.seed(7)
    for _ in range(60):
        text = lambda: " ".join(random.choices(WORDS, k=random.randint(1, 25)))
        truth = text()
        words = truth.split()
        random.shuffle(words)
        yield (text() if random.random() < 0.5 else " ".join(words[: random.randint(1, len(words))])), truth


f1, rouge = reference_f1(), RougeScorer(["rougeL"], use_stemmer=False)
bleu = BLEU(effective_order=True)
rows = [
    {
        "answer": answer,
        "ground_truth": truth,
        "f1": f1(answer, truth) if f1.__code__.co_argcount == 2 else f1(None, answer, truth),
        "bleu": bleu.sentence_score(answer, [truth]).score / 100,
        "rouge_l": rouge.score(truth, answer)["rougeL"].fmeasure,
    }
    for answer, truth in pairs()
]
print(json.dumps(rows, indent=1, ensure_ascii=False))
