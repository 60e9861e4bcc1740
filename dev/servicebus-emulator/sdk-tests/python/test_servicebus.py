"""The official Python SDK against the emulator: what it promises to an application holds."""

import time
from datetime import datetime, timedelta, timezone

import pytest
from azure.servicebus import (
    ServiceBusMessage,
    ServiceBusReceiveMode,
    ServiceBusSubQueue,
)
from azure.servicebus.exceptions import (
    MessageLockLostError,
    MessageNotFoundError,
    MessageSizeExceededError,
    ServiceBusAuthenticationError,
)

from conftest import open_client


def send(client, queue, *messages):
    with client.get_queue_sender(queue) as sender:
        for message in messages:
            sender.send_messages(message)


def receiver(client, queue, **options):
    return client.get_queue_receiver(queue, **options)


def dead_letters(client, queue):
    return client.get_queue_receiver(queue, sub_queue=ServiceBusSubQueue.DEAD_LETTER)


def receive(receiver, count=1):
    """As many as asked for, however they come in."""
    messages = []
    while len(messages) < count:
        some = receiver.receive_messages(count - len(messages), max_wait_time=10)
        assert some, f"only {len(messages)} of {count} messages came"
        messages += some
    return messages


def body(message):
    return b"".join(message.body)


def test_a_message_arrives_as_it_was_sent_and_is_gone_when_completed(client, queue, emulator):
    sent = ServiceBusMessage(
        b"\x00\xffbytes",
        message_id="id-1",
        subject="subject",
        correlation_id="correlation",
        content_type="application/json",
        application_properties={"text": "t", "number": 7, "flag": True},
        time_to_live=timedelta(hours=1),
    )
    send(client, queue, sent)

    with receiver(client, queue) as receiving:
        [message] = receive(receiving)
        assert body(message) == b"\x00\xffbytes"
        assert (message.message_id, message.subject) == ("id-1", "subject")
        assert (message.correlation_id, message.content_type) == ("correlation", "application/json")
        assert message.application_properties == {b"text": b"t", b"number": 7, b"flag": True}
        assert message.time_to_live == timedelta(hours=1)
        assert message.delivery_count == 0
        assert message.locked_until_utc > datetime.now(timezone.utc)
        receiving.complete_message(message)

    assert emulator.queue(queue)["active"] == 0
    assert emulator.queue(queue)["counters"]["completed"] == 1


def test_a_message_without_an_id_gets_one(client, queue):
    message = ServiceBusMessage("x")
    message.message_id = None
    send(client, queue, message)

    with receiver(client, queue) as receiving:
        [message] = receive(receiving)
        assert len(message.message_id) > 0
        receiving.complete_message(message)


def test_batches_and_lists_arrive_message_by_message_and_in_order(client, queue):
    with client.get_queue_sender(queue) as sender:
        batch = sender.create_message_batch()
        for number in range(50):
            batch.add_message(ServiceBusMessage(f"{number}"))
        sender.send_messages(batch)
        sender.send_messages([ServiceBusMessage(f"{number}") for number in range(50, 60)])

    with receiver(client, queue) as receiving:
        messages = receive(receiving, 60)
        assert [int(body(message)) for message in messages] == list(range(60))
        for message in messages:
            receiving.complete_message(message)


def test_a_batch_is_filled_up_to_the_size_that_the_queue_takes(client, make_queue):
    queue = make_queue(max_message_size="64KiB")
    with client.get_queue_sender(queue) as sender:
        batch = sender.create_message_batch()
        with pytest.raises(MessageSizeExceededError):
            batch.add_message(ServiceBusMessage("x" * 70_000))
        batch.add_message(ServiceBusMessage("x" * 60_000))
        sender.send_messages(batch)


def test_a_message_of_many_frames_arrives_whole(client, queue):
    large = bytes(range(256)) * 900
    send(client, queue, ServiceBusMessage(large))

    with receiver(client, queue) as receiving:
        [message] = receive(receiving)
        assert body(message) == large
        receiving.complete_message(message)


def test_a_message_that_is_too_large_is_refused(client, queue):
    with client.get_queue_sender(queue) as sender, pytest.raises(MessageSizeExceededError):
        sender.send_messages(ServiceBusMessage(b"x" * 300_000))


def test_a_message_abandoned_too_often_becomes_a_dead_letter(client, make_queue):
    queue = make_queue(max_delivery_count=3)
    send(client, queue, ServiceBusMessage("poison"))

    with receiver(client, queue) as receiving:
        for failures in range(3):
            [message] = receive(receiving)
            assert message.delivery_count == failures
            receiving.abandon_message(message)
        assert receiving.receive_messages(1, max_wait_time=1) == []

    with dead_letters(client, queue) as receiving:
        [message] = receive(receiving)
        assert body(message) == b"poison"
        assert message.dead_letter_reason == "MaxDeliveryCountExceeded"
        assert message.dead_letter_source == queue
        receiving.complete_message(message)


