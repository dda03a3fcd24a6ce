import pytest

from smoke.history import Event, Kind
from smoke.plot import draw
from smoke.timeline import Lane, Mark, Span, close_up, gaps, rates, timeline

NEVER = Span(0, 0)


def stream(*, silent: Span = NEVER, end: float = 10.0) -> list[Event]:
    """Ten messages a second, none of which is delivered for a while."""
    moments = [number / 10 for number in range(int(end * 10))]
    return [
        *(Event(at, Kind.publish, "producer", "p", number) for number, at in enumerate(moments)),
        *(
            Event(at + 0.01, Kind.delivery, "consumer", "p", number)
            for number, at in enumerate(moments)
            if not silent.begin <= at < silent.end
        ),
    ]


def test_a_rate_is_messages_per_second_in_each_bucket() -> None:
    assert rates([0.0, 0.1, 0.4, 0.6], 0.0, 1.0, 0.5) == [6.0, 2.0]


def test_what_lies_outside_of_the_window_is_not_counted() -> None:
    assert rates([-0.1, 0.0, 1.0], 0.0, 1.0, 0.5) == [2.0, 0.0]


def test_a_bucket_that_reaches_beyond_the_end_is_counted_whole() -> None:
    assert rates([1.05], 0.0, 1.1, 0.5) == [0.0, 0.0, 2.0]


def test_a_silence_is_a_gap_from_the_given_length_on() -> None:
    assert gaps([0.0, 1.0, 3.0, 3.5], 1.0) == (Span(0.0, 1.0), Span(1.0, 3.0))


@pytest.mark.parametrize(("other", "both"), [(Span(2, 3), False), (Span(1.9, 3), True), (Span(1.2, 1.5), True)])
def test_spans_overlap_if_both_lasted_at_some_moment(other: Span, both: bool) -> None:
    assert Span(1, 2).overlaps(other) == both
    assert other.overlaps(Span(1, 2)) == both


def test_the_longest_gap_is_that_of_the_deliveries() -> None:
    gap = timeline(stream(silent=Span(4, 6)), rate=10).longest_gap
    assert gap is not None
    assert gap.begin == pytest.approx(3.91)
    assert gap.end == pytest.approx(6.01)


def test_a_silence_up_to_the_end_of_publishing_is_a_gap() -> None:
    gap = timeline(stream(silent=Span(7, 10)), rate=10).longest_gap
    assert gap is not None
    assert gap.end == pytest.approx(9.9)


def test_a_silence_after_the_end_of_publishing_is_none() -> None:
    late = [*stream(), Event(30, Kind.delivery, "consumer", "p", 3, redelivered=True)]
    assert timeline(late, rate=10, until=10.0).gaps == ()


def test_a_client_is_on_a_node_from_its_readiness_to_its_loss_wherever_it_was_located_in_between() -> None:
    events = [
        Event(0.0, Kind.ready, "consumer"),
        Event(0.5, Kind.located, "consumer", where="rabbit"),
        Event(4.0, Kind.lost, "consumer"),
        Event(4.5, Kind.ready, "consumer"),
        Event(5.0, Kind.located, "consumer", where="rabbit_1"),
        Event(9.0, Kind.delivery, "consumer"),
    ]
    assert timeline(events, rate=10).clients == (
        Lane("consumer", (Span(0.0, 4.0, "rabbit"), Span(4.5, 9.0, "rabbit_1"))),
    )


def test_a_connection_that_is_located_before_it_is_ready_is_there() -> None:
    events = [
        Event(0.0, Kind.connected, "consumer"),
        Event(0.5, Kind.located, "consumer", where="rabbit"),
        Event(3.0, Kind.ready, "consumer"),
        Event(9.0, Kind.delivery, "consumer"),
    ]
    assert timeline(events, rate=10).clients == (Lane("consumer", (Span(3.0, 9.0, "rabbit"),)),)


def test_a_node_is_called_by_its_name_in_the_inventory() -> None:
    events = [Event(0.0, Kind.ready, "consumer"), Event(1.0, Kind.located, "consumer", where="rabbit@host")]
    assert timeline(events, rate=10, names={"rabbit@host": "mq1"}).clients == (Lane("consumer", (Span(0, 1, "mq1"),)),)


def test_a_connection_that_was_lost_before_it_was_located_is_somewhere() -> None:
    events = [Event(0.0, Kind.ready, "consumer"), Event(0.2, Kind.lost, "consumer")]
    assert timeline(events, rate=10).clients == (Lane("consumer", (Span(0.0, 0.2, "?"),)),)


