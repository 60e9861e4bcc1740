use domain::{Event, InvalidTransition, Progress, ReportId, State};
use store::reports::{self, Transition};
use store::testing::{self, TestDatabase};
use uuid::Uuid;

use crate::fixtures::{Stage, a_failure, an_artifact, applied, at, at_stage, get};

/// What the domain says of the event; the store has to do the same.
fn by_the_domain(progress: Progress, event: Event, id: ReportId) -> Result<Progress, InvalidTransition> {
    match event {
        Event::Dispatch => progress.dispatch(at(500)),
        Event::Begin => progress.begin(at(500)),
        Event::Complete => progress.complete(an_artifact(id), at(500)),
        Event::Fail => progress.fail(a_failure(), at(500)),
    }
}

async fn by_the_store(database: &TestDatabase, event: Event, id: ReportId) -> Transition<()> {
    let without_report = |transition| match transition {
        Transition::Applied(_) => Transition::Applied(()),
        Transition::Superseded(state) => Transition::Superseded(state),
        Transition::Unknown => Transition::Unknown,
    };
    match event {
        Event::Dispatch => without_report(
            reports::dispatch(&database.operator_pool, id, at(500))
                .await
                .unwrap(),
        ),
        Event::Begin => without_report(
            reports::begin(&database.exporter_pool, id, at(500))
                .await
                .unwrap(),
        ),
        Event::Complete => without_report(
            reports::complete(&database.exporter_pool, id, &an_artifact(id), at(500))
                .await
                .unwrap(),
        ),
        Event::Fail => reports::fail(&database.operator_pool, id, &a_failure(), at(500))
            .await
            .unwrap(),
    }
}

#[tokio::test]
async fn the_store_moves_a_report_exactly_as_the_domain_does() {
    let database = testing::database().await;
    for (stage, event) in Stage::ALL
        .into_iter()
        .flat_map(|stage| Event::ALL.map(|event| (stage, event)))
    {
        let id = at_stage(&database, stage).await;
        let before = get(&database, id).await;

        let outcome = by_the_store(&database, event, id).await;

        let after = get(&database, id).await;
        match by_the_domain(before.progress.clone(), event, id) {
            Ok(progress) => {
                assert_eq!(outcome, Transition::Applied(()), "{stage:?} x {event}");
                assert_eq!(after.progress, progress, "{stage:?} x {event}");
                assert_eq!(after.updated_at, at(500), "{stage:?} x {event}");
            }
            Err(InvalidTransition { from, .. }) => {
                assert_eq!(outcome, Transition::Superseded(from), "{stage:?} x {event}");
                assert_eq!(after, before, "{stage:?} x {event}: nothing is written");
            }
        }
    }
}

#[tokio::test]
async fn an_event_for_no_report_is_unknown() {
    let database = testing::database().await;
    for event in Event::ALL {
        let outcome = by_the_store(&database, event, ReportId::new(Uuid::now_v7())).await;
        assert_eq!(outcome, Transition::Unknown, "{event}");
    }
}

#[tokio::test]
async fn the_times_of_the_way_are_kept_to_the_end() {
    let database = testing::database().await;

    let id = at_stage(&database, Stage::Completed).await;

    let report = get(&database, id).await;
    assert_eq!(report.created_at, at(0));
    assert_eq!(
        report.relayed_at,
        Some(at(30)),
        "a dispatched message was relayed"
    );
    assert_eq!(report.dispatched_at, Some(at(30)));
    assert_eq!(report.started_at, Some(at(60)));
    assert_eq!(report.finished_at(), Some(at(120)));
    assert_eq!(report.attempts.get(), 1);
}

#[tokio::test]
async fn a_second_attempt_keeps_the_start_of_the_first() {
    let database = testing::database().await;

    let id = at_stage(&database, Stage::SecondAttempt).await;

    let report = get(&database, id).await;
    assert_eq!(report.started_at, Some(at(60)));
    assert_eq!(report.attempts.get(), 2);
}

#[tokio::test]
async fn of_twenty_ends_at_once_one_is_applied_and_the_others_learn_which() {
    let database = testing::database().await;
    let id = at_stage(&database, Stage::Processing).await;

    let database = &database;
    let ends = (0..20).map(|n| async move {
        let event = if n % 2 == 0 { Event::Complete } else { Event::Fail };
        by_the_store(database, event, id).await
    });
    let outcomes = futures::future::join_all(ends).await;

    let end = get(database, id).await.state();
    assert!(end.is_terminal());
    let winners = outcomes
        .iter()
        .filter(|outcome| **outcome == Transition::Applied(()));
    assert_eq!(winners.count(), 1);
    let losers = outcomes
        .iter()
        .filter(|outcome| **outcome == Transition::Superseded(end));
    assert_eq!(losers.count(), 19);
}

#[tokio::test]
async fn a_report_with_parameters_of_another_version_can_still_be_failed() {
    let database = testing::database().await;
    let id = at_stage(&database, Stage::Dispatched).await;
    sqlx::query("UPDATE reports SET parameters = '{\"topN\": 5}'")
        .execute(&database.admin_pool)
        .await
        .unwrap();

    let began = reports::begin(&database.exporter_pool, id, at(60)).await;
    let failed = reports::fail(&database.operator_pool, id, &a_failure(), at(61)).await;

    assert!(matches!(began, Err(reports::Error::InvalidParameters { id: named, .. }) if named == id));
    applied(failed.unwrap());
    let state: String = sqlx::query_scalar("SELECT state FROM reports")
        .fetch_one(&database.admin_pool)
        .await
        .unwrap();
    assert_eq!(state.parse(), Ok(State::Failed));
}
