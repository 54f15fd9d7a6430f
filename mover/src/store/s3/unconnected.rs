//! A store whose requests go to a connector in the place of a connection, through all else that a request goes through.

use std::time::Duration;

use aws_config::{BehaviorVersion, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::StalledStreamProtectionConfig;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_smithy_runtime_api::client::http::{SharedHttpConnector, http_client_fn};

use super::{Cover, Hedge, S3Store, client};
use crate::store::ServerSideEncryption;

/// Where its service says that it is.
pub(super) const ENDPOINT: &str = "http://store.example:9000";

/// A client of that service.
pub(super) fn client_over(connector: SharedHttpConnector) -> Client {
    let credentials = Credentials::new("any", "any", None, None, "any");
    let shared = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .http_client(http_client_fn(move |_, _| connector.clone()))
        .retry_config(RetryConfig::disabled())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .build();
    client::client_of(&shared, "us-east-1", Some(ENDPOINT.to_owned()), true)
}

/// A store in `bucket`, below `x/`, that waits so long for an answer.
pub(super) fn store_of(client: Client, silence: Duration) -> S3Store {
    S3Store {
        client,
        bucket: "bucket".to_owned(),
        prefix: "x/".to_owned(),
        endpoint: ENDPOINT.to_owned(),
        storage_class: None,
        encryption: ServerSideEncryption::BucketDefault,
        cover: Cover::new(false, false),
        silence,
        hedge: Hedge::new(false),
        lock: tokio::sync::OnceCell::new(),
    }
}
