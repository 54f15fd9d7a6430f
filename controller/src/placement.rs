//! Where a mover may run now: each node takes as many as its type allows.
//!
//! The scheduler does not count pods by what they do, so a new mover keeps away from the nodes that are full. One that has no
//! node yet may come to any of those that it does not avoid, so it counts on each: the limit holds whatever the scheduler
//! chooses.

use std::collections::HashMap;

use carrack_controller_api::{DataMoverType, annotation, label};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{Api, ResourceExt as _, api::ListParams};

use crate::{
    access::Resolution,
    context::Context,
    error::{Error, Result},
    pod::{self, MoverPod, PodState, VolumeMode},
};

/// Which nodes take no more movers of a type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Placement {
    /// Those, by name.
    full: Vec<String>,
    /// Whether there are others.
    room: bool,
}

impl Placement {
    fn of(pods: &[Pod], nodes: &[String], mover_type: &str, per_node: u32) -> Self {
        let movers = pods.iter().filter(|pod| {
            let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
            let same = pod.annotations().get(annotation::MOVER_TYPE).is_some_and(|name| name == mover_type);
            same && !matches!(phase, Some("Succeeded" | "Failed"))
        });
        let (placed, unplaced): (Vec<&Pod>, Vec<&Pod>) = movers.partition(|pod| node_of(pod).is_some());
        let mut on: HashMap<&str, usize> = HashMap::new();
        placed.iter().filter_map(|pod| node_of(pod)).for_each(|node| *on.entry(node).or_default() += 1);
        let avoided: Vec<Vec<&str>> = unplaced.iter().map(|pod| pod::avoided_nodes(pod).collect()).collect();
        let count = |node: &str| {
            let may_come = avoided.iter().filter(|avoided| !avoided.contains(&node)).count();
            on.get(node).copied().unwrap_or(0) + may_come
        };
        let full: Vec<String> =
            nodes.iter().filter(|&node| count(node) >= per_node as usize).cloned().collect();
        // Of a cluster without nodes the scheduler says more.
        Self { room: nodes.is_empty() || full.len() < nodes.len(), full }
    }

    /// Whether one of these nodes takes a mover; any node if none is named.
    fn has_room(&self, only_on: &[String]) -> bool {
        if only_on.is_empty() { self.room } else { only_on.iter().any(|node| !self.full.contains(node)) }
    }

    async fn look(context: &Context, mover_type: &DataMoverType) -> Result<Self> {
        let pods: Api<Pod> = Api::namespaced(context.client.clone(), &context.settings.namespace);
        let movers = ListParams::default().labels(&format!("{}={}", label::MANAGED_BY, label::MANAGER));
        let movers = pods.list(&movers).await.map_err(Error::api("mover pods cannot be listed"))?.items;
        let per_node = mover_type.spec.concurrency.per_node;
        Ok(Self::of(&movers, &nodes(context).await?, &mover_type.name_any(), per_node))
    }
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

/// Makes a mover pod where there is room; false if there is none. One at a time: a place that two see is taken twice.
pub async fn start(context: &Context, mut pod: MoverPod<'_>, mover_type: &DataMoverType) -> Result<bool> {
    let _one = context.placing.lock().await;
    let placement = Placement::look(context, mover_type).await?;
    if let Some(volume) = &mut pod.volume {
        if !placement.has_room(&volume.only_on) {
            return Ok(false);
        }
        volume.avoided = placement.full;
    }
    pod::apply(context, &pod).await.map(|_| true)
}

/// With whose users a mover runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Users {
    /// As the pod has it: false for users of its own.
    pub host: Option<bool>,
    /// Whether nobody asked for users of its own: then it does all or nothing, and another may do it with the node's.
    pub strict: bool,
}

/// With whose users a mover runs: as the template says, as was found out, or else with users of its own where all nodes can
/// give them. A device cannot be given to a pod with users of its own.
pub async fn users(
    context: &Context,
    mover_type: &DataMoverType,
    found_out: Option<bool>,
    mode: VolumeMode,
) -> Result<Users> {
    let said = mover_type.spec.pod_template.host_users;
    let own = match (mode, said.or(found_out)) {
        (VolumeMode::Block, _) | (_, Some(true)) => false,
        (_, Some(false)) => true,
        (_, None) => context.user_namespaces.are_everywhere(context).await?,
    };
    Ok(Users { host: own.then_some(false), strict: own && said.is_none() })
}

/// Whether the nodes can give pods users of their own, as they said last.
#[derive(Debug, Default)]
pub struct UserNamespaces(tokio::sync::Mutex<Option<(Timestamp, bool)>>);

