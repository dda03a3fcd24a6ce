from smoke.backoff import Backoff


def ceilings(backoff: Backoff, count: int) -> list[float]:
    return [backoff.next() for _ in range(count)]


def highest(_: float, ceiling: float) -> float:
    return ceiling


def test_the_ceiling_grows_up_to_the_cap() -> None:
    grown = ceilings(Backoff(growth=2, uniform=highest), 8)
    assert grown == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]


def test_a_client_that_was_refused_for_half_a_second_does_not_wait_for_another_one() -> None:
    """The sum of the average delays: the try before half a second, and the one after it."""
    tries = [sum(ceilings(Backoff(uniform=highest), count)) / 2 for count in range(1, 8)]
    after = next(at for at in tries if at >= 0.5)
    assert after < 1.0


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
