from smoke.topology import QueueType, Topology


def test_a_queue_has_nothing_but_its_type_unless_it_is_said() -> None:
    assert Topology().queue_arguments == {"x-queue-type": "quorum"}
    assert Topology(queue_type=QueueType.CLASSIC).queue_arguments == {"x-queue-type": "classic"}


def test_what_a_queue_gives_up_leaves_it_when_another_one_has_it() -> None:
    assert Topology(dead_letter_exchange="dead").queue_arguments == {
        "x-queue-type": "quorum",
        "x-dead-letter-exchange": "dead",
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }


def test_a_queue_can_have_a_limit_of_deliveries_even_of_none() -> None:
    assert Topology(delivery_limit=3).queue_arguments["x-delivery-limit"] == 3
    assert Topology(delivery_limit=0).queue_arguments["x-delivery-limit"] == 0


def test_a_queue_can_have_one_consumer_at_a_time() -> None:
    assert Topology(single_active_consumer=True).queue_arguments["x-single-active-consumer"] is True
