"""What consumer and producer have in common, tried with a consumer that expects no messages."""

import threading
from functools import partial

import pytest
from pika import spec

from smoke.consumer import Consumer
from smoke.history import History, Kind
from smoke.session import Endpoint, FatalError, Settings
from smoke.topology import QueueType, Topology
from tests.scripted_peer import PATIENCE, Link, Peer, Script, kinds, of_kind, running, wait_until


def idle(settings: Settings, history: History) -> Consumer:
    return Consumer(settings, lambda _: None, observe=history)


def until_ready(history: History, times: int = 1) -> None:
    wait_until(lambda: len(of_kind(history, Kind.ready)) >= times, f"ready, {times} times")


def serve(link: Link) -> None:
    link.serve_consumer()
    link.serve_close(cancel=True)


def fatal_message(peer: Peer, history: History, settings: Settings | None = None) -> str:
    """Run a client that is refused for good, and return what it says."""
    client = idle(settings or peer.settings(), history)
    with pytest.raises(FatalError) as refusal:
        client.run()
    assert kinds(history, Kind.lost, Kind.backoff) == []
    message = str(refusal.value)
    assert "\n" not in message
    return message


def recovers(history: History, first: Script, **changes: object) -> None:
    """The first connection ends as the script says; the client must come back."""
    with Peer(first, serve) as peer, running(idle(peer.settings(**changes), history)):
        until_ready(history)


def test_the_whole_topology_is_declared() -> None:
    history, links = History(), []

    def script(link: Link) -> None:
        links.append(link)
        serve(link)

    topology = Topology("my exchange", "my queue", "my key", QueueType.CLASSIC)
    with Peer(script) as peer, running(idle(peer.settings(topology=topology), history)):
        until_ready(history)
    exchange, queue, bind = links[0].declared
    assert isinstance(exchange, spec.Exchange.Declare)
    assert (exchange.exchange, exchange.type, exchange.durable) == ("my exchange", "direct", True)
    assert isinstance(queue, spec.Queue.Declare)
    assert (queue.queue, queue.durable, queue.exclusive, queue.auto_delete) == ("my queue", True, False, False)
    assert queue.arguments == {"x-queue-type": "classic"}
    assert isinstance(bind, spec.Queue.Bind)
    assert (bind.queue, bind.exchange, bind.routing_key) == ("my queue", "my exchange", "my key")


def test_the_connection_bears_a_name_that_operators_recognise() -> None:
    names = []

    def script(link: Link) -> None:
        link.start()
        properties = link.expect(spec.Connection.StartOk).client_properties
        names.append((properties or {})["connection_name"])
        link.vanish()

    history = History()
    with Peer(script, serve) as peer, running(idle(peer.settings(), history)):
        until_ready(history)
    assert str(names[0]).startswith("rabbitproof consumer cluster_test ")


def test_each_connection_has_a_name_of_its_own_which_is_recorded_with_its_endpoint() -> None:
    names = []

    def script(link: Link) -> None:
        link.start()
        properties = link.expect(spec.Connection.StartOk).client_properties
        names.append((properties or {})["connection_name"])
        link.tune()
        link.expect(spec.Connection.Open)
        link.send(spec.Connection.OpenOk(), channel=0)
        link.open_channel()
        link.vanish()

    history = History()
    with Peer(script, script, serve) as peer, running(idle(peer.settings(), history)):
        until_ready(history)
    connections = of_kind(history, Kind.connected)
    assert len({event.detail for event in connections}) == 3
    assert [event.detail for event in connections[:2]] == names
    assert {event.where for event in connections} == {f"127.0.0.1:{peer.port}"}


def test_every_try_is_recorded() -> None:
    history = History()
    with Peer(serve, listening=False) as peer, running(idle(peer.settings(), history)):
        wait_until(lambda: len(of_kind(history, Kind.lost)) >= 3, "three tries")
        peer.listen()
        until_ready(history)
    assert len(of_kind(history, Kind.connecting)) == len(of_kind(history, Kind.lost)) + 1


def test_a_refused_connection_is_tried_until_somebody_listens() -> None:
    history = History()
    with Peer(serve, listening=False) as peer, running(idle(peer.settings(), history)):
        wait_until(lambda: len(of_kind(history, Kind.lost)) >= 3, "three tries")
        peer.listen()
        until_ready(history)
    assert "refused" in of_kind(history, Kind.lost)[0].detail


def test_the_other_endpoints_are_tried_after_a_loss() -> None:
    history = History()
    with Peer(listening=False) as dead, Peer(listening=False) as dead_too, Peer(serve) as alive:
        endpoints = tuple(Endpoint("127.0.0.1", peer.port) for peer in (dead, alive, dead_too))
        with running(idle(Settings(endpoints=endpoints), history)):
            until_ready(history)
    assert len(of_kind(history, Kind.lost)) <= 2


