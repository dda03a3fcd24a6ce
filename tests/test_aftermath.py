"""What is asserted after a fault: each check on its own, against brokers that say what they are told."""

import io
from collections.abc import Callable
from contextlib import nullcontext
from email.message import Message
from types import SimpleNamespace
from typing import Any, cast
from urllib.error import HTTPError

import pytest

from smoke import aftermath, balancer_stats, management
from smoke.balancer_stats import Server
from smoke.deployment import Deployment, Node
from smoke.history import Event, Kind
from smoke.judge import judge
from smoke.topology import Topology

NODES = tuple(Node(name, f"rabbit@{name}", "cluster", "127.0.0.1", 1, 2) for name in ("a", "b", "c"))
DEPLOYMENT = cast(Deployment, SimpleNamespace(nodes=NODES))
NAMES = [node.nodename for node in NODES]


def quorum(**changes: object) -> dict[str, object]:
    queue = {"name": "q", "vhost": "/", "type": "quorum", "leader": NAMES[0], "members": NAMES, "online": NAMES}
    return {**queue, **changes}


def answering(monkeypatch: pytest.MonkeyPatch, answers: Callable[[Node], dict[str, Any]] | dict[str, Any]) -> None:
    def get(_: Deployment, node: Node, path: str) -> Any:
        said = answers(node) if callable(answers) else answers
        if path not in said:
            raise HTTPError(path, 404, "Not Found", Message(), io.BytesIO())
        return said[path]

    monkeypatch.setattr(management, "get", get)


def member(name: str, **changes: object) -> dict[str, object]:
    return {"name": name, "running": True, "partitions": []} | changes


@pytest.mark.parametrize(
    ("members", "complaint"),
    [
        ([member("rabbit@a"), member("rabbit@b")], ""),
        ([member("rabbit@a"), member("rabbit@b", running=False)], "'running': False"),
        ([member("rabbit@a", partitions=["rabbit@b"]), member("rabbit@b")], r"'partitions': \['rabbit@b'\]"),
        ([member("rabbit@a")], r"the members are \['rabbit@a'\]"),
        (
            [member("rabbit@a", net_ticktime=10), member("rabbit@b", net_ticktime=60)],
            "rabbit@b goes by .* 60 s instead of 10 s",
        ),
    ],
    ids=["whole", "down", "partitioned", "forgotten", "ticktime"],
)
def test_a_cluster_is_whole_if_each_member_runs_as_it_was_given_and_sees_no_partition(
    members: list[dict[str, object]], complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"rabbitmq_net_ticktime": 10}
    nodes = [SimpleNamespace(name=name, nodename=f"rabbit@{name}", settings=settings) for name in ("a", "b")]
    deployment = cast(Deployment, SimpleNamespace(nodes=nodes, balancers=[], peers=lambda _: nodes))
    monkeypatch.setattr(management, "get", lambda *_: members)
    with pytest.raises(AssertionError, match=complaint) if complaint else nullcontext():
        aftermath.assert_whole(deployment, within=0)


@pytest.mark.parametrize(
    ("agent", "complaint"),
    [
        ("via agent : up (sees 2 of 2 nodes)", ""),
        ("", ""),
        ("via agent : up (sees 2 of 4 nodes)", "the agent of a counts 4 nodes where there are 2"),
    ],
    ids=["all", "no agent", "members that are gone"],
)
def test_a_cluster_is_whole_if_no_agent_counts_a_member_that_is_gone(
    agent: str, complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = [SimpleNamespace(name=name) for name in ("a", "b")]
    balancers = [SimpleNamespace(name="lb")]
    deployment = cast(Deployment, SimpleNamespace(nodes=nodes, balancers=balancers, peers=lambda _: nodes))
    monkeypatch.setattr(aftermath, "_complete", lambda *_: True)
    servers = {name: Server(name, "UP", sessions=0, backup=False, agent=agent) for name in ("a", "b")}
    monkeypatch.setattr(balancer_stats, "servers", lambda _: servers)
    with pytest.raises(AssertionError, match=complaint) if complaint else nullcontext():
        aftermath.assert_whole(deployment, within=0)


@pytest.mark.parametrize(
    ("queue", "complaint"),
    [
        ({"messages_unacknowledged": 0, "consumer_details": []}, ""),
        ({"messages_unacknowledged": 0, "consumer_details": [{"channel_details": []}]}, ""),
        ({"messages_unacknowledged": 3, "consumer_details": []}, "3 messages of q .*, and its channels hold 0"),
        (
            {"messages_unacknowledged": 0, "consumer_details": [{"channel_details": {"name": "ch (1)"}}]},
            "0 messages of q .*, and its channels hold 2",
        ),
        ({}, "None messages of q"),
    ],
    ids=["none", "a channel that goes", "orphans", "in hand", "not known yet"],
)
def test_what_is_unacknowledged_when_all_is_done_is_an_orphan(
    queue: dict[str, object], complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, {"queues/%2F/q": queue, "channels/ch%20%281%29": {"messages_unacknowledged": 2}})
    with pytest.raises(AssertionError, match=complaint) if complaint else nullcontext():
        aftermath.assert_no_orphans(DEPLOYMENT, Topology(queue="q"), within=0)


def test_quorum_queues_with_leader_and_members_are_replicated(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, {"queues": [quorum(), {"name": "c", "type": "classic", "vhost": "/"}]})
    aftermath.assert_replicated(DEPLOYMENT, within=0)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"leader": ""}, "q has no leader"),
        ({"online": NAMES[:2]}, "q misses .'rabbit@c'."),
    ],
)
def test_one_node_that_sees_less_is_named(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, object], complaint: str
) -> None:
    answering(monkeypatch, lambda node: {"queues": [quorum(**changes) if node.name == "b" else quorum()]})
    with pytest.raises(AssertionError, match=f"as seen from b.*{complaint}"):
        aftermath.assert_replicated(DEPLOYMENT, within=0)


