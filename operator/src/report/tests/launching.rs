//! A report gets its Job, or is told why not.

use crate::places::Place;

use super::*;

#[tokio::test]
async fn a_dispatched_report_gets_its_job() {
    let here = Here::dispatched().await;
    let object = object(json!({}));

    let (outcome, bodies) = here
        .sees(
            &object,
            [
                get_object(&object),
                get_no_job(),
                create_job(),
                apply_status(&object),
                create_event(),
            ],
        )
        .await;

    outcome.unwrap();
    assert_eq!(bodies[2]["metadata"]["name"], format!("export-{UID}"));
    assert_eq!(bodies[3]["status"]["job"]["uid"], JOB_UID);
    assert_eq!(reason_of(&bodies[3], conditions::SUCCEEDED), reasons::STARTING);
    assert_eq!(bodies[4]["reason"], reasons::JOB_CREATED);
}

#[tokio::test]
async fn a_job_that_another_leader_created_meanwhile_is_success() {
    let here = Here::dispatched().await;
    let object = object(json!({}));

    let (outcome, _) = here
        .sees(
            &object,
            [
                get_object(&object),
                get_no_job(),
                create_job().refused(409, "already exists"),
                apply_status(&object),
            ],
        )
        .await;

    outcome.unwrap();
    assert_eq!(here.row().await.state(), State::Pending);
}

#[tokio::test]
async fn a_report_without_a_place_waits_and_says_at_which() {
    let here = Here::dispatched().await;
    let object = object(json!({}));
    let (client, seen) = api_server([
        get_object(&object),
        get_no_job(),
        apply_status(&object),
        create_event(),
    ]);
    let context = here.context(client);
    let other = ReportId::new(Uuid::from_u128(9));
    context
        .places
        .hold(other, Place::Running, tokio::time::Instant::now());

    reconcile(Arc::new(object), Arc::new(context)).await.unwrap();

    let bodies = seen.bodies().await;
    let conditions = bodies[2]["status"]["conditions"].as_array().unwrap();
    let launched = conditions
        .iter()
        .find(|condition| condition["type"] == "Launched")
        .unwrap();
    assert_eq!(launched["reason"], reasons::WAITING_FOR_PLACE);
    assert!(launched["message"].as_str().unwrap().contains("number 1 in line"));
    assert_eq!(bodies[3]["reason"], reasons::WAITING_FOR_PLACE);
}

#[tokio::test]
async fn a_job_that_the_api_server_can_never_take_ends_the_report() {
    let here = Here::dispatched().await;
    let object = object(json!({}));

    let (outcome, bodies) = here
        .sees(
            &object,
            [
                get_object(&object),
                get_no_job(),
                create_job().refused(422, "quantities must match the regular expression"),
                apply_status(&object),
                create_event(),
            ],
        )
        .await;

    outcome.unwrap();
    assert_eq!(here.row().await.state(), State::Failed);
    assert_eq!(bodies[4]["reason"], "JobRejected");
    assert!(
        bodies[4]["note"]
            .as_str()
            .unwrap()
            .contains("quantities must match")
    );
}

#[tokio::test]
async fn a_job_that_a_quota_forbids_is_tried_again() {
    let here = Here::dispatched().await;
    let object = object(json!({}));

    let (outcome, bodies) = here
        .sees(
            &object,
            [
                get_object(&object),
                get_no_job(),
                create_job().refused(403, "exceeded quota"),
                apply_status(&object),
                create_event(),
            ],
        )
        .await;

    assert_eq!(outcome.unwrap(), Action::requeue(super::super::REFUSED));
    assert_eq!(here.row().await.state(), State::Pending);
    assert_eq!(
        reason_of(&bodies[3], conditions::LAUNCHED),
        reasons::JOB_FORBIDDEN
    );
}

#[tokio::test]
async fn a_job_that_stays_forbidden_for_the_whole_deadline_ends_the_report() {
    let here = Here::dispatched().await;
    // dispatched at noon and 2 s; the clock says noon and 60 s
    let object = object(json!({"spec": {"activeDeadlineSeconds": 58}}));

    let (outcome, _) = here
        .sees(
            &object,
            [
                get_object(&object),
                get_no_job(),
                create_job().refused(403, "exceeded quota"),
                apply_status(&object),
                create_event(),
            ],
        )
        .await;

    outcome.unwrap();
    assert_eq!(here.row().await.state(), State::Failed);
}

#[tokio::test]
async fn an_api_server_that_is_away_leaves_the_place_free_for_the_next_try() {
    let here = Here::dispatched().await;
    let object = object(json!({}));
    let (client, seen) = api_server([
        get_object(&object),
        get_no_job(),
        create_job().refused(500, "etcd is away"),
    ]);
    let context = Arc::new(here.context(client));

    let outcome = reconcile(Arc::new(object), Arc::clone(&context)).await;

    assert!(matches!(outcome, Err(Error::Apply(_))));
    assert_eq!(context.places.taken(), 0);
    drop(context);
    seen.bodies().await;
}

#[tokio::test]
async fn a_live_job_is_adopted_after_a_crash_before_the_status() {
    let here = Here::dispatched().await;
    let object = object(json!({}));
    let job = job(json!({}));
    let (client, seen) = api_server([
        get_object(&object),
        get_job(&job),
        list_pods(&json!([])),
        apply_status(&object),
        create_event(),
    ]);
    let context = Arc::new(here.context(client));

    reconcile(Arc::new(object), Arc::clone(&context)).await.unwrap();

    assert_eq!(context.places.taken(), 1);
    drop(context);
    assert_eq!(seen.bodies().await[3]["status"]["job"]["uid"], JOB_UID);
}

#[tokio::test]
async fn a_job_of_an_earlier_object_is_cleared_away() {
    let here = Here::dispatched().await;
    let object = object(json!({}));
    let foreign = job(json!({"metadata": {"ownerReferences": [{
        "apiVersion": "reports.musicalbums.dev/v1alpha1", "kind": "PopularityReport",
        "name": NAME, "uid": "another",
    }]}}));

    let (outcome, bodies) = here
        .sees(
            &object,
            [
                get_object(&object),
                get_job(&foreign),
                list_pods(&json!([])),
                delete_job(),
                apply_status(&object),
            ],
        )
        .await;

    assert_eq!(outcome.unwrap(), Action::requeue(super::super::ENDING));
    assert_eq!(bodies[3]["preconditions"]["uid"], JOB_UID);
    assert_eq!(bodies[3]["propagationPolicy"], "Background");
}
