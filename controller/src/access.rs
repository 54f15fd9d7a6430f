//! Which mover, which repository, and the secrets that reach and open it.

use std::collections::BTreeMap;

use carrack_controller_api::{
    ClaimRef, ClusterRepository, DataMoverType, Location, MOVER_PROVISIONER, Repository, RepositoryKind,
    RepositoryRef, RepositoryStatus, annotation, condition as conditions, reason,
};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, ResourceExt as _, api::ListParams};

use crate::{
    condition,
    context::Context,
    error::{Error, Obstacle, Result},
    objects,
};

/// Contents of a secret.
pub type SecretData = BTreeMap<String, Vec<u8>>;

/// What a mover pod needs to reach and open a repository.
#[derive(Clone, Debug)]
pub struct Access {
    /// The type of mover.
    pub mover_type: DataMoverType,
    /// The repository.
    pub repository: RepositoryRef,
    /// Its id; empty before it was opened for the first time.
    pub repository_id: String,
    /// Where it is.
    pub location: Location,
    /// Credentials for the store.
    pub credentials: SecretData,
    /// What opens everything.
    pub key: SecretData,
}

/// Whose a request is, and what it may use.
#[derive(Clone, Debug)]
pub enum Resolution {
    /// Somebody else's mover serves it: not a thing of it is touched.
    Foreign,
    /// A person must put something right.
    Blocked(Obstacle),
    /// It can begin.
    Ready(Box<Access>),
}

/// Finds type, repository and secrets for a request.
pub async fn resolve(context: &Context, namespace: &str, type_name: Option<&str>) -> Result<Resolution> {
    let mover_type = match find_type(context, type_name).await? {
        Ok(found) if found.spec.provisioner != MOVER_PROVISIONER => return Ok(Resolution::Foreign),
        Ok(found) => found,
        Err(obstacle) => return Ok(Resolution::Blocked(obstacle)),
    };
    let Some(repository) = mover_type.spec.repository.clone() else {
        let message =
            format!("DataMoverType {} names no repository: set spec.repository", mover_type.name_any());
        return Ok(Resolution::Blocked(Obstacle::passing(reason::INVALID, message)));
    };
    let settled = match Settled::find(context, namespace, &repository).await? {
        Ok(found) => found,
        Err(obstacle) => return Ok(Resolution::Blocked(obstacle)),
    };
    let status = settled.status.clone().unwrap_or_default();
    if !condition::is_true(&status.conditions, conditions::READY) {
        let why = status.conditions.iter().find(|found| found.type_ == conditions::READY);
        let why = why.map_or("it was not opened yet", |found| found.message.as_str());
        let message = format!("{} is not ready: {why}", shown(&repository, namespace));
        return Ok(Resolution::Blocked(Obstacle::passing(reason::REPOSITORY_NOT_READY, message)));
    }
    Ok(match settled.secrets(context).await? {
        Err(obstacle) => Resolution::Blocked(obstacle),
        Ok((credentials, key)) => Resolution::Ready(Box::new(Access {
            mover_type,
            repository,
            repository_id: status.id.unwrap_or_default(),
            location: settled.location,
            credentials,
            key,
        })),
    })
}

/// The type of this name, or the default one.
async fn find_type(context: &Context, name: Option<&str>) -> Result<Result<DataMoverType, Obstacle>> {
    let types: Api<DataMoverType> = Api::all(context.client.clone());
    if let Some(name) = name {
        return Ok(objects::find(&types, name).await?.ok_or_else(|| {
            let message =
                format!("there is no DataMoverType {name}: make it, or name another in spec.dataMoverType");
            Obstacle::passing(reason::MOVER_TYPE_NOT_FOUND, message)
        }));
    }
    let all =
        types.list(&ListParams::default()).await.map_err(Error::api("DataMoverTypes cannot be listed"))?;
    Ok(default_type(all.items))
}

/// The one that is marked as default; of several the newest, as with storage classes.
fn default_type(types: Vec<DataMoverType>) -> Result<DataMoverType, Obstacle> {
    let marked = |found: &DataMoverType| {
        found.annotations().get(annotation::IS_DEFAULT).is_some_and(|mark| mark == "true")
    };
    types
        .into_iter()
        .filter(marked)
        .max_by_key(|found| (found.creation_timestamp().map(|time| time.0), std::cmp::Reverse(found.name_any())))
        .ok_or_else(|| {
            let message = format!(
                "no DataMoverType is the default: name one in spec.dataMoverType, or annotate one with {}: \"true\"",
                annotation::IS_DEFAULT
            );
            Obstacle::passing(reason::MOVER_TYPE_NOT_FOUND, message)
        })
}

