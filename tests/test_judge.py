"""The judge itself is on trial here: each planted fault must be found, and nothing innocent accused."""

import gzip
import itertools
import random
import time
from pathlib import Path

import pytest

from smoke.backoff import Backoff
from smoke.history import Event, History, Kind
from smoke.judge import Gap, Verdict, disturbed, judge, lockstep, main, unimpressed
from smoke.messages import Identity


class Story:
    """A history written by hand; each line is a second after the one before."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._clock = itertools.count(1.0)

    def tell(
        self,
        kind: Kind,
        *sequences: int,
        attempt: int = 1,
        redelivered: bool = False,
        producer: str = "p",
        client: str = "client",
        delivery_count: int = 0,
        dead_lettered: str = "",
        corrupt: bool = False,
    ) -> "Story":
        for sequence in sequences:
            self.events.append(
                Event(
                    next(self._clock),
                    kind,
                    client,
                    producer,
                    sequence,
                    attempt,
                    redelivered,
                    delivery_count,
                    dead_lettered,
                    corrupt,
                )
            )
        return self

    def sent(self, *sequences: int) -> "Story":
        return self.published(*sequences).confirmed(*sequences)

    def published(self, *sequences: int, attempt: int = 1, producer: str = "p") -> "Story":
        return self.tell(Kind.publish, *sequences, attempt=attempt, producer=producer)

    def confirmed(self, *sequences: int, attempt: int = 1, producer: str = "p") -> "Story":
        return self.tell(Kind.confirm, *sequences, attempt=attempt, producer=producer)

    def delivered(
        self, *sequences: int, attempt: int = 1, redelivered: bool = False, producer: str = "p", acked: bool = True
    ) -> "Story":
        for sequence in sequences:
            self.tell(Kind.delivery, sequence, attempt=attempt, redelivered=redelivered, producer=producer)
            if acked:
                self.tell(Kind.ack, sequence, attempt=attempt, producer=producer)
        return self

    def judge(self) -> Verdict:
        return judge(self.events)


def at(kind: Kind, *times: float) -> list[Event]:
    return [Event(time, kind, "client", "p", number, 1) for number, time in enumerate(times, start=1)]


def test_a_history_without_faults_is_ok() -> None:
    verdict = Story().published(1, 2, 3).confirmed(1, 2, 3).delivered(1, 2, 3).judge()
    assert verdict.ok
    assert (verdict.confirmed, verdict.delivered) == (3, 3)


def test_an_empty_history_is_ok() -> None:
    assert judge([]).ok


def test_confirmed_and_not_delivered_is_lost() -> None:
    verdict = Story().published(1, 2, 3).confirmed(1, 2, 3).delivered(1, 3).judge()
    assert not verdict.ok
    assert verdict.lost == (("p", 2),)


@pytest.mark.parametrize(
    ("arrived", "where"),
    [
        ((3, 4, 5), "prefix"),
        ((1, 2, 5), "middle"),
        ((1, 2, 3), "tail"),
        ((2, 4), "prefix and middle and tail"),
        ((), "all"),
    ],
)
def test_a_loss_is_located(arrived: tuple[int, ...], where: str) -> None:
    verdict = Story().published(1, 2, 3, 4, 5).confirmed(1, 2, 3, 4, 5).delivered(*arrived).judge()
    assert verdict.lost_where == where


def test_a_loss_of_one_producer_is_not_hidden_by_another() -> None:
    story = Story().published(1, 2, producer="a").published(1, 2, producer="b")
    story.confirmed(1, 2, producer="a").confirmed(1, 2, producer="b")
    verdict = story.delivered(1, 2, producer="a").delivered(1, producer="b").judge()
    assert verdict.lost == (("b", 2),)
    assert verdict.lost_where == "tail"


def test_neither_confirmed_nor_delivered_is_unknown_and_no_fault() -> None:
    verdict = Story().published(1, 2).confirmed(1).delivered(1).judge()
    assert verdict.ok
    assert verdict.unknown == (("p", 2),)


def test_delivered_without_a_confirm_is_no_fault() -> None:
    verdict = Story().published(1).delivered(1).judge()
    assert verdict.ok
    assert verdict.unknown == ()
    assert (verdict.confirmed, verdict.delivered) == (0, 1)


def test_delivered_and_never_published_is_a_phantom() -> None:
    verdict = Story().published(1).confirmed(1).delivered(1, 2).judge()
    assert not verdict.ok
    assert verdict.phantom == (Identity("p", 2, 1),)
    assert verdict.delivered == 1


def test_an_attempt_that_was_never_made_is_a_phantom() -> None:
    verdict = Story().published(1).confirmed(1).delivered(1).delivered(1, attempt=2).judge()
    assert verdict.phantom == (Identity("p", 1, 2),)
    assert verdict.republished == 0


def test_a_duplicate_with_the_redelivered_flag_is_explained() -> None:
    verdict = Story().published(1).confirmed(1).delivered(1, acked=False).delivered(1, redelivered=True).judge()
    assert verdict.ok
    assert (verdict.redelivered, verdict.republished, verdict.unexplained) == (1, 0, ())


def test_a_duplicate_by_another_attempt_is_explained() -> None:
    story = Story().published(1).published(1, attempt=2).confirmed(1, attempt=2)
    verdict = story.delivered(1).delivered(1, attempt=2).judge()
    assert verdict.ok
    assert (verdict.redelivered, verdict.republished, verdict.unexplained) == (0, 1, ())


def test_the_same_attempt_twice_without_the_flag_is_unexplained() -> None:
    verdict = Story().published(1).confirmed(1).delivered(1).delivered(1).judge()
    assert not verdict.ok
    assert verdict.unexplained == (Identity("p", 1, 1),)
    assert verdict.redelivered == 0


def test_another_attempt_does_not_excuse_the_same_attempt_twice() -> None:
    story = Story().published(1).published(1, attempt=2).confirmed(1, attempt=2)
    verdict = story.delivered(1).delivered(1, attempt=2).delivered(1, attempt=2).judge()
    assert verdict.unexplained == (Identity("p", 1, 2),)
    assert verdict.republished == 1


def test_the_order_in_which_two_consumers_report_does_not_matter() -> None:
    verdict = Story().published(1).confirmed(1).delivered(1, redelivered=True).delivered(1).judge()
    assert verdict.ok
    assert verdict.redelivered == 1


def test_a_first_delivery_with_the_flag_is_no_duplicate() -> None:
    verdict = Story().published(1).confirmed(1).delivered(1, redelivered=True).judge()
    assert verdict.ok
    assert (verdict.redelivered, verdict.republished) == (0, 0)


def test_a_confirm_after_a_return_is_no_confirm() -> None:
    verdict = Story().published(1).tell(Kind.returned, 1).confirmed(1).judge()
    assert verdict.ok
    assert verdict.confirmed == 0
    assert verdict.returned == (("p", 1),)
    assert verdict.unknown == ()


def test_a_returned_message_is_delivered_by_another_attempt_only() -> None:
    story = Story().published(1).tell(Kind.returned, 1).published(1, attempt=2).confirmed(1, attempt=2)
    verdict = story.delivered(1, attempt=2).judge()
    assert verdict.ok
    assert (verdict.delivered, verdict.returned, verdict.republished) == (1, (), 0)


def test_a_returned_attempt_that_is_delivered_is_a_phantom() -> None:
    verdict = Story().published(1).tell(Kind.returned, 1).delivered(1).judge()
    assert not verdict.ok
    assert verdict.phantom == (Identity("p", 1, 1),)
    assert verdict.delivered == 0


def test_a_message_returned_and_confirmed_later_can_be_lost() -> None:
    story = Story().published(1).tell(Kind.returned, 1).published(1, attempt=2).confirmed(1, attempt=2)
    assert story.judge().lost == (("p", 1),)


def test_a_message_handed_out_once_and_never_acknowledged_is_a_fault() -> None:
    story = Story().published(1, 2).confirmed(1, 2).delivered(1).delivered(2, acked=False).tell(Kind.stale, 2)
    verdict = story.judge()
    assert not verdict.ok
    assert verdict.unacknowledged == (("p", 2),)
    assert verdict.lost == ()


def test_a_rejected_message_is_settled() -> None:
    assert Story().published(1).confirmed(1).delivered(1, acked=False).tell(Kind.rejected, 1).judge().ok


def test_a_message_given_back_and_never_handed_out_again_is_a_fault() -> None:
    verdict = Story().sent(1).delivered(1, acked=False).tell(Kind.requeued, 1).judge()
    assert not verdict.ok
    assert verdict.unacknowledged == (("p", 1),)


def test_an_attempt_that_was_confirmed_is_not_saved_by_another_one_that_arrived() -> None:
    story = Story().published(1).delivered(1).published(1, attempt=2).confirmed(1, attempt=2)
    verdict = story.judge()
    assert not verdict.ok
    assert verdict.vanished == (Identity("p", 1, 2),)
    assert (verdict.lost, verdict.delivered) == ((), 1)
    assert story.delivered(1, attempt=2).judge().ok


def test_a_message_that_is_lost_is_not_said_to_have_vanished_as_well() -> None:
    assert Story().sent(1).judge().vanished == ()


def test_an_attempt_that_is_not_acknowledged_is_not_saved_by_another_one_that_is() -> None:
    story = Story().published(1).delivered(1).published(1, attempt=2).confirmed(1, attempt=2)
    assert story.delivered(1, attempt=2, acked=False).judge().unacknowledged == (("p", 1),)


def test_a_message_given_back_and_handed_out_again_is_no_fault() -> None:
    story = Story().sent(1).delivered(1, acked=False).tell(Kind.requeued, 1)
    assert story.delivered(1, redelivered=True).judge().ok


def test_a_producer_that_ends_in_peace_with_a_message_unconfirmed_has_abandoned_it() -> None:
    verdict = Story().published(1, 2).confirmed(1).delivered(1).tell(Kind.finished, 0).judge()
    assert not verdict.ok
    assert verdict.abandoned == (("p", 2),)


def test_a_message_that_arrived_unconfirmed_was_abandoned_all_the_same() -> None:
    assert Story().published(1).delivered(1).tell(Kind.finished, 0).judge().abandoned == (("p", 1),)


def test_a_producer_that_ends_without_saying_so_has_abandoned_nothing() -> None:
    verdict = Story().published(1).tell(Kind.finished, 0, producer="another").judge()
    assert verdict.ok
    assert verdict.abandoned == ()


def test_a_message_whose_content_changed_on_the_way_is_corrupt() -> None:
    verdict = Story().sent(1, 2).delivered(1).tell(Kind.delivery, 2, corrupt=True).tell(Kind.rejected, 2).judge()
    assert not verdict.ok
    assert verdict.corrupt == (Identity("p", 2, 1),)


def test_a_dead_lettered_message_is_neither_lost_nor_delivered() -> None:
    story = Story().sent(1, 2).delivered(1)
    verdict = story.tell(Kind.delivery, 2, dead_lettered="q").tell(Kind.ack, 2).judge()
    assert verdict.ok
    assert (verdict.delivered, verdict.dead_lettered, verdict.lost) == (1, (("p", 2),), ())


def test_a_poison_message_given_back_until_it_is_dead_lettered_is_accounted_for() -> None:
    story = Story().sent(1)
    for count in range(4):
        story.tell(Kind.delivery, 1, redelivered=count > 0, delivery_count=count).tell(Kind.requeued, 1)
    verdict = story.tell(Kind.delivery, 1, dead_lettered="q").judge()
    assert verdict.ok
    assert (verdict.redelivered, verdict.delivery_count, verdict.dead_lettered) == (3, 3, (("p", 1),))


def test_a_message_dead_lettered_twice_without_the_flag_is_unexplained() -> None:
    story = Story().sent(1).tell(Kind.delivery, 1, dead_lettered="q").tell(Kind.delivery, 1, dead_lettered="q")
    assert story.judge().unexplained == (Identity("p", 1, 1),)


def test_the_highest_delivery_count_is_found() -> None:
    story = Story().sent(1).tell(Kind.delivery, 1).tell(Kind.delivery, 1, redelivered=True, delivery_count=7)
    assert story.tell(Kind.ack, 1).judge().delivery_count == 7


def test_a_later_message_before_an_earlier_one_is_out_of_order() -> None:
    verdict = judge(Story().sent(1, 2, 3).delivered(1, 3, 2).events, ordered=True)
    assert not verdict.ok
    assert verdict.misordered == (Identity("p", 2, 1),)


def test_the_order_matters_only_where_it_was_promised() -> None:
    verdict = Story().sent(1, 2, 3).delivered(1, 3, 2).judge()
    assert verdict.ok
    assert verdict.misordered == ()


def test_what_comes_again_comes_late_and_is_not_out_of_order() -> None:
    story = Story().sent(1, 2, 3).published(1, attempt=2).confirmed(1, attempt=2).delivered(1, 2, 3)
    story.delivered(2, redelivered=True).delivered(1, attempt=2)
    assert judge(story.events, ordered=True).ok


def test_what_the_next_consumer_gets_again_only_after_something_newer_is_out_of_order() -> None:
    story = Story().sent(1, 2, 3).tell(Kind.delivery, 1, client="gone").tell(Kind.delivery, 2, client="gone")
    story.tell(Kind.delivery, 3, client="next").tell(Kind.delivery, 2, client="next", redelivered=True)
    assert judge(story.events, ordered=True).misordered == (Identity("p", 2, 1),)


def test_what_the_last_consumer_reports_late_is_not_out_of_order() -> None:
    story = Story().sent(1, 2, 3).delivered(1)
    story.tell(Kind.delivery, 2, client="next", redelivered=True).tell(Kind.ack, 2, client="next")
    story.tell(Kind.delivery, 3, client="next").tell(Kind.ack, 3, client="next").tell(Kind.delivery, 2)
    assert judge(story.events, ordered=True).misordered == ()


def test_the_order_is_that_of_each_producer() -> None:
    story = Story()
    for producer in ("a", "b"):
        story.published(1, 2, producer=producer).confirmed(1, 2, producer=producer)
    story.delivered(1, 2, producer="a").delivered(1, 2, producer="b")
    assert judge(story.events, ordered=True).ok


def tries(*times: float, kind: Kind = Kind.connecting, client: str = "client") -> list[Event]:
    return [Event(time, kind, client) for time in times]


def paused(*pauses: float, lasting: float = 0.01) -> list[Event]:
    """Attempts after these pauses, each of which fails after the same while."""
    moments = list(itertools.accumulate(pauses, lambda moment, pause: moment + lasting + pause))
    return [event for at in moments for event in tries(at) + tries(at + lasting, kind=Kind.lost)]


def test_more_tries_within_a_second_than_backoff_makes_are_a_storm() -> None:
    verdict = judge(tries(*(number / 20 for number in range(20))))
    assert not verdict.ok
    assert verdict.attempts["client"].peak == 20
    assert "RETRY STORM of client: 20 attempts within a second" in verdict.sentence()


def test_tries_that_come_in_step_are_a_storm_of_many_clients() -> None:
    verdict = judge(paused(*[1.0] * 9))
    assert not verdict.ok
    assert verdict.attempts["client"].complaint == "9 attempts in step, spread 0.00"


def test_tries_with_exponential_backoff_and_jitter_are_none() -> None:
    assert judge(paused(0.0, 0.07, 0.06, 0.37, 0.4, 1.2, 0.9, 3.8, 1.2, 4.7)).ok


def test_the_backoff_of_our_clients_is_acquitted_however_the_dice_fall() -> None:
    for seed in range(300):
        delays = Backoff(uniform=random.Random(seed).uniform)
        assert judge(paused(*(delays.next() for _ in range(20)))).ok, f"seed {seed}"


def test_attempts_that_all_take_as_long_to_fail_make_no_rhythm() -> None:
    delays = Backoff(uniform=random.Random(1).uniform)
    assert judge(paused(*(delays.next() for _ in range(12)), lasting=20.0)).ok


def test_a_client_that_was_not_on_the_victim_and_lost_its_connection_is_named() -> None:
    events = tries(1.0, kind=Kind.lost) + tries(5.0, 6.0, kind=Kind.lost) + tries(5.5, kind=Kind.cancelled)
    events += tries(5.2, kind=Kind.lost, client="victim")
    felt = disturbed(events, ["client"], since=2.0, until=5.8)
    assert [(event.at, event.kind) for event in felt] == [(5.0, Kind.lost), (5.5, Kind.cancelled)]


def test_a_fault_that_a_client_did_not_notice_is_vacuous_for_it() -> None:
    events = tries(1.0, kind=Kind.lost, client="early") + tries(5.0, kind=Kind.lost, client="victim")
    events += tries(5.0, kind=Kind.nack, client="nacked") + tries(5.0, kind=Kind.delivery, client="happy")
    assert unimpressed(events, ["early", "victim", "nacked", "happy"], since=2.0) == ["early", "happy"]


def test_a_long_history_is_judged_in_seconds() -> None:
    story = Story()
    for first in range(1, 75_001, 5_000):
        story.sent(*range(first, first + 5_000)).delivered(*range(first, first + 5_000))
    begin = time.process_time()
    assert judge(story.events, ordered=True).ok
    assert len(story.events) == 300_000
    # A second and a half of a machine of 2025; the bound is for one where everything takes several times as long.
    assert time.process_time() - begin < 6


def test_nacks_are_counted_and_no_fault() -> None:
    story = Story().published(1).tell(Kind.nack, 1).published(1, attempt=2).confirmed(1, attempt=2)
    verdict = story.delivered(1, attempt=2).judge()
    assert verdict.ok
    assert verdict.nacked == 1


def test_messages_of_nobody_do_not_count() -> None:
    verdict = judge([Event(1.0, Kind.delivery, "consumer"), Event(2.0, Kind.delivery, "consumer")])
    assert verdict.ok
    assert verdict.delivered == 0


def test_the_longest_gap_is_found_with_its_beginning() -> None:
    verdict = judge(at(Kind.delivery, 1.0, 2.0, 5.5, 6.0) + at(Kind.confirm, 10.0, 10.5))
    assert verdict.delivery_gap == Gap(3.5, 2.0)
    assert verdict.confirm_gap == Gap(0.5, 10.0)


def test_the_silence_at_both_ends_of_a_window_counts() -> None:
    deliveries = at(Kind.delivery, 4.0, 5.0)
    assert judge(deliveries, since=1.0, until=6.0).delivery_gap == Gap(3.0, 1.0)
    assert judge(deliveries, since=3.5, until=9.0).delivery_gap == Gap(4.0, 5.0)


def test_a_window_leaves_out_what_lies_outside() -> None:
    deliveries = at(Kind.delivery, 1.0, 9.0, 9.5, 10.0, 30.0)
    assert judge(deliveries, since=9.0, until=10.0).delivery_gap == Gap(0.5, 9.0)


def test_a_window_without_events_is_one_gap() -> None:
    assert judge([], since=2.0, until=7.0).delivery_gap == Gap(5.0, 2.0)


def test_a_history_with_one_delivery_has_no_gap() -> None:
    assert judge(at(Kind.delivery, 3.0)).delivery_gap.seconds == 0.0


def test_gaps_do_not_depend_on_the_order_of_recording() -> None:
    assert judge(reversed(at(Kind.delivery, 1.0, 2.0, 5.5))).delivery_gap == Gap(3.5, 2.0)


def test_reconnects_are_counted_for_each_client() -> None:
    story = Story().tell(Kind.connected, 0, 0, 0, client="consumer").tell(Kind.connected, 0, client="producer")
    assert story.judge().reconnects == {"consumer": 2, "producer": 0}


def test_the_sentence_of_a_good_history_says_that_nothing_is_lost() -> None:
    sentence = Story().published(1, 2).confirmed(1, 2).delivered(1, 2).judge().sentence()
    assert sentence.startswith("2 confirmed, 2 delivered, nothing lost; ")
    assert "\n" not in sentence


def test_the_sentence_of_a_bad_history_begins_with_the_fault() -> None:
    story = Story().published(*range(1, 11)).confirmed(*range(1, 11)).delivered(1, 2)
    assert story.judge().sentence().startswith("LOST 8: p/3, p/4, p/5, p/6, p/7 and 3 more (tail); ")


def stored(file: Path, events: list[Event]) -> str:
    history = History()
    for event in events:
        history(event)
    history.save(file)
    return str(file)


def test_the_command_says_that_a_stored_history_is_good(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([stored(tmp_path / "h.jsonl", Story().sent(1, 2).delivered(1, 2).events)]) == 0
    assert capsys.readouterr().out.startswith("2 confirmed, 2 delivered, nothing lost; ")


def test_the_command_fails_for_a_bad_history(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([stored(tmp_path / "h.jsonl.gz", Story().sent(1, 2).delivered(1).events)]) == 1
    assert capsys.readouterr().out.startswith("LOST 1: p/2 (tail); ")


def test_the_command_puts_the_histories_of_several_processes_together(tmp_path: Path) -> None:
    events = Story().sent(1, 2).delivered(1, 2).events
    files = [stored(tmp_path / "producer", events[:4]), stored(tmp_path / "consumer", events[4:])]
    assert main(files) == 0
    assert main(files[:1]) == 1


def test_the_command_insists_on_the_order_if_told_to(tmp_path: Path) -> None:
    file = stored(tmp_path / "h", Story().sent(1, 2).delivered(2, 1).events)
    assert main([file]) == 0
    assert main([file, "--ordered"]) == 1


def test_the_command_counts_silences_from_the_fault_to_the_last_publication(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    events = at(Kind.publish, 100.0, 118.0) + at(Kind.confirm, 100.0, 118.0) + at(Kind.delivery, 100.0, 111.0, 119.0)
    events += at(Kind.ack, 100.0, 111.0, 119.0) + at(Kind.publish, 100.0, 100.0, 100.0)
    file = stored(tmp_path / "h", [*events, Event(109.0, Kind.fault, "suite")])
    assert main([file]) == 0
    assert main([file, "--since", "1", "--until", "10"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert "silence of deliveries 7.00 s" in first
    assert "silence of deliveries 9.00 s" in second


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"nonsense\n", id="text"),
        pytest.param(b"", id="empty"),
        pytest.param(b"\xff\xfe", id="bytes"),
        pytest.param(None, id="missing"),
        # What is compressed holds the time, of which each worker of pytest-xdist has another one.
        pytest.param(gzip.compress(b"{}\n" * 99, mtime=0)[:-9], id="cut short"),
    ],
)
def test_the_command_refuses_what_is_no_history_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None
) -> None:
    file = tmp_path / ("h.gz" if content and content.startswith(b"\x1f") else "h")
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SystemExit) as end:
        main([str(file)])
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("judge: ")


def pauses(*chosen: str) -> list[Event]:
    return [Event(10.0, Kind.backoff, f"client {number}", detail=pause) for number, pause in enumerate(chosen)]


def test_clients_without_jitter_are_in_lockstep() -> None:
    assert lockstep(pauses("0.10 s", "0.10 s", "0.10 s", "0.10 s"), since=5.0) == 1


def test_the_most_frequent_pause_counts() -> None:
    assert lockstep(pauses("0.01 s", "0.07 s", "0.07 s", "0.03 s"), since=5.0) == 0.5


def test_only_the_first_pause_of_each_client_since_then_counts() -> None:
    early = [Event(1.0, Kind.backoff, f"client {number}", detail="0.10 s") for number in range(2)]
    late = [Event(20.0, Kind.backoff, f"client {number}", detail="0.20 s") for number in range(2)]
    assert lockstep([*late, *early, *pauses("0.01 s", "0.07 s")], since=5.0) == 0.5


def test_clients_that_did_not_wait_are_not_in_lockstep() -> None:
    assert lockstep(pauses("0.01 s"), since=15.0) == 0


def test_two_hundred_clients_with_full_jitter_are_far_from_lockstep() -> None:
    chosen = [f"{Backoff(uniform=random.Random(seed).uniform).next():.2f} s" for seed in range(200)]
    assert lockstep(pauses(*chosen), since=5.0) < 0.2
