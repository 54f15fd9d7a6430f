//! An API server of objects and nothing else, for tests of what the controller asks one for. It looks at versions and
//! labels as a real one does; nobody binds claims or runs pods in it. What is posted is answered and not kept, and a patch makes
//! what is not there.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::Request,
    http::{Method, StatusCode},
    response::Response,
};
use carrack_controller_api::{MOVER_PROVISIONER, annotation};
use kube::Client;
use serde_json::{Value, json};

use crate::{context::Context, settings::Settings};

/// The objects, by their paths.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fake(Arc<Mutex<BTreeMap<String, Value>>>);

impl Fake {
    /// What a controller works with that knows this API server only.
    pub(crate) async fn context(&self) -> Context {
        let settings = Settings {
            namespace: "carrack".into(),
            image: "image".into(),
            image_pull_policy: "Never".into(),
            cluster_name: Some("cluster".into()),
            metrics_address: ([127, 0, 0, 1], 0).into(),
        };
        Context::new(self.client(), settings).await.expect("a context")
    }

    /// Puts an object where it belongs; the next version of one that is there.
    pub(crate) fn put(&self, path: &str, mut object: Value) {
        self.with(|objects| {
            let version = version(objects.get(path)) + 1;
            object["metadata"]["resourceVersion"] = version.to_string().into();
            objects.insert(path.to_owned(), object);
        });
    }

    /// What is there before any request: type, repository, secret, and claim `market/goods` with a volume that has no snapshots.
    pub(crate) fn put_world(&self) {
        let metadata = |name: &str, namespace: &str| {
            let uid = format!("uid of {name}");
            json!({ "name": name, "namespace": namespace, "uid": uid, "creationTimestamp": "2026-11-29T12:00:00Z" })
        };
        let mut standard = metadata("standard", "");
        standard["annotations"] = json!({ annotation::IS_DEFAULT: "true" });
        let spec = json!({ "provisioner": MOVER_PROVISIONER, "repository": { "name": "main" },
            "withoutSnapshots": "Live" });
        let types = "/apis/carrack.dev/v1alpha1/datamovertypes/standard";
        self.put(types, json!({ "metadata": standard, "spec": spec }));
        let ready = json!({ "type": "Ready", "status": "True", "reason": "Succeeded", "message": "",
            "lastTransitionTime": "2026-11-29T12:00:00Z" });
        self.put(
            "/apis/carrack.dev/v1alpha1/clusterrepositories/main",
            json!({ "metadata": metadata("main", ""), "status": { "conditions": [ready], "id": "id" },
                "spec": { "location": { "url": "s3:bucket" }, "keySecret": { "name": "key", "namespace": "carrack" } } }),
        );
        let data = json!({ "password": "cGFzc3dvcmQ=" });
        self.put(
            "/api/v1/namespaces/carrack/secrets/key",
            json!({ "metadata": metadata("key", "carrack"), "data": data }),
        );
        let claim = metadata("goods", "market");
        self.put(
            "/api/v1/persistentvolumes/volume",
            json!({ "metadata": metadata("volume", ""),
                "spec": { "accessModes": ["ReadWriteOnce"], "capacity": { "storage": "1Gi" }, "claimRef": claim.clone() } }),
        );
        self.put(
            "/api/v1/namespaces/market/persistentvolumeclaims/goods",
            json!({ "metadata": claim, "spec": { "volumeName": "volume" }, "status": { "phase": "Bound" } }),
        );
    }

    /// An object is not there any more.
    pub(crate) fn lose(&self, path: &str) {
        self.with(|objects| objects.remove(path));
    }

    /// An object; nothing if there is none.
    pub(crate) fn get(&self, path: &str) -> Value {
        self.with(|objects| objects.get(path).cloned().unwrap_or_default())
    }

