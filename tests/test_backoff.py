from smoke.backoff import Backoff


def ceilings(backoff: Backoff, count: int) -> list[float]:
    return [backoff.next() for _ in range(count)]


def highest(_: float, ceiling: float) -> float:
    return ceiling


def test_the_ceiling_doubles_up_to_the_cap() -> None:
    assert ceilings(Backoff(uniform=highest), 8) == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]


def test_the_whole_interval_is_jitter() -> None:
    assert Backoff(uniform=lambda low, _: low).next() == 0.0
    assert Backoff(uniform=highest).next() == 0.1


def test_real_delays_differ() -> None:
    assert len({Backoff().next() for _ in range(20)}) > 1


def test_a_reset_begins_again_at_the_base() -> None:
    backoff = Backoff(uniform=highest)
    ceilings(backoff, 5)
    backoff.reset()
    assert backoff.next() == 0.1


def test_an_outage_of_days_does_not_overflow() -> None:
    assert ceilings(Backoff(uniform=highest), 5000)[-1] == 5.0