def test_a_dead_letter_says_why(client, queue):
    send(client, queue, ServiceBusMessage("x", application_properties={"kept": "yes"}))

    with receiver(client, queue) as receiving:
        [message] = receive(receiving)
        receiving.dead_letter_message(message, reason="unreadable", error_description="not JSON")

    with dead_letters(client, queue) as receiving:
        [message] = receive(receiving)
        assert message.dead_letter_reason == "unreadable"
        assert message.dead_letter_error_description == "not JSON"
        assert message.application_properties[b"kept"] == b"yes"
        receiving.complete_message(message)


def test_a_lost_lock_is_reported_and_the_message_delivered_again(client, queue, emulator):
    send(client, queue, ServiceBusMessage("x"))

    with receiver(client, queue) as receiving:
        [message] = receive(receiving)
        emulator.admin("POST", f"/queues/{queue}/expire-locks")
        with pytest.raises(MessageLockLostError):
            receiving.complete_message(message)
        [again] = receive(receiving)
        assert again.delivery_count == 1
        receiving.complete_message(again)


def test_a_lock_runs_out_in_its_time(client, make_queue):
    queue = make_queue(lock="1s")
    send(client, queue, ServiceBusMessage("x"))

    with receiver(client, queue) as receiving:
        [first] = receive(receiving)
        [second] = receive(receiving)
        assert (second.sequence_number, second.delivery_count) == (first.sequence_number, 1)
        assert datetime.now(timezone.utc) >= first.locked_until_utc
        receiving.complete_message(second)


def test_a_renewed_lock_outlives_the_first(client, make_queue):
    queue = make_queue(lock="2s")
    send(client, queue, ServiceBusMessage("x"))

    with receiver(client, queue) as receiving:
        [message] = receive(receiving)
        first_end = message.locked_until_utc
        while datetime.now(timezone.utc) <= first_end + timedelta(milliseconds=200):
            assert receiving.renew_message_lock(message) > datetime.now(timezone.utc)
            time.sleep(0.3)
        receiving.complete_message(message)


def test_a_lock_that_is_lost_cannot_be_renewed(client, queue, emulator):
    send(client, queue, ServiceBusMessage("x"))

    with receiver(client, queue) as receiving:
        [message] = receive(receiving)
        emulator.admin("POST", f"/queues/{queue}/expire-locks")
        with pytest.raises(MessageLockLostError):
            receiving.renew_message_lock(message)


def test_peeking_takes_nothing_away(client, queue):
    send(client, queue, *[ServiceBusMessage(f"{number}") for number in range(3)])

    with receiver(client, queue) as receiving:
        assert [body(message) for message in receiving.peek_messages(10)] == [b"0", b"1", b"2"]
        assert [body(message) for message in receiving.peek_messages(1, sequence_number=2)] == [b"1"]
        assert receiving.peek_messages(10, sequence_number=100) == []
        assert len(receive(receiving, 3)) == 3


def test_a_scheduled_message_appears_in_its_time(client, queue):
    due = datetime.now(timezone.utc) + timedelta(seconds=2)
    with client.get_queue_sender(queue) as sender:
        numbers = sender.schedule_messages([ServiceBusMessage("a"), ServiceBusMessage("b")], due)
        assert len(set(numbers)) == 2

    with receiver(client, queue) as receiving:
        assert len(receiving.peek_messages(10)) == 2
        messages = receive(receiving, 2)
        assert datetime.now(timezone.utc) >= due - timedelta(milliseconds=50)
        for message in messages:
            receiving.complete_message(message)


def test_a_scheduled_message_can_be_cancelled_once(client, queue, emulator):
    with client.get_queue_sender(queue) as sender:
        later = datetime.now(timezone.utc) + timedelta(hours=1)
        numbers = sender.schedule_messages(ServiceBusMessage("never"), later)
        assert emulator.queue(queue)["scheduled"] == 1
        sender.cancel_scheduled_messages(numbers)
        assert emulator.queue(queue)["scheduled"] == 0
        with pytest.raises(MessageNotFoundError):
            sender.cancel_scheduled_messages(numbers)


def test_a_duplicate_is_accepted_and_dropped(client, make_queue, emulator):
    queue = make_queue(duplicate_detection="10m")
    send(
        client,
        queue,
        ServiceBusMessage("first", message_id="same"),
        ServiceBusMessage("second", message_id="same"),
        [ServiceBusMessage("third", message_id="same"), ServiceBusMessage("other", message_id="other")],
    )

    with receiver(client, queue) as receiving:
        messages = receive(receiving, 2)
        assert [body(message) for message in messages] == [b"first", b"other"]
        for message in messages:
            receiving.complete_message(message)
        assert receiving.receive_messages(1, max_wait_time=1) == []
    assert emulator.queue(queue)["counters"]["duplicates"] == 2


