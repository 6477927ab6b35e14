"""Questions about runs, costs and failures, each with one answer from the store.

from stepstream import queries

answer = queries.ask(client, "cost", by="model", since="7d")
answer.columns, answer.rows, answer.sentence
"""

from __future__ import annotations

from stepstream.queries.answer import Answer
from stepstream.queries.ask import ask
from stepstream.queries.catalogue import QUESTIONS, find
from stepstream.queries.parameters import QuestionError

__all__ = ["QUESTIONS", "Answer", "QuestionError", "ask", "find"]
