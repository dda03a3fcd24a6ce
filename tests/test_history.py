import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from smoke.history import Event, History, Kind, Reporter, append
from smoke.messages import Identity


def test_a_history_survives_saving_and_loading(tmp_path: Path) -> None:
    history = History()
    history(Event(1.25, Kind.publish, "steady", "steady-1", 7, 2))
    history(Event(1.5, Kind.delivery, "consumer", "steady-1", 7, 2, redelivered=True))
    history(Event(2.0, Kind.lost, "consumer", detail='127.0.0.1:5670: "gone"\nfor good'))
    history.save(tmp_path / "history.jsonl")
    assert History.load(tmp_path / "history.jsonl").events() == history.events()


def test_a_saved_history_has_one_line_for_each_event(tmp_path: Path) -> None:
    history = History()
    history(Event(1.0, Kind.lost, "a", detail="two\nlines"))
    history(Event(2.0, Kind.ready, "a"))
    history.save(tmp_path / "history.jsonl")
    assert len((tmp_path / "history.jsonl").read_text().splitlines()) == 2


def test_a_history_that_was_written_event_by_event_is_the_same_file(tmp_path: Path) -> None:
    history = recorded(1.0, 2.5)
    history.save(tmp_path / "saved.jsonl")
    for event in history.events():
        append(tmp_path / "appended.jsonl", event)
    assert (tmp_path / "appended.jsonl").read_bytes() == (tmp_path / "saved.jsonl").read_bytes()


def test_a_history_whose_file_is_called_gz_is_compressed(tmp_path: Path) -> None:
    history = recorded(*(float(second) for second in range(1000)))
    history.save(tmp_path / "history.jsonl")
    history.save(tmp_path / "history.jsonl.gz")
    assert History.load(tmp_path / "history.jsonl.gz").events() == history.events()
    assert (tmp_path / "history.jsonl.gz").stat().st_size * 4 < (tmp_path / "history.jsonl").stat().st_size


def test_what_an_event_does_not_say_is_not_stored(tmp_path: Path) -> None:
    recorded(1.0).save(tmp_path / "history.jsonl")
    assert (tmp_path / "history.jsonl").read_text() == '{"at":1.0,"kind":"ack","client":"a"}\n'


@pytest.mark.parametrize(
    "line",
    [
        "nonsense",
        "[]",
        "{}",
        '{"at": 1.0, "kind": "fell over", "client": "a"}',
        '{"at": "soon", "kind": "ack", "client": "a"}',
        '{"at": 1.0, "kind": "ack", "client": "a", "sequence": true}',
        '{"at": 1.0, "kind": "ack", "client": "a", "colour": "red"}',
    ],
)
def test_a_line_that_is_no_event_is_named(tmp_path: Path, line: str) -> None:
    file = tmp_path / "history.jsonl"
    file.write_text('{"at": 1.0, "kind": "ready", "client": "a"}\n' + line + "\n")
    with pytest.raises(ValueError, match=r"history\.jsonl:2"):
        History.load(file)


def test_events_from_many_threads_are_all_kept() -> None:
    history = History()

    def record() -> None:
        for _ in range(500):
            history(Event(0.0, Kind.ack, "a"))

    threads = [threading.Thread(target=record) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(history.events()) == 2000


def test_a_snapshot_does_not_grow() -> None:
    history = History()
    snapshot = history.events()
    history(Event(0.0, Kind.ack, "a"))
    assert snapshot == ()


def test_what_was_recorded_after_so_many_events_is_the_rest() -> None:
    history = recorded(1.0, 2.0, 3.0)
    assert [event.at for event in history.after(1)] == [2.0, 3.0]
    assert history.after(3) == []


def recorded(*moments: float) -> History:
    history = History()
    for moment in moments:
        history(Event(moment, Kind.ack, "a"))
    return history


def test_the_events_since_a_moment_are_those_from_it_on() -> None:
    assert [event.at for event in recorded(1.0, 2.0, 3.0, 4.0).since(3.0)] == [3.0, 4.0]


def test_a_history_without_events_since_then_has_none() -> None:
    assert History().since(0.0) == []
    assert recorded(1.0, 2.0).since(2.5) == []


def test_events_that_threads_recorded_a_little_out_of_order_are_all_found() -> None:
    # In order of recording; 4.6 was over before 5.2 was written down.
    history = recorded(1.0, 5.2, 4.6, 4.2, 5.0, 5.8, 4.4)
    assert [event.at for event in history.since(4.5)] == [5.2, 4.6, 5.0, 5.8]


def test_what_happened_long_before_is_not_looked_at() -> None:
    class Untouched(tuple[Event, ...]):
        def __reversed__(self) -> Iterator[Event]:
            yield self[-1]
            yield self[-2]
            raise AssertionError("reads on where everything is older")

    history = recorded()
    events = Untouched([Event(at, Kind.ack, "a") for at in (1.0, 2.0, 9.0)])
    history.events = lambda: events  # type: ignore[method-assign]
    assert [event.at for event in history.since(8.0)] == [9.0]


def test_a_reporter_says_who_what_and_which_message() -> None:
    history = History()
    Reporter("consumer", history)(Kind.delivery, Identity("p", 3, 2), redelivered=True)
    (event,) = history.events()
    assert (event.client, event.kind, event.producer, event.sequence, event.attempt, event.redelivered) == (
        "consumer",
        Kind.delivery,
        "p",
        3,
        2,
        True,
    )
