//! From what was made for a request back to the request.

use carrack_controller_api::{annotation, label};
use kube::{
    Resource, ResourceExt as _,
    runtime::{reflector::ObjectRef, watcher},
};

/// Watches what was made for requests of a kind, given in lower case.
pub fn watched(kind: &str) -> watcher::Config {
    watcher::Config::default().labels(&format!("{}={kind}", label::OWNER_KIND))
}

/// The request that a pod was made for.
pub fn of_pod<K: Resource<DynamicType = ()>>(pod: k8s_openapi::api::core::v1::Pod) -> Option<ObjectRef<K>> {
    let (namespace, name) = pod.annotations().get(annotation::OWNER)?.split_once('/')?;
    let reference = ObjectRef::new(name);
    Some(if namespace.is_empty() { reference } else { reference.within(namespace) })
}