def raft(
    *states: str, logs: tuple[object, ...] = (9, 9, 9), terms: tuple[int, ...] = (2, 2, 2)
) -> list[dict[str, object]]:
    return [
        {"Node Name": name, "Raft State": state, "Last Log Index": log, "Term": term}
        for name, state, log, term in zip(NAMES, states, logs, terms, strict=True)
    ]


@pytest.mark.parametrize(
    ("members", "complaint"),
    [
        (raft("leader", "follower", "follower"), ""),
        (raft("leader", "follower", "follower", logs=(9, 10, 9)), ""),
        (raft("leader", "follower", "follower", logs=(9, 9, 7)), r"have not caught up.*'rabbit@c', 'follower', 2, 7"),
        (raft("leader", "follower", "noproc", logs=(9, 9, "")), "have not caught up.*'rabbit@c', 'noproc'"),
        (raft("follower", "follower", "candidate"), "q has no leader"),
        (raft("leader", "follower", "leader"), "q has no leader"),
        (raft("leader", "follower", "follower", terms=(3, 3, 2)), "follow different leaders"),
    ],
    ids=["equal", "ahead of the leader's answer", "late", "gone", "none elected", "two", "an old leader's"],
)
def test_members_have_caught_up_if_they_have_what_their_one_leader_had(
    members: list[dict[str, object]], complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, {"queues": [quorum()], "queues/quorum/%2F/q/status": members})
    with pytest.raises(AssertionError, match=complaint) if complaint else nullcontext():
        aftermath.assert_replicated(DEPLOYMENT, within=0)


def test_a_member_that_says_nothing_of_its_log_has_not_caught_up(monkeypatch: pytest.MonkeyPatch) -> None:
    members = [*raft("leader", "follower", "follower")[:2], {"Node Name": NAMES[2], "Raft State": "noproc"}]
    answering(monkeypatch, {"queues": [quorum()], "queues/quorum/%2F/q/status": members})
    with pytest.raises(AssertionError, match=r"have not caught up.*'noproc'"):
        aftermath.assert_replicated(DEPLOYMENT, within=0)


@pytest.mark.parametrize(("count", "fits"), [(0, True), (15, True), (16, False)])
def test_a_message_near_the_delivery_limit_is_too_near(count: int, fits: bool) -> None:
    verdict = judge([Event(1.0, Kind.delivery, "c", "p", 1, 1, delivery_count=count)])
    if fits:
        aftermath.assert_clear_of_delivery_limit(verdict)
    else:
        with pytest.raises(AssertionError, match="delivery count 16; queues give it up at 20"):
            aftermath.assert_clear_of_delivery_limit(verdict)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"a": 6, "b": 6, "c": 0}, ""),
        ({"a": 6, "b": 5, "c": 1}, "landed on a server that is not fit: {'c': 1}"),
        ({"a": 0, "b": 0, "c": 0}, "12 connections were opened, but the balancer gave only"),
    ],
)
def test_new_connections_avoid_a_node_that_is_not_fit(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, int], complaint: str
) -> None:
    monkeypatch.setattr(aftermath, "connections_given", lambda *_: given)
    if complaint:
        with pytest.raises(AssertionError, match=complaint):
            aftermath.assert_avoided(DEPLOYMENT, NODES[2])
    else:
        aftermath.assert_avoided(DEPLOYMENT, NODES[2])
