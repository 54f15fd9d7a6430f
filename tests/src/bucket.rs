//! A repository's objects as somebody sees them who holds certain credentials of the bucket: the plain requests of S3,
//! without anything of the engine in between. The credentials are real ones, which the service itself made and judges.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use aws_sdk_s3::{
    Client,
    config::{BehaviorVersion, Credentials, Region},
    error::{ProvideErrorMetadata, SdkError},
};
use serde_json::{Value, json};
use tokio::{runtime::Runtime, task::JoinSet};

use crate::minio::{ACCESS_KEY, BUCKET, MinioServer, SECRET_KEY};

/// Folders that a mover may create objects in, as the operator guide has it.
pub const MOVER_FOLDERS: [&str; 4] = ["sessions/", "packs/", "index/", "snapshots/"];
/// Puts that are under way at once.
const PARALLEL_PUTS: usize = 16;

/// What the operator guide lets a mover do: create in its folders, read and list, and delete nothing.
pub fn mover_policy(bucket: &str, prefix: &str) -> Value {
    let all = |folder: &&str| format!("arn:aws:s3:::{bucket}/{prefix}/{folder}*");
    let folders: Vec<String> = MOVER_FOLDERS.iter().map(all).collect();
    let repacks = ["sessions/r", "snapshots/r"].map(|names| all(&names));
    json!({ "Version": "2012-10-17", "Statement": [
        reads(bucket),
        { "Effect": "Allow", "Action": "s3:PutObject", "Resource": folders },
        { "Effect": "Deny", "Action": "s3:PutObject", "Resource": repacks },
    ] })
}

/// A policy that is too wide, as happens: create anything anywhere, and delete nothing.
pub fn careless_policy(bucket: &str, prefix: &str) -> Value {
    json!({ "Version": "2012-10-17", "Statement": [
        reads(bucket),
        { "Effect": "Allow", "Action": "s3:PutObject", "Resource": format!("arn:aws:s3:::{bucket}/{prefix}/*") },
    ] })
}

fn reads(bucket: &str) -> Value {
    let resources = [format!("arn:aws:s3:::{bucket}"), format!("arn:aws:s3:::{bucket}/*")];
    json!({ "Effect": "Allow", "Action": ["s3:ListBucket", "s3:GetObject"], "Resource": resources })
}

/// The objects below a prefix of a bucket, for a holder of some credentials.
#[derive(Debug)]
pub struct Bucket {
    runtime: Runtime,
    client: Client,
    bucket: String,
    prefix: String,
    credentials_file: PathBuf,
}

impl Bucket {
    /// For the owner of the server.
    pub fn of_owner(server: &MinioServer, bucket: &str, prefix: &str) -> Result<Self> {
        let owner = Credentials::new(ACCESS_KEY, SECRET_KEY, None, None, "test");
        Self::with(server, owner, server.credentials_file(), bucket, prefix)
    }

    /// For somebody who gets credentials of the server that may do no more than this policy says; they are kept in
    /// `file` for the program.
    pub fn of(server: &MinioServer, policy: &Value, file: &Path, prefix: &str) -> Result<Self> {
        let runtime = runtime()?;
        let config = aws_sdk_sts::Config::builder()
            .behavior_version(aws_sdk_sts::config::BehaviorVersion::latest())
            .endpoint_url(server.url())
            .region(Region::new("us-east-1"))
            .credentials_provider(Credentials::new(ACCESS_KEY, SECRET_KEY, None, None, "test"))
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .build();
        let assume = aws_sdk_sts::Client::from_conf(config)
            .assume_role()
            .role_arn("arn:aws:iam::test:role/mover")
            .role_session_name("mover")
            .policy(policy.to_string());
        let assumed = runtime.block_on(assume.send()).map_err(aws_sdk_sts::Error::from)?;
        let made = assumed.credentials().context("the service made no credentials")?;
        let (id, secret, token) = (made.access_key_id(), made.secret_access_key(), made.session_token());
        let text = format!(
            "[default]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\naws_session_token = {token}\n"
        );
        std::fs::write(file, text)?;
        let credentials = Credentials::new(id, secret, Some(token.to_owned()), None, "test");
        Self::with(server, credentials, file.to_owned(), BUCKET, prefix)
    }