    fn with<R>(&self, change: impl FnOnce(&mut BTreeMap<String, Value>) -> R) -> R {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn client(&self) -> Client {
        let fake = self.clone();
        let router = Router::new().fallback(move |request: Request| {
            let fake = fake.clone();
            async move { Ok::<_, Infallible>(fake.answer(request).await) }
        });
        Client::new(router, "default")
    }

    async fn answer(&self, request: Request) -> Response {
        let (head, body) = request.into_parts();
        let (path, query) = (head.uri.path().to_owned(), head.uri.query().unwrap_or_default().to_owned());
        let body = to_bytes(body, 1 << 20).await.expect("a body");
        let sent: Value = serde_json::from_slice(&body).unwrap_or_default();
        // Others have their turn between any two requests.
        tokio::task::yield_now().await;
        let (code, answer) = self.with(|objects| match head.method {
            // Who watches lists again.
            Method::GET if query.contains("watch=true") => {
                (200, json!({ "type": "ERROR", "object": failure(410, "Expired").1 }))
            }
            Method::GET if is_collection(&path) => (200, list(objects, &path, &query)),
            Method::GET => objects.get(&path).map_or_else(absent, |found| (200, found.clone())),
            Method::DELETE => objects.remove(&path).map_or_else(absent, |found| (200, found)),
            Method::PATCH => patch(objects, path.trim_end_matches("/status"), &sent),
            _ => (201, sent),
        });
        let mut response = Response::new(Body::from(answer.to_string()));
        *response.status_mut() = StatusCode::from_u16(code).expect("a code");
        response
    }
}

fn version(object: Option<&Value>) -> u64 {
    let text = object.and_then(|found| found["metadata"]["resourceVersion"].as_str());
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn absent() -> (u16, Value) {
    failure(404, "NotFound")
}

fn failure(code: u16, reason: &str) -> (u16, Value) {
    let status = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code,
        "message": reason });
    (code, status)
}

/// Whether a path ends with the plural of a kind.
fn is_collection(path: &str) -> bool {
    let mut parts = path.split('/').skip(1);
    let versions = if parts.next() == Some("api") { 1 } else { 2 };
    let parts: Vec<&str> = parts.skip(versions).collect();
    let below =
        if parts.first() == Some(&"namespaces") && parts.len() > 2 { &parts[2..] } else { &parts[..] };
    below.len() == 1
}

/// As all namespaces are asked for together.
fn without_namespace(path: &str) -> String {
    match path.split_once("/namespaces/").and_then(|(group, rest)| Some((group, rest.split_once('/')?.1))) {
        Some((group, rest)) => format!("{group}/{rest}"),
        None => path.to_owned(),
    }
}

fn list(objects: &BTreeMap<String, Value>, path: &str, query: &str) -> Value {
    let selector = query.split('&').find_map(|pair| pair.strip_prefix("labelSelector=")).unwrap_or_default();
    let selector = selector.replace("%3D", "=").replace("%2F", "/").replace("%2C", ",");
    let wanted: Vec<(&str, &str)> = selector.split(',').filter_map(|pair| pair.split_once('=')).collect();
    let below = format!("{path}/");
    let chosen = objects.iter().filter(|(found, object)| {
        let labels = &object["metadata"]["labels"];
        let here = found.starts_with(&below) || without_namespace(found).starts_with(&below);
        here && wanted.iter().all(|(key, value)| labels[*key] == **value)
    });
    let items: Vec<&Value> = chosen.map(|(_, object)| object).collect();
    json!({ "kind": "List", "apiVersion": "v1", "metadata": { "resourceVersion": "1" }, "items": items })
}

/// A merge, whatever kind of patch it is: what is sent here has no lists in which others write.
fn patch(objects: &mut BTreeMap<String, Value>, path: &str, sent: &Value) -> (u16, Value) {
    let known = version(objects.get(path));
    let seen = sent["metadata"]["resourceVersion"].as_str();
    if seen.is_some_and(|seen| seen != known.to_string()) {
        return failure(409, "Conflict");
    }
    let object = objects.entry(path.to_owned()).or_default();
    merge(object, sent);
    object["metadata"]["resourceVersion"] = (known + 1).to_string().into();
    (200, object.clone())
}

fn merge(target: &mut Value, sent: &Value) {
    let Value::Object(fields) = sent else {
        *target = sent.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in fields {
        match value {
            Value::Null => drop(target.as_object_mut().and_then(|object| object.remove(key))),
            _ => merge(&mut target[key], value),
        }
    }
}