def test_a_failed_attempt_to_connect_ends_no_connection() -> None:
    events = [Event(0.0, Kind.lost, "consumer"), Event(1.0, Kind.ready, "consumer"), Event(2.0, Kind.ack, "consumer")]
    assert timeline(events, rate=10).clients == (Lane("consumer", (Span(1.0, 2.0, "?"),)),)


def test_a_server_is_in_a_state_until_the_balancer_says_another() -> None:
    events = [
        Event(0.0, Kind.server, "balancer", where="rabbit", detail="UP"),
        Event(3.0, Kind.server, "balancer", where="rabbit", detail="DOWN"),
        Event(8.0, Kind.ack, "consumer"),
    ]
    assert timeline(events, rate=10).servers == (Lane("rabbit", (Span(0.0, 3.0, "UP"), Span(3.0, 8.0, "DOWN"))),)


def test_servers_of_several_balancers_are_told_apart() -> None:
    events = [Event(0.0, Kind.server, name, where="rabbit", detail="UP") for name in ("b1", "b2")]
    assert [lane.name for lane in timeline(events, rate=10).servers] == ["b1: rabbit", "b2: rabbit"]


def test_an_action_lasts_until_it_is_done_and_one_that_never_was_until_the_end() -> None:
    events = [
        Event(1.0, Kind.action, "suite", detail="stop rabbit"),
        Event(2.0, Kind.done, "suite", detail="stop rabbit"),
        Event(3.0, Kind.action, "suite", detail="site"),
        Event(9.0, Kind.delivery, "consumer"),
    ]
    assert timeline(events, rate=10).actions.spans == (Span(1.0, 2.0, "stop rabbit"), Span(3.0, 9.0, "site"))


def test_the_marks_are_what_the_suite_says_of_the_fault() -> None:
    events = [
        Event(1.0, Kind.fault, "suite", detail="host frozen"),
        Event(2.0, Kind.action, "suite", detail="start rabbit"),
        Event(3.0, Kind.healed, "suite", detail="thawed"),
    ]
    assert timeline(events, rate=10).marks == (Mark(1.0, "host frozen"), Mark(3.0, "thawed"))


def test_without_a_word_about_the_fault_the_marks_enclose_what_the_suite_did() -> None:
    events = [Event(at, kind, "suite", detail="site") for at, kind in ((1.0, Kind.action), (4.0, Kind.done))]
    assert timeline(events, rate=10).marks == (Mark(1.0, "begins"), Mark(4.0, "over"))


def test_the_order_in_which_events_were_recorded_does_not_matter() -> None:
    events = stream(silent=Span(4, 6))
    assert timeline(reversed(events), rate=10) == timeline(events, rate=10)


def test_an_empty_history_has_an_empty_timeline() -> None:
    nothing = timeline([], rate=10)
    assert (nothing.begin, nothing.end, nothing.gaps) == (0.0, 0.0, ())


def test_a_close_up_shows_the_longest_gap_with_a_margin() -> None:
    window = close_up(timeline(stream(silent=Span(40, 42), end=100), rate=10))
    assert window is not None
    assert 38 < window.begin < 39.91
    assert 42.01 < window.end < 44


def test_a_gap_that_is_plain_to_see_needs_no_close_up() -> None:
    assert close_up(timeline(stream(silent=Span(3, 8)), rate=10)) is None


def test_a_stream_without_a_gap_needs_no_close_up() -> None:
    assert close_up(timeline(stream(), rate=10)) is None


def test_a_history_in_which_nothing_flowed_can_be_drawn() -> None:
    events = [Event(0.0, Kind.connecting, "producer"), Event(3.0, Kind.lost, "producer", detail="refused")]
    assert draw(timeline(events, rate=10), None).startswith("<svg ")


@pytest.mark.parametrize("window", [None, Span(3.0, 7.0)])
def test_a_drawing_has_its_colours_from_the_page_and_nothing_from_elsewhere(window: Span | None) -> None:
    events = [*stream(silent=Span(4, 6)), Event(0.0, Kind.server, "balancer", where="rabbit", detail="UP")]
    svg = draw(timeline(events, rate=10), window)
    assert svg.startswith("<svg ")
    assert "var(--gap)" in svg
    assert "#0000" not in svg
    assert "rabbit" in svg
    assert "@import" not in svg
    assert 'href="http' not in svg
    assert ' height="' not in svg[: svg.index(">")]