def test_endpoints_are_not_always_tried_in_the_same_order() -> None:
    endpoints = tuple(Endpoint("127.0.0.1", port) for port in range(1, 9))
    firsts = set()
    for _ in range(8):
        history = History()
        with running(idle(Settings(endpoints=endpoints), history)):
            wait_until(partial(of_kind, history, Kind.lost), "a try")
        firsts.add(of_kind(history, Kind.lost)[0].where)
    assert len(firsts) > 1


def test_a_lost_connection_is_built_up_again_whole() -> None:
    def script(link: Link) -> None:
        link.serve_consumer()
        link.vanish()

    history = History()
    with Peer(script, serve) as peer, running(idle(peer.settings(), history)):
        until_ready(history, times=2)
    assert kinds(history, Kind.connected, Kind.ready, Kind.lost, Kind.backoff) == [
        Kind.connected,
        Kind.ready,
        Kind.lost,
        Kind.backoff,
        Kind.connected,
        Kind.ready,
    ]


def cut_after_tcp(link: Link) -> None:
    link.read()


def cut_after_start(link: Link) -> None:
    link.start()
    link.expect(spec.Connection.StartOk)


def cut_after_tune(link: Link) -> None:
    link.start()
    link.expect(spec.Connection.StartOk)
    link.tune()
    link.expect(spec.Connection.Open)


@pytest.mark.parametrize("cut", [cut_after_tcp, cut_after_start, cut_after_tune])
def test_a_handshake_that_is_cut_is_a_loss_and_no_refusal(cut: Script) -> None:
    recovers(History(), cut)


def silent(link: Link) -> None:
    link.expect_end()


def silent_after_start(link: Link) -> None:
    link.start()
    link.expect_end()


def silent_after_open(link: Link) -> None:
    link.accept()
    link.expect_end()


def silent_in_topology(link: Link) -> None:
    link.accept()
    link.open_channel()
    link.expect(spec.Exchange.Declare)
    link.expect_end()


def silent_on_consume(link: Link) -> None:
    link.accept()
    link.open_channel()
    link.topology()
    link.expect(spec.Basic.Qos)
    link.send(spec.Basic.QosOk())
    link.expect(spec.Basic.Consume)
    link.expect_end()


@pytest.mark.parametrize("hang", [silent, silent_after_start])
def test_a_broker_that_does_not_answer_is_left(hang: Script) -> None:
    history = History()
    recovers(history, hang, connect_timeout=0.2)
    assert "no AMQP connection within 0.2 s" in of_kind(history, Kind.lost)[0].detail


@pytest.mark.parametrize("hang", [silent_after_open, silent_in_topology, silent_on_consume])
def test_a_broker_that_does_not_answer_after_the_handshake_is_left(hang: Script) -> None:
    history = History()
    recovers(history, hang, setup_timeout=0.2)
    assert "not set up within 0.2 s" in of_kind(history, Kind.lost)[0].detail


def test_the_setup_may_take_longer_than_the_handshake() -> None:
    def script(link: Link) -> None:
        link.accept()
        link.expect(spec.Channel.Open)
        link.expect_silence(0.5)
        link.send(spec.Channel.OpenOk())
        link.topology()
        link.expect(spec.Basic.Qos)
        link.send(spec.Basic.QosOk())
        link.send(spec.Basic.ConsumeOk(link.expect(spec.Basic.Consume).consumer_tag))
        link.serve_close(cancel=True)

    history = History()
    with Peer(script) as peer, running(idle(peer.settings(connect_timeout=0.3), history)):
        until_ready(history)
    assert of_kind(history, Kind.lost) == []


def refuse_login(link: Link) -> None:
    link.start()
    link.expect(spec.Connection.StartOk)
    link.refuse(403, "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN.")


def refuse_open(link: Link, text: str, code: int = 530) -> None:
    link.start()
    link.expect(spec.Connection.StartOk)
    link.tune()
    link.expect(spec.Connection.Open)
    link.refuse(code, text)


def test_refused_credentials_end_it() -> None:
    with Peer(refuse_login) as peer:
        message = fatal_message(peer, History(), peer.settings(user="eve", password="hunter2"))
    assert "'eve'" in message
    assert "Login was refused" in message
    assert "hunter2" not in message


@pytest.mark.parametrize(
    "text",
    ["NOT_ALLOWED - vhost nowhere not found", "NOT_ALLOWED - access to vhost 'nowhere' refused for user 'guest'"],
)
def test_a_vhost_that_is_not_ours_ends_it(text: str) -> None:
    with Peer(lambda link: refuse_open(link, text)) as peer:
        assert text in fatal_message(peer, History(), peer.settings(vhost="nowhere"))


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (530, "NOT_ALLOWED - access to vhost '/' refused for user 'guest': connection limit (2) is reached"),
        (530, "NOT_ALLOWED - connection refused for user 'guest': user connection limit (2) is reached"),
        (530, "NOT_ALLOWED - connection refused: node connection limit (2) is reached"),
        (530, "NOT_ALLOWED - access to vhost '/' refused for user 'guest', backend x returned an error: timeout"),
        (541, "INTERNAL_ERROR - access to vhost '/' refused for user 'guest': vhost '/' is down"),
        (320, "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'"),
    ],
)
def test_a_refusal_that_may_pass_is_tried_again(code: int, text: str) -> None:
    history = History()
    recovers(history, lambda link: refuse_open(link, text, code))
    assert text in of_kind(history, Kind.lost)[0].detail