def test_a_deferred_message_is_received_by_its_number(client, queue):
    send(client, queue, ServiceBusMessage("x"))

    with receiver(client, queue) as receiving:
        [message] = receive(receiving)
        receiving.defer_message(message)
        assert receiving.receive_messages(1, max_wait_time=1) == []
        [deferred] = receiving.receive_deferred_messages([message.sequence_number])
        receiving.complete_message(deferred)
        with pytest.raises(MessageNotFoundError):
            receiving.receive_deferred_messages([message.sequence_number])


def test_receive_and_delete_takes_messages_for_good(client, queue, emulator):
    send(client, queue, [ServiceBusMessage("a"), ServiceBusMessage("b")])

    with receiver(client, queue, receive_mode=ServiceBusReceiveMode.RECEIVE_AND_DELETE) as receiving:
        assert len(receive(receiving, 2)) == 2

    counts = emulator.queue(queue)
    assert (counts["active"], counts["locked"]) == (0, 0)


def test_an_expired_message_becomes_a_dead_letter(client, make_queue):
    queue = make_queue(ttl="1s", dead_letter_expired=True)
    send(client, queue, ServiceBusMessage("old"))

    with dead_letters(client, queue) as receiving:
        [message] = receive(receiving)
        assert message.dead_letter_reason == "TTLExpiredException"
        receiving.complete_message(message)


def test_a_wrong_key_is_refused(emulator, queue):
    with open_client(emulator, key="d3Jvbmc=") as client:
        with pytest.raises(ServiceBusAuthenticationError):
            send(client, queue, ServiceBusMessage("x"))


def test_a_queue_that_is_not_there_is_not_found(client):
    # The service says so when the token is put, which this SDK takes for a failed authentication.
    with pytest.raises(ServiceBusAuthenticationError):
        send(client, "no-such-queue", ServiceBusMessage("x"))


def test_a_throttled_send_is_retried(client, queue, emulator):
    emulator.set_faults(queue, refuse_sends={"next": 1})

    send(client, queue, ServiceBusMessage("x"))

    counters = emulator.queue(queue)["counters"]
    assert (counters["refused"], counters["sent"]) == (1, 1)


def test_a_send_whose_outcome_was_lost_with_its_connection_arrives_once(client, make_queue, emulator):
    queue = make_queue(duplicate_detection="10m")
    emulator.set_faults(queue, drop_after_sends=1)

    send(client, queue, ServiceBusMessage("x", message_id="id"))

    counters = emulator.queue(queue)["counters"]
    assert (counters["sent"], counters["duplicates"]) == (1, 1)


def test_a_receiver_outlasts_the_detach_of_its_link(client, queue, emulator):
    with receiver(client, queue) as receiving:
        assert receiving.receive_messages(1, max_wait_time=1) == []
        forced = {"condition": "amqp:link:detach-forced", "description": "idle"}
        emulator.admin("POST", f"/queues/{queue}/detach-links", forced)
        send(client, queue, ServiceBusMessage("x"))
        [message] = receive(receiving)
        receiving.complete_message(message)


def test_messages_survive_a_killed_broker(own_emulator):
    emulator, queue = own_emulator, "orders"
    emulator.create_queue(queue, duplicate_detection="10m")
    later = datetime.now(timezone.utc) + timedelta(hours=1)
    with open_client(emulator) as client:
        with client.get_queue_sender(queue) as sender:
            sender.send_messages([ServiceBusMessage(f"{n}", message_id=f"{n}") for n in range(4)])
            sender.schedule_messages(ServiceBusMessage("later"), later)
        with receiver(client, queue) as receiving:
            done, failed, dead, locked = receive(receiving, 4)
            receiving.complete_message(done)
            receiving.abandon_message(failed)
            receiving.dead_letter_message(dead, reason="bad")

            emulator.kill()
            emulator.start()
            with pytest.raises(MessageLockLostError):
                receiving.complete_message(locked)

        send(client, queue, ServiceBusMessage("again", message_id="0"))
        with receiver(client, queue) as receiving:
            messages = receive(receiving, 2)
            assert [(body(message), message.delivery_count) for message in messages] == [(b"1", 1), (b"3", 0)]
            for message in messages:
                receiving.complete_message(message)
        with dead_letters(client, queue) as receiving:
            [message] = receive(receiving)
            assert message.dead_letter_reason == "bad"
    counts = emulator.queue(queue)
    assert (counts["active"], counts["scheduled"], counts["counters"]["duplicates"]) == (0, 1, 1)
