"""The judge itself is on trial here: each planted fault must be found, and nothing innocent accused."""

import itertools

import pytest

from smoke.history import Event, Kind
from smoke.judge import Gap, Verdict, judge
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
    ) -> "Story":
        for sequence in sequences:
            event = Event(next(self._clock), kind, client, producer, sequence, attempt, redelivered)
            self.events.append(event)
        return self

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