    fn with(
        server: &MinioServer,
        credentials: Credentials,
        credentials_file: PathBuf,
        bucket: &str,
        prefix: &str,
    ) -> Result<Self> {
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .endpoint_url(server.url())
            .region(Region::new("us-east-1"))
            .force_path_style(true)
            .credentials_provider(credentials)
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .build();
        let (bucket, prefix) = (bucket.to_owned(), format!("{prefix}/"));
        let client = Client::from_conf(config);
        Ok(Self { runtime: runtime()?, client, bucket, prefix, credentials_file })
    }

    /// The plain client, for what is not here.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Runs a request of it.
    pub fn run<T>(&self, request: impl Future<Output = T>) -> T {
        self.runtime.block_on(request)
    }

    /// A credentials file for the program.
    pub fn credentials_file(&self) -> &Path {
        &self.credentials_file
    }

    /// The key of an object in the bucket.
    pub fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Puts an object, over whatever is there.
    pub fn put(&self, name: &str, body: &[u8]) -> Result<()> {
        let put =
            self.client.put_object().bucket(&self.bucket).key(self.key(name)).body(body.to_vec().into());
        self.run(put.send()).map(drop).map_err(|error| refused(&error))
    }

    /// Puts an object if there is none of its name.
    pub fn create(&self, name: &str, body: &[u8]) -> Result<()> {
        let put = self.client.put_object().bucket(&self.bucket).key(self.key(name)).if_none_match("*");
        self.run(put.body(body.to_vec().into()).send()).map(drop).map_err(|error| refused(&error))
    }

    /// Puts many objects, some at once.
    pub fn flood(&self, objects: impl IntoIterator<Item = (String, Vec<u8>)>) -> Result<()> {
        let mut objects = objects.into_iter();
        self.run(async {
            let mut running = JoinSet::new();
            loop {
                while running.len() < PARALLEL_PUTS
                    && let Some((name, body)) = objects.next()
                {
                    let put = self.client.put_object().bucket(&self.bucket).key(self.key(&name));
                    running.spawn(put.body(body.into()).send());
                }
                let Some(put) = running.join_next().await else { return Ok(()) };
                put?.map_err(|error| refused(&error))?;
            }
        })
    }

    /// Reads an object.
    pub fn get(&self, name: &str) -> Result<Vec<u8>> {
        let get = self.client.get_object().bucket(&self.bucket).key(self.key(name));
        self.run(async {
            let got = get.send().await.map_err(|error| refused(&error))?;
            Ok(got.body.collect().await?.to_vec())
        })
    }

    /// Deletes an object.
    pub fn delete(&self, name: &str) -> Result<()> {
        let delete = self.client.delete_object().bucket(&self.bucket).key(self.key(name));
        self.run(delete.send()).map(drop).map_err(|error| refused(&error))
    }

    /// Names and sizes of all objects whose names begin so.
    pub fn list(&self, start: &str) -> Result<Vec<(String, u64)>> {
        let list = self.client.list_objects_v2().bucket(&self.bucket).prefix(self.key(start));
        self.run(async {
            let (mut found, mut pages) = (Vec::new(), list.into_paginator().send());
            while let Some(page) = pages.next().await {
                for object in page.map_err(|error| refused(&error))?.contents() {
                    let name =
                        object.key().and_then(|key| key.strip_prefix(&self.prefix)).context("a name")?;
                    found.push((name.to_owned(), object.size().unwrap_or_default().try_into()?));
                }
            }
            Ok(found)
        })
    }

    /// Names of all objects whose names begin so.
    pub fn names(&self, start: &str) -> Result<Vec<String>> {
        Ok(self.list(start)?.into_iter().map(|(name, _)| name).collect())
    }
}

fn runtime() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?)
}

/// The service's own code of an error.
fn refused<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> anyhow::Error {
    anyhow!("{}", error.code().unwrap_or("no answer"))
}