@pytest.mark.parametrize("code", [320, 541])
def test_a_broker_that_shuts_down_is_left_for_another(code: int) -> None:
    def script(link: Link) -> None:
        link.serve_consumer()
        link.refuse(code, "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'")

    history = History()
    with Peer(script, serve) as peer, running(idle(peer.settings(), history)):
        until_ready(history, times=2)


INEQUIVALENT = "PRECONDITION_FAILED - inequivalent arg 'x-queue-type' for queue 'cluster_test' in vhost '/'"


def test_a_queue_declared_with_other_arguments_ends_it() -> None:
    def script(link: Link) -> None:
        link.accept()
        link.open_channel()
        link.expect(spec.Exchange.Declare)
        link.send(spec.Exchange.DeclareOk())
        link.expect(spec.Queue.Declare)
        link.close_channel(406, INEQUIVALENT)

    with Peer(script) as peer:
        assert INEQUIVALENT in fatal_message(peer, History())


def test_an_exchange_declared_with_other_arguments_ends_it() -> None:
    def script(link: Link) -> None:
        link.accept()
        link.open_channel()
        link.expect(spec.Exchange.Declare)
        link.close_channel(406, "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'cluster_test'")

    with Peer(script) as peer:
        assert "inequivalent arg 'type'" in fatal_message(peer, History())


def test_missing_permissions_end_it() -> None:
    def script(link: Link) -> None:
        link.accept()
        link.open_channel()
        link.topology()
        link.expect(spec.Basic.Qos)
        link.send(spec.Basic.QosOk())
        link.expect(spec.Basic.Consume)
        link.close_channel(403, "ACCESS_REFUSED - read access to queue 'cluster_test' refused for user 'guest'")

    with Peer(script) as peer:
        assert "read access" in fatal_message(peer, History())


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (404, "NOT_FOUND - home node 'rabbit@n1' of durable queue 'cluster_test' is down or inaccessible"),
        (405, "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'cluster_test'"),
    ],
)
def test_a_queue_that_is_not_there_for_now_is_tried_again(code: int, text: str) -> None:
    def script(link: Link) -> None:
        link.accept()
        link.open_channel()
        link.expect(spec.Exchange.Declare)
        link.send(spec.Exchange.DeclareOk())
        link.expect(spec.Queue.Declare)
        link.close_channel(code, text)

    history = History()
    recovers(history, script)
    assert text in of_kind(history, Kind.lost)[0].detail


def test_406_after_declaring_is_a_loss_like_any_other() -> None:
    def script(link: Link) -> None:
        link.serve_consumer()
        link.close_channel(406, "PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out")

    history = History()
    with Peer(script, serve) as peer, running(idle(peer.settings(), history)):
        until_ready(history, times=2)


def test_the_backoff_is_not_reset_by_a_connection_that_brings_nothing() -> None:
    def script(link: Link) -> None:
        link.serve_consumer()
        link.vanish()

    ceilings: list[float] = []

    def draw(_: float, ceiling: float) -> float:
        ceilings.append(ceiling)
        return 0.0

    history = History()
    with Peer(*[script] * 6, serve) as peer:
        client = idle(peer.settings(), history)
        client._session._backoff._uniform = draw
        with running(client):
            until_ready(history, times=7)
    assert ceilings == pytest.approx([0.1 * 1.5**tries for tries in range(6)])


def test_a_client_that_waits_for_its_next_try_stops_at_once() -> None:
    history = History()
    with Peer(listening=False) as peer:
        client = idle(peer.settings(), history)
        client._session._backoff._uniform = lambda *_: 3600.0
        client.start()
        wait_until(lambda: of_kind(history, Kind.backoff), "a first failure")
        assert client.stop(grace=1.0)


@pytest.mark.parametrize("stage", [lambda _: None, Link.start, Link.accept], ids=["tcp", "start", "open"])
def test_a_client_that_is_connecting_stops_at_once(stage: Script) -> None:
    reached = threading.Event()

    def script(link: Link) -> None:
        stage(link)
        reached.set()
        link.expect_end()

    with Peer(script) as peer:
        client = idle(peer.settings(), History())
        client.start()
        assert reached.wait(PATIENCE)
        assert client.stop(grace=2.0)


def test_a_client_that_is_stopped_before_it_starts_ends() -> None:
    with Peer() as peer:
        client = idle(peer.settings(), History())
        client.request_stop()
        client.run()