impl UserNamespaces {
    /// How long what the nodes said is believed.
    const BELIEVED: SignedDuration = SignedDuration::from_mins(5);
    /// Nodes in one answer: each brings the list of its images.
    const PAGE: u32 = 50;

    async fn are_everywhere(&self, context: &Context) -> Result<bool> {
        let mut known = self.0.lock().await;
        if let Some((when, found)) = *known
            && context.now().duration_since(when) < Self::BELIEVED
        {
            return Ok(found);
        }
        let nodes: Api<Node> = Api::all(context.client.clone());
        let mut parameters = ListParams::default().limit(Self::PAGE);
        let mut everywhere = true;
        loop {
            let page = nodes.list(&parameters).await.map_err(Error::api("nodes cannot be listed"))?;
            everywhere &= page.items.iter().all(has_user_namespaces);
            match page.metadata.continue_.filter(|token| everywhere && !token.is_empty()) {
                Some(token) => parameters = parameters.continue_token(&token),
                None => break,
            }
        }
        *known = Some((context.now(), everywhere));
        Ok(everywhere)
    }
}

/// Of the runtime that pods get which name none.
fn has_user_namespaces(node: &Node) -> bool {
    let handlers = node.status.as_ref().and_then(|status| status.runtime_handlers.as_ref());
    handlers.into_iter().flatten().any(|handler| {
        let default = handler.name.as_deref().unwrap_or_default().is_empty();
        default && handler.features.as_ref().is_some_and(|features| features.user_namespaces == Some(true))
    })
}

/// Whether a pod finds no node, and one of those that it keeps away from has room by now.
pub async fn is_outdated(context: &Context, pod: &PodState, resolution: &Resolution) -> Result<bool> {
    let (PodState::Waiting { avoided, .. }, Resolution::Ready(access)) = (pod, resolution) else {
        return Ok(false);
    };
    if avoided.is_empty() {
        return Ok(false);
    }
    let placement = Placement::look(context, &access.mover_type).await?;
    Ok(avoided.iter().any(|node| !placement.full.contains(node)))
}

/// Names of the cluster's nodes.
pub async fn nodes(context: &Context) -> Result<Vec<String>> {
    let nodes: Api<Node> = Api::all(context.client.clone());
    let found =
        nodes.list_metadata(&ListParams::default()).await.map_err(Error::api("nodes cannot be listed"))?;
    Ok(found.items.iter().map(|node| node.name_any()).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn mover(node: Option<&str>, mover_type: &str, phase: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": { "annotations": { annotation::MOVER_TYPE: mover_type } },
            "spec": { "containers": [], "nodeName": node }, "status": { "phase": phase }
        }))
        .unwrap()
    }

    #[test]
    fn only_what_the_usual_runtime_of_a_node_says_counts() {
        let node = |handlers: serde_json::Value| -> Node {
            serde_json::from_value(json!({ "status": { "runtimeHandlers": handlers } })).unwrap()
        };
        let other = json!({ "name": "sandboxed", "features": { "userNamespaces": true } });
        assert!(has_user_namespaces(&node(
            json!([other, { "name": "", "features": { "userNamespaces": true } }])
        )));
        assert!(!has_user_namespaces(&node(
            json!([other, { "name": "", "features": { "userNamespaces": false } }])
        )));
        assert!(!has_user_namespaces(&node(json!([other]))) && !has_user_namespaces(&Node::default()));
    }

    #[test]
    fn full_nodes_are_kept_away_from_and_who_has_no_node_counts_on_each() {
        let nodes = ["a".to_owned(), "b".to_owned()];
        let mut pods = vec![mover(Some("a"), "x", "Running"), mover(Some("b"), "x", "Succeeded")];
        let seen = Placement::of(&pods, &nodes, "x", 1);
        assert_eq!(seen, Placement { full: vec!["a".into()], room: true });
        assert!(
            seen.has_room(&nodes) && !seen.has_room(&nodes[..1]),
            "the one node that it could be on is full"
        );
        assert!(Placement::of(&pods, &nodes, "y", 1).full.is_empty(), "another type has places of its own");
        assert!(Placement::of(&pods, &[], "x", 1).has_room(&[]), "the scheduler says what is wrong");
        pods.push(mover(None, "x", "Pending"));
        assert!(!Placement::of(&pods, &nodes, "x", 1).has_room(&[]), "it may come to b");
        assert_eq!(Placement::of(&pods, &nodes, "x", 2).full, ["a"]);
        let annotations = pods[2].metadata.annotations.as_mut().unwrap();
        annotations.insert(annotation::AVOIDED_NODES.into(), "a,b".into());
        assert!(
            Placement::of(&pods, &nodes, "x", 1).has_room(&[]),
            "it will not come to b, and may be replaced"
        );
    }
}
