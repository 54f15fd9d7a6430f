//! What a backup that is deleted leaves behind.

use carrack_controller_api::{BackupPhase as Phase, DeletionPolicy};
use carrack_proto::{Outcome, Output};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{WRITTEN, next, now, result, seen};
use crate::{
    backup::decide::Step,
    pod::{Lost, PodState},
};

#[test]
fn what_went_or_may_have_gone_is_expected_no_more_although_its_pod_failed() {
    let failed = |forgotten| {
        let PodState::Finished { mut result, node, started } = result(Outcome::Failed, 12, None) else {
            panic!("it is finished");
        };
        result.output = Some(Output::Forget { forgotten });
        PodState::Finished { result, node, started }
    };
    let lost = PodState::Lost(Lost {
        message: "gone with its node".into(),
        node: None,
        will_recur: false,
        needs_host_users: false,
    });
    for (pod, is_expected) in [(failed(0), true), (failed(1), false), (lost, false)] {
        let mut left = seen(Phase::Completed);
        left.backup.metadata.deletion_timestamp = Some(Time(now()));
        left.backup.spec.deletion_policy = DeletionPolicy::Delete;
        let status = left.backup.status.as_mut().expect("a status");
        (status.snapshot_id, status.repository_id) = (Some(WRITTEN.into()), Some("id".into()));
        left.forgets = pod;
        let decision = next(&left);
        let steps = if is_expected { vec![] } else { vec![Step::Disregard(WRITTEN.into())] };
        assert_eq!(decision.steps, steps);
        let told = decision.status.conditions.iter().find(|found| found.type_ == "Forgotten");
        assert!(told.is_some_and(|found| found.status == "False"), "nobody says that it is done");
    }
}
