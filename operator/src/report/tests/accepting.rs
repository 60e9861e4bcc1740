//! An object and its row find each other.

use super::*;

#[tokio::test]
async fn an_object_that_is_gone_is_left_alone() {
    let here = Here::new().await;
    let object = object(json!({}));

    let (outcome, _) = here
        .sees(&object, [get_object(&object).refused(404, "not found")])
        .await;

    assert_eq!(outcome.unwrap(), Action::await_change());
}

#[tokio::test]
async fn another_object_of_the_same_name_is_left_to_its_own_reconcile() {
    let here = Here::new().await;
    let other = object(json!({"metadata": {"uid": "5f0c2a4e-9999-4222-8333-444455556666"}}));

    let (outcome, _) = here.sees(&object(json!({})), [get_object(&other)]).await;

    assert_eq!(outcome.unwrap(), Action::await_change());
}

#[tokio::test]
async fn an_object_that_came_first_is_protected_before_anything_else() {
    let here = Here::new().await;
    let object = object(json!({"metadata": {"finalizers": null}}));

    let (outcome, bodies) = here
        .sees(
            &object,
            [
                get_object(&object),
                get_no_job(),
                patch_object(&object),
                apply_status(&object),
            ],
        )
        .await;

    outcome.unwrap();
    assert_eq!(bodies[2]["metadata"]["finalizers"], json!([names::FINALIZER]));
    assert_eq!(bodies[2]["metadata"]["resourceVersion"], "7");
    assert!(
        reports::get(&here.database.operator_pool, report_id())
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn an_object_that_came_first_gets_its_row_and_its_message() {
    let here = Here::new().await;
    let object = object(json!({"spec": {"limit": 50}}));

    let (outcome, bodies) = here
        .sees(
            &object,
            [get_object(&object), get_no_job(), apply_status(&object)],
        )
        .await;

    outcome.unwrap();
    let row = here.row().await;
    assert_eq!(row.parameters.limit, Some(50));
    assert_eq!(row.custom_resource, Some(reference()));
    let backlog = store::outbox::backlog(&here.database.operator_pool)
        .await
        .unwrap();
    assert_eq!(backlog.count, 1);
    assert_eq!(bodies[2]["status"]["reportId"], UID);
    assert_eq!(bodies[2]["status"]["phase"], "Pending");
    assert_eq!(
        reason_of(&bodies[2], conditions::SUCCEEDED),
        reasons::WAITING_FOR_SERVICE_BUS
    );
}

#[tokio::test]
async fn an_object_with_parameters_that_cannot_be_is_told_so_and_gets_no_row() {
    let here = Here::new().await;
    let object = object(json!({"spec": {"limit": 0}}));

    let (outcome, bodies) = here
        .sees(
            &object,
            [
                get_object(&object),
                get_no_job(),
                apply_status(&object),
                create_event(),
            ],
        )
        .await;

    assert_eq!(outcome.unwrap(), Action::await_change());
    assert_eq!(bodies[2]["status"]["phase"], "Failed");
    assert_eq!(bodies[3]["reason"], "InvalidParameters");
    assert!(
        reports::get(&here.database.operator_pool, report_id())
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn an_object_that_was_made_for_a_row_is_bound_to_it() {
    let here = Here::new().await;
    let id: ReportId = "0190b7c4-0000-7000-8000-000000000001".parse().unwrap();
    let new = reports::NewReport {
        id,
        outbox_id: outbox_id(),
        requested_by: Uuid::from_u128(2),
        parameters: Parameters::default(),
        idempotency: None,
        traceparent: None,
        cr_namespace: NAMESPACE.to_owned(),
        most_unfinished: 1_000,
        cr_name: names::custom_resource(id),
        now: noon(),
        expires_at: noon_and(1_000_000),
    };
    reports::request(&here.database.api_pool, &new).await.unwrap();
    let name = names::custom_resource(id);
    let object = object(json!({
        "metadata": {"name": name, "labels": {names::REPORT_ID_LABEL: id.to_string()}}
    }));

    let (outcome, bodies) = here
        .sees(
            &object,
            [
                get_object(&object).named(&name),
                get_no_job().of(id),
                apply_status(&object).named(&name),
            ],
        )
        .await;

    outcome.unwrap();
    let row = reports::get(&here.database.operator_pool, id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(row.custom_resource.unwrap().uid, UID);
    assert_eq!(bodies[2]["status"]["reportId"], id.to_string());
}

#[tokio::test]
async fn a_copy_of_a_manifest_under_another_name_asks_for_a_report_of_its_own() {
    let here = Here::with_row().await;
    let copy_uid = "5f0c2a4e-9999-4222-8333-444455556666";
    let copy = object(json!({"metadata": {
        "name": "copy", "uid": copy_uid, "labels": {names::REPORT_ID_LABEL: UID},
    }}));
    let copy_id: ReportId = copy_uid.parse().unwrap();

    let (outcome, _) = here
        .sees(
            &copy,
            [
                get_object(&copy).named("copy"),
                get_no_job().of(copy_id),
                apply_status(&copy).named("copy"),
            ],
        )
        .await;

    outcome.unwrap();
    let row = reports::get(&here.database.operator_pool, copy_id).await.unwrap();
    assert_eq!(row.unwrap().custom_resource.unwrap().name, "copy");
    assert_eq!(here.row().await.custom_resource, Some(reference()));
}

#[tokio::test]
async fn a_report_whose_message_was_lost_goes_on_without_it() {
    let here = Here::with_row().await;
    let mut claim = store::outbox::claim(&here.database.operator_pool, 1, noon())
        .await
        .unwrap();
    claim
        .mark_processed(&[outbox_id()], noon_and(-900))
        .await
        .unwrap();
    claim.commit().await.unwrap();
    let object = object(json!({}));

    let (outcome, bodies) = here
        .sees(
            &object,
            [get_object(&object), get_no_job(), apply_status(&object)],
        )
        .await;

    outcome.unwrap();
    assert_eq!(here.row().await.dispatched_at, Some(noon_and(60)));
    assert_eq!(
        reason_of(&bodies[2], conditions::DISPATCHED),
        reasons::MESSAGE_RECEIVED
    );
}

#[tokio::test]
async fn a_row_that_this_version_cannot_read_ends_and_says_why() {
    let here = Here::with_row().await;
    here.database
        .admin_pool
        .execute(r#"UPDATE reports SET parameters = '{"limit": 0}'"#)
        .await
        .unwrap();
    let object = object(json!({}));

    let (outcome, bodies) = here
        .sees(
            &object,
            [
                get_object(&object),
                get_no_job(),
                apply_status(&object),
                create_event(),
            ],
        )
        .await;

    outcome.unwrap();
    assert_eq!(bodies[2]["status"]["phase"], "Failed");
    assert_eq!(bodies[3]["reason"], "InvalidParameters");
    let unfinished = reports::to_sweep(&here.database.operator_pool, None, 10, noon())
        .await
        .unwrap();
    assert_eq!(unfinished, []);
}
