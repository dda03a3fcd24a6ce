"""How many votes of a queue's members were in vain is told from its term, which some brokers do not name."""

from io import BytesIO
from types import SimpleNamespace
from typing import Any, cast
from urllib.error import HTTPError

import pytest

from smoke import management
from smoke.deployment import Deployment, Node
from smoke.terms import UNKNOWN, Terms
from smoke.topology import Topology

NODE = Node("a", "rabbit@a", "cluster", "127.0.0.1", 1, 2)
DEPLOYMENT = cast(Deployment, SimpleNamespace(nodes=(NODE,)))


def ties(monkeypatch: pytest.MonkeyPatch, *said: Any) -> int:
    answers = iter(said)

    def get(_: Deployment, _node: Node, path: str) -> Any:
        if not path.endswith("/status"):
            return {"vhost": "/", "name": "q"}
        if isinstance(answer := next(answers), int):
            raise HTTPError(path, answer, "", {}, BytesIO())  # type: ignore[arg-type]
        return [{"Term": term} for term in answer]

    monkeypatch.setattr(management, "get", get)
    return Terms(DEPLOYMENT, Topology(queue="q"), NODE).ties()


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ((1, 1, 1), (1, 1, None), 0),
        ((1, 1, 1), (2, 2, None), 0),
        ((1, 1, 1), (4, 4, ""), 2),
        ((3, 3, 3), (4, 5, None), 1),
    ],
    ids=["no election", "won at once", "two ties", "a member that has not heard of it"],
)
def test_terms_without_a_leader_are_ties(
    before: tuple[object, ...], after: tuple[object, ...], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ties(monkeypatch, before, after) == expected


@pytest.mark.parametrize("status", [400, 404])
def test_where_no_term_is_named_ties_are_not_excluded(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ties(monkeypatch, status) == UNKNOWN


def test_a_broker_that_fails_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ties(monkeypatch, (1, 1, 1), 500, (2, 2, 2)) == 0
