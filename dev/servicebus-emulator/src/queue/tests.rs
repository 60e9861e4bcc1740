use std::{collections::BTreeMap, num::NonZeroU32, time::Duration};

use rstest::rstest;
use serde_amqp::Value;

use super::*;
use crate::message::Map;
use crate::testing::{annotation, delivery_count, message, property};

const NOON: Moment = Moment::from_millis(1_700_000_000_000);
const LOCK: Duration = Duration::from_secs(30);

fn after(seconds: u64) -> Moment {
    NOON.plus(Duration::from_secs(seconds))
}

fn settings() -> QueueSettings {
    QueueSettings {
        lock_duration: LOCK,
        ..QueueSettings::default()
    }
}

fn queue() -> Queue {
    queue_with(settings())
}

fn queue_with(settings: QueueSettings) -> Queue {
    Queue::new("orders".parse().unwrap(), settings)
}

fn holding(ids: &[&str]) -> Queue {
    let mut queue = queue();
    for id in ids {
        queue.enqueue(message(id).build(), NOON);
    }
    queue
}

fn token(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

fn lock(queue: &mut Queue, number: u128, now: Moment) -> Option<Delivery> {
    queue
        .receive(Part::Main, ReceiveMode::PeekLock, token(number), now)
        .unwrap()
}

fn dead_letter(queue: &mut Queue, now: Moment) -> Option<Delivery> {
    queue
        .receive(Part::DeadLetter, ReceiveMode::PeekLock, token(99), now)
        .unwrap()
}

fn abandon() -> Settlement {
    Settlement::Abandon { modify: Map::new() }
}

#[test]
fn messages_come_out_in_the_order_in_which_they_went_in() {
    let mut queue = holding(&["a", "b"]);

    let sequences: Vec<_> = (0..3)
        .map(|n| lock(&mut queue, n, NOON).map(|delivery| delivery.sequence))
        .collect();

    assert_eq!(sequences, [Some(1), Some(2), None]);
}

#[test]
fn a_locked_message_is_not_given_to_another_receiver_until_its_lock_has_run_out() {
    let mut queue = holding(&["a"]);
    lock(&mut queue, 1, NOON).unwrap();

    queue.tick(after(29));
    let early = lock(&mut queue, 2, after(29));
    queue.tick(after(30));
    let late = lock(&mut queue, 3, after(30)).unwrap();

    assert_eq!(early, None);
    assert_eq!(delivery_count(&late.payload), Value::Uint(1));
    assert_eq!(queue.counters().locks_expired, 1);
}

#[test]
fn the_first_delivery_says_zero_failed_deliveries_and_until_when_it_is_locked() {
    let mut queue = holding(&["a"]);

    let delivery = lock(&mut queue, 1, after(5)).unwrap();

    assert_eq!(delivery_count(&delivery.payload), Value::Uint(0));
    assert_eq!(
        annotation(&delivery.payload, "x-opt-locked-until"),
        Some(after(35).into())
    );
    assert_eq!(
        annotation(&delivery.payload, "x-opt-enqueued-time"),
        Some(NOON.into())
    );
    assert_eq!(
        annotation(&delivery.payload, "x-opt-sequence-number"),
        Some(Value::Long(1))
    );
}

#[test]
fn a_completed_message_is_gone() {
    let mut queue = holding(&["a"]);
    lock(&mut queue, 1, NOON).unwrap();

    queue.settle(token(1), Settlement::Complete, NOON).unwrap();

    assert_eq!(queue.counts(), Counts::default());
    assert_eq!(queue.next_deadline(), None);
}

#[test]
fn an_abandoned_message_comes_back_to_its_old_place() {
    let mut queue = holding(&["a", "b"]);
    lock(&mut queue, 1, NOON).unwrap();

    queue.settle(token(1), abandon(), NOON).unwrap();

    let again = lock(&mut queue, 2, NOON).unwrap();
    assert_eq!(
        (again.sequence, delivery_count(&again.payload)),
        (1, Value::Uint(1))
    );
}

#[test]
fn a_released_message_comes_back_as_if_it_had_not_been_delivered() {
    let mut queue = holding(&["a"]);
    lock(&mut queue, 1, NOON).unwrap();

    queue.settle(token(1), Settlement::Release, NOON).unwrap();

    assert_eq!(
        delivery_count(&lock(&mut queue, 2, NOON).unwrap().payload),
        Value::Uint(0)
    );
}

#[rstest]
#[case::twice(NOON, token(1))]
#[case::after_the_lock_ran_out(after(30), token(1))]
#[case::by_a_token_never_given_out(NOON, token(7))]
fn a_settlement_without_a_lock_is_refused(#[case] now: Moment, #[case] by: Uuid) {
    let mut queue = holding(&["a"]);
    lock(&mut queue, 1, NOON).unwrap();
    if now == NOON && by == token(1) {
        queue.settle(by, Settlement::Complete, now).unwrap();
    }

    let refused = queue.settle(by, Settlement::Complete, now);

    assert!(matches!(refused, Err(Error::LockLost)));
    assert_eq!(queue.counters().lock_lost, 1);
}

#[test]
fn a_renewed_lock_holds_for_its_whole_duration_again() {
    let mut queue = holding(&["a"]);
    lock(&mut queue, 1, NOON).unwrap();

    let until = queue.renew(token(1), after(20)).unwrap();

    assert_eq!(until, after(50));
    queue.tick(after(49));
    queue.settle(token(1), Settlement::Complete, after(49)).unwrap();
}

#[test]
fn a_lock_that_has_run_out_is_not_renewed() {
    let mut queue = holding(&["a"]);
    lock(&mut queue, 1, NOON).unwrap();

    assert!(matches!(queue.renew(token(1), after(30)), Err(Error::LockLost)));
}

#[rstest]
#[case::abandoned(|queue: &mut Queue, n: u128| queue.settle(token(n), abandon(), NOON).unwrap())]
#[case::locks_run_out(|queue: &mut Queue, _| assert_eq!(queue.expire_locks(NOON), 1))]
fn the_last_failed_delivery_moves_a_message_to_the_dead_letters(#[case] fail: fn(&mut Queue, u128)) {
    let mut queue = queue_with(QueueSettings {
        max_delivery_count: NonZeroU32::new(3).unwrap(),
        ..settings()
    });
    queue.enqueue(message("a").build(), NOON);

    for n in 0..3 {
        assert_eq!(queue.counts().dead_letters.active, 0, "after {n} failures");
        lock(&mut queue, n, NOON).unwrap();
        fail(&mut queue, n);
    }

    assert_eq!(lock(&mut queue, 9, NOON), None);
    let dead = dead_letter(&mut queue, NOON).unwrap();
    assert_eq!(
        property(&dead.payload, "DeadLetterReason"),
        Some(Value::from("MaxDeliveryCountExceeded"))
    );
    assert_eq!(
        annotation(&dead.payload, "x-opt-deadletter-source"),
        Some(Value::from("orders"))
    );
    assert_eq!(
        annotation(&dead.payload, "x-opt-enqueue-sequence-number"),
        Some(Value::Long(1))
    );
}

#[test]
fn a_dead_letter_keeps_its_reason_description_and_own_properties() {
    let mut queue = queue();
    queue.enqueue(message("a").property("colour", "red").build(), NOON);
    lock(&mut queue, 1, NOON).unwrap();

    let settlement = Settlement::dead_letter(Some("bad"), Some("cannot be read"), Map::new());
    queue.settle(token(1), settlement, NOON).unwrap();

    let dead = dead_letter(&mut queue, NOON).unwrap();
    assert_eq!(
        property(&dead.payload, "DeadLetterReason"),
        Some(Value::from("bad"))
    );
    assert_eq!(
        property(&dead.payload, "DeadLetterErrorDescription"),
        Some(Value::from("cannot be read"))
    );
    assert_eq!(property(&dead.payload, "colour"), Some(Value::from("red")));
}

#[test]
fn a_dead_letter_that_is_rejected_again_stays_in_its_place() {
    let mut queue = holding(&["a"]);
    lock(&mut queue, 1, NOON).unwrap();
    queue
        .settle(token(1), Settlement::dead_letter(None, None, Map::new()), NOON)
        .unwrap();
    dead_letter(&mut queue, NOON).unwrap();

    queue
        .settle(token(99), Settlement::dead_letter(None, None, Map::new()), NOON)
        .unwrap();

    assert_eq!(
        queue.counts().dead_letters,
        PartCounts {
            active: 1,
            ..PartCounts::default()
        }
    );
}

#[test]
fn a_dead_letter_has_no_limit_of_deliveries() {
    let mut queue = holding(&["a"]);
    lock(&mut queue, 1, NOON).unwrap();
    queue
        .settle(token(1), Settlement::dead_letter(None, None, Map::new()), NOON)
        .unwrap();

    for _ in 0..20 {
        dead_letter(&mut queue, NOON).unwrap();
        queue.settle(token(99), abandon(), NOON).unwrap();
    }

    assert_eq!(queue.counts().dead_letters.active, 1);
}

#[test]
fn a_message_taken_in_receive_and_delete_mode_is_gone_at_once() {
    let mut queue = holding(&["a"]);

    let delivery = queue
        .receive(Part::Main, ReceiveMode::ReceiveAndDelete, token(1), NOON)
        .unwrap()
        .unwrap();

    assert_eq!(annotation(&delivery.payload, "x-opt-locked-until"), None);
    assert_eq!(queue.counts(), Counts::default());
}

#[test]
fn a_deferred_message_is_found_by_its_number_only() {
    let mut queue = holding(&["a"]);
    lock(&mut queue, 1, NOON).unwrap();
    queue
        .settle(token(1), Settlement::Defer { modify: Map::new() }, NOON)
        .unwrap();

    assert_eq!(lock(&mut queue, 2, NOON), None);
    assert_eq!(queue.counts().main.deferred, 1);
    let found = queue
        .receive_deferred(Part::Main, 1, ReceiveMode::PeekLock, token(3), NOON)
        .unwrap();
    assert_eq!(
        annotation(&found.payload, "x-opt-message-state"),
        Some(Value::Int(1))
    );
    let again = queue.receive_deferred(Part::Main, 1, ReceiveMode::PeekLock, token(4), NOON);
    assert!(matches!(again, Err(Error::NotFound(1))), "it is locked");
    queue.settle(token(3), Settlement::Complete, NOON).unwrap();
    assert_eq!(queue.counts(), Counts::default());
}

#[test]
fn a_deferred_message_whose_lock_runs_out_stays_deferred() {
    let mut queue = holding(&["a"]);
    lock(&mut queue, 1, NOON).unwrap();
    queue
        .settle(token(1), Settlement::Defer { modify: Map::new() }, NOON)
        .unwrap();
    queue
        .receive_deferred(Part::Main, 1, ReceiveMode::PeekLock, token(2), NOON)
        .unwrap();

    queue.tick(after(30));

    assert_eq!(lock(&mut queue, 3, after(30)), None);
    assert_eq!(queue.counts().main.deferred, 1);
}

#[test]
fn properties_to_modify_show_at_the_next_delivery() {
    let mut queue = holding(&["a"]);
    lock(&mut queue, 1, NOON).unwrap();

    let modify = Map::from_iter([(Value::from("tried"), Value::from("once"))]);
    queue
        .settle(token(1), Settlement::Abandon { modify }, NOON)
        .unwrap();

    assert_eq!(
        property(&lock(&mut queue, 2, NOON).unwrap().payload, "tried"),
        Some(Value::from("once"))
    );
}

#[test]
fn a_scheduled_message_appears_in_its_time_with_a_new_number_and_enqueued_time() {
    let mut queue = queue();
    queue.enqueue(message("later").scheduled(after(60)).build(), NOON);
    queue.enqueue(message("now").build(), NOON);

    assert_eq!(lock(&mut queue, 1, NOON).unwrap().sequence, 2);
    queue.settle(token(1), Settlement::Complete, NOON).unwrap();
    assert_eq!(
        (lock(&mut queue, 2, after(59)), queue.next_deadline().is_some()),
        (None, true)
    );
    queue.tick(after(60));
    let delivery = lock(&mut queue, 3, after(60)).unwrap();

    assert_eq!(delivery.sequence, 3);
    assert_eq!(
        annotation(&delivery.payload, "x-opt-enqueued-time"),
        Some(after(60).into())
    );
}

#[test]
fn a_message_scheduled_for_the_past_is_there_at_once() {
    let mut queue = queue();

    queue.enqueue(message("a").scheduled(NOON).build(), NOON);

    assert!(lock(&mut queue, 1, NOON).is_some());
}

#[test]
fn a_scheduled_message_can_be_cancelled_until_it_appears() {
    let mut queue = queue();
    queue.enqueue(message("a").scheduled(after(60)).build(), NOON);
    queue.enqueue(message("b").scheduled(after(60)).build(), NOON);

    queue.cancel_scheduled(1).unwrap();
    queue.tick(after(60));

    assert!(matches!(queue.cancel_scheduled(2), Err(Error::NotFound(2))));
    assert_eq!(queue.counts().main.active, 1);
}

#[rstest]
#[case::its_own(Some(10), None, 10)]
#[case::the_queues(None, Some(20), 20)]
#[case::its_own_is_shorter(Some(10), Some(20), 10)]
#[case::the_queues_is_shorter(Some(30), Some(20), 20)]
fn a_message_lives_no_longer_than_the_shorter_limit(
    #[case] own: Option<u64>,
    #[case] limit: Option<u64>,
    #[case] lives: u64,
) {
    let mut queue = queue_with(QueueSettings {
        ttl: limit.map(Duration::from_secs),
        ..settings()
    });
    let draft = message("a");
    let draft = match own {
        Some(own) => draft.ttl(Duration::from_secs(own)),
        None => draft,
    };
    queue.enqueue(draft.build(), NOON);

    queue.tick(after(lives - 1));
    assert_eq!(queue.counts().main.active, 1);
    queue.tick(after(lives));

    assert_eq!((queue.counts(), queue.counters().expired), (Counts::default(), 1));
}

#[test]
fn an_expired_message_goes_to_the_dead_letters_when_the_queue_says_so_and_stays_there() {
    let mut queue = queue_with(QueueSettings {
        ttl: Some(Duration::from_secs(10)),
        dead_letter_expired: true,
        ..settings()
    });
    queue.enqueue(message("a").build(), NOON);

    queue.tick(after(10));
    queue.tick(after(1_000));

    let dead = dead_letter(&mut queue, after(1_000)).unwrap();
    assert_eq!(
        property(&dead.payload, "DeadLetterReason"),
        Some(Value::from("TTLExpiredException"))
    );
}

#[test]
fn a_locked_message_does_not_expire_before_its_lock_ends() {
    let mut queue = queue();
    queue.enqueue(message("a").ttl(Duration::from_secs(10)).build(), NOON);
    lock(&mut queue, 1, after(9)).unwrap();

    queue.tick(after(20));
    assert_eq!(queue.counts().main.locked, 1);
    queue.settle(token(1), abandon(), after(21)).unwrap();

    assert_eq!((queue.counts(), queue.counters().expired), (Counts::default(), 1));
}

#[test]
fn an_expired_message_is_not_delivered_even_before_the_clock_has_ticked() {
    let mut queue = queue();
    queue.enqueue(message("a").ttl(Duration::from_secs(10)).build(), NOON);

    assert_eq!(lock(&mut queue, 1, after(10)), None);
}

#[test]
fn a_message_seen_within_the_window_is_accepted_and_dropped_even_when_the_first_is_gone() {
    let mut queue = queue_with(QueueSettings {
        duplicate_detection: Some(Duration::from_secs(60)),
        ..settings()
    });
    queue.enqueue(message("a").build(), NOON);
    lock(&mut queue, 1, NOON).unwrap();
    queue.settle(token(1), Settlement::Complete, NOON).unwrap();

    let within = queue.enqueue(message("a").build(), after(59));
    let other = queue.enqueue(message("b").build(), after(59));
    let later = queue.enqueue(message("a").build(), after(60));

    assert_eq!(
        (within, other, later),
        (Enqueued::Duplicate, Enqueued::Stored(2), Enqueued::Stored(3))
    );
    assert_eq!(queue.counters().duplicates, 1);
}

#[test]
fn without_duplicate_detection_every_message_counts() {
    let mut queue = holding(&["a", "a"]);

    assert!(lock(&mut queue, 1, NOON).is_some() && lock(&mut queue, 2, NOON).is_some());
}

#[test]
fn peeking_shows_every_message_from_a_number_on_and_touches_none() {
    let mut queue = holding(&["a", "b", "c", "d"]);
    lock(&mut queue, 1, NOON).unwrap();
    lock(&mut queue, 2, NOON).unwrap();

    let peeked = queue.peek(Part::Main, 2, 2).unwrap();

    let numbers: Vec<_> = peeked
        .iter()
        .map(|message| annotation(message, "x-opt-sequence-number"))
        .collect();
    assert_eq!(numbers, [Some(Value::Long(2)), Some(Value::Long(3))]);
    assert_eq!(annotation(&peeked[0], "x-opt-locked-until"), None);
    assert_eq!(lock(&mut queue, 3, NOON).unwrap().sequence, 3);
}

#[test]
fn purging_leaves_nothing_and_no_deadline() {
    let mut queue = holding(&["a", "b"]);
    lock(&mut queue, 1, NOON).unwrap();
    queue.enqueue(message("later").scheduled(after(60)).ttl(LOCK).build(), NOON);

    assert_eq!(queue.purge(), 3);

    assert_eq!((queue.counts(), queue.next_deadline()), (Counts::default(), None));
    assert!(matches!(
        queue.settle(token(1), Settlement::Complete, NOON),
        Err(Error::LockLost)
    ));
}

#[test]
fn receivers_are_told_when_a_message_becomes_ready_and_only_then() {
    let mut queue = holding(&["a"]);
    assert!(queue.take_arrivals());

    lock(&mut queue, 1, NOON).unwrap();
    assert!(!queue.take_arrivals(), "a delivery brings nothing new");
    queue.tick(after(30));
    assert!(queue.take_arrivals());
}

#[test]
fn what_was_changed_rebuilds_the_same_queue() {
    let mut queue = queue_with(QueueSettings {
        duplicate_detection: Some(Duration::from_secs(60)),
        ..settings()
    });
    for id in ["done", "failed", "dead", "deferred", "locked", "waiting"] {
        queue.enqueue(message(id).build(), NOON);
    }
    queue.enqueue(message("later").scheduled(after(60)).build(), NOON);
    for n in 1..=5 {
        lock(&mut queue, n, NOON).unwrap();
    }
    queue.settle(token(1), Settlement::Complete, NOON).unwrap();
    queue.settle(token(2), abandon(), NOON).unwrap();
    queue
        .settle(
            token(3),
            Settlement::dead_letter(Some("bad"), None, Map::new()),
            NOON,
        )
        .unwrap();
    queue
        .settle(token(4), Settlement::Defer { modify: Map::new() }, NOON)
        .unwrap();

    let mut rebuilt = replay(queue.take_changes(), queue.settings().clone());

    let counts = rebuilt.counts();
    assert_eq!(
        counts.main,
        PartCounts {
            active: 3,
            deferred: 1,
            scheduled: 1,
            locked: 0
        },
        "locks are released"
    );
    assert_eq!(counts.dead_letters.active, 1);
    let first = lock(&mut rebuilt, 1, NOON).unwrap();
    assert_eq!(
        (first.sequence, delivery_count(&first.payload)),
        (2, Value::Uint(1))
    );
    assert_eq!(
        rebuilt.enqueue(message("done").build(), after(1)),
        Enqueued::Duplicate
    );
    assert_eq!(
        rebuilt.enqueue(message("new").build(), after(1)),
        Enqueued::Stored(9)
    );
}

fn replay(changes: Vec<Change>, settings: QueueSettings) -> Queue {
    let (mut contents, mut records) = (BTreeMap::new(), BTreeMap::new());
    let (mut next, mut seen) = (1, Vec::new());
    for change in changes {
        match change {
            Change::Content {
                part,
                sequence,
                message,
            } => {
                contents.insert((part, sequence), message);
            }
            Change::Record {
                part,
                sequence,
                record,
            } => {
                records.insert((part, sequence), record);
            }
            Change::Removed { part, sequence } => {
                contents.remove(&(part, sequence));
                records.remove(&(part, sequence));
            }
            Change::NextSequence(sequence) => next = sequence,
            Change::Remembered { at, id } => seen.push((at, id)),
            Change::Forgotten { at, id } => seen.retain(|kept| *kept != (at, id.clone())),
        }
    }
    let messages = records
        .into_iter()
        .map(|((part, sequence), record)| (part, sequence, record, (*contents[&(part, sequence)]).clone()))
        .collect();
    let mut queue = queue_with(settings);
    queue.restore(next, messages, seen);
    queue
}