/// What both kinds of repository say.
#[derive(Clone, Debug)]
pub struct Settled {
    /// Where it is.
    pub location: Location,
    /// Namespace and name of the secret for the store.
    pub credentials_secret: Option<(String, String)>,
    /// Namespace and name of the secret that opens it.
    pub key_secret: (String, String),
    /// What is known of it.
    pub status: Option<RepositoryStatus>,
}

impl From<&Repository> for Settled {
    fn from(found: &Repository) -> Self {
        let namespace = found.namespace().unwrap_or_default();
        Self {
            location: found.spec.location.clone(),
            credentials_secret: found
                .spec
                .credentials_secret
                .clone()
                .map(|secret| (namespace.clone(), secret.name)),
            key_secret: (namespace, found.spec.key_secret.name.clone()),
            status: found.status.clone(),
        }
    }
}

impl From<&ClusterRepository> for Settled {
    fn from(found: &ClusterRepository) -> Self {
        Self {
            location: found.spec.location.clone(),
            credentials_secret: found
                .spec
                .credentials_secret
                .clone()
                .map(|secret| (secret.namespace, secret.name)),
            key_secret: (found.spec.key_secret.namespace.clone(), found.spec.key_secret.name.clone()),
            status: found.status.clone(),
        }
    }
}

impl Settled {
    /// The repository that a request in this namespace means.
    pub async fn find(
        context: &Context,
        namespace: &str,
        reference: &RepositoryRef,
    ) -> Result<Result<Self, Obstacle>> {
        let name = &reference.name;
        let found = match reference.kind {
            RepositoryKind::ClusterRepository => {
                objects::find(&Api::<ClusterRepository>::all(context.client.clone()), name)
                    .await?
                    .map(|found| Self::from(&found))
            }
            RepositoryKind::Repository => {
                let api = Api::<Repository>::namespaced(context.client.clone(), namespace);
                objects::find(&api, name).await?.map(|found| Self::from(&found))
            }
        };
        Ok(found.ok_or_else(|| {
            let message = format!(
                "there is no {}: make it, or name another in the DataMoverType",
                shown(reference, namespace)
            );
            Obstacle::passing(reason::REPOSITORY_NOT_READY, message)
        }))
    }

    /// Credentials and key.
    pub async fn secrets(&self, context: &Context) -> Result<Result<(SecretData, SecretData), Obstacle>> {
        let credentials = match &self.credentials_secret {
            Some(at) => match secret(context, at).await? {
                Ok(data) => data,
                Err(obstacle) => return Ok(Err(obstacle)),
            },
            None => SecretData::new(),
        };
        if self.credentials_secret.is_some() && !has_credentials(&credentials) {
            let at = self.credentials_secret.clone().unwrap_or_default();
            let wanted = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or credentials";
            return Ok(Err(lacking(&at, wanted)));
        }
        let key = match secret(context, &self.key_secret).await? {
            Ok(data) => data,
            Err(obstacle) => return Ok(Err(obstacle)),
        };
        if !key.contains_key("password") && !key.contains_key("key") {
            return Ok(Err(lacking(&self.key_secret, "password, or key")));
        }
        Ok(Ok((credentials, key)))
    }
}

fn has_credentials(data: &SecretData) -> bool {
    data.contains_key("credentials")
        || (data.contains_key("AWS_ACCESS_KEY_ID") && data.contains_key("AWS_SECRET_ACCESS_KEY"))
}

fn lacking((namespace, name): &(String, String), wanted: &str) -> Obstacle {
    let message = format!("Secret {namespace}/{name} lacks {wanted}: add it");
    Obstacle::passing(reason::SECRET_NOT_FOUND, message)
}

async fn secret(
    context: &Context,
    (namespace, name): &(String, String),
) -> Result<Result<SecretData, Obstacle>> {
    let secrets: Api<Secret> = Api::namespaced(context.client.clone(), namespace);
    Ok(match objects::find(&secrets, name).await? {
        Some(found) => {
            Ok(found.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)).collect())
        }
        None => {
            let message = format!("there is no Secret {namespace}/{name}: make it");
            Err(Obstacle::passing(reason::SECRET_NOT_FOUND, message))
        }
    })
}

/// A reference into another namespace, which nobody may make: the rights in one say nothing of the other.
pub fn other_namespace(field: &str, reference: &ClaimRef, own: &str) -> Option<Obstacle> {
    let other = reference.namespace.as_deref().filter(|namespace| *namespace != own)?;
    let message = format!("{field} is in namespace {other}, and this object in {own}: make the object there");
    Some(Obstacle::invalid(message))
}

fn shown(reference: &RepositoryRef, namespace: &str) -> String {
    match reference.kind {
        RepositoryKind::ClusterRepository => format!("ClusterRepository {}", reference.name),
        RepositoryKind::Repository => format!("Repository {namespace}/{}", reference.name),
    }
}
