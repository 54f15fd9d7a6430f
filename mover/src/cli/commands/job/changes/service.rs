//! The `SnapshotMetadata` service as its client sees it.

use std::{error::Error as _, fs, time::Duration};

use carrack_proto::MetadataService;
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};
use tonic_prost::ProstCodec;

use super::{
    extents::{Extents, Unusable},
    wire::{GetMetadataDeltaRequest, GetMetadataDeltaResponse},
};

/// The call.
const DELTA: &str = "/snapshotmetadata.SnapshotMetadata/GetMetadataDelta";
/// How long to wait for a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// How long a storage may compare before it says something.
const MESSAGE_LIMIT: Duration = Duration::from_secs(300);
/// How long all of it may take: to read a terabyte takes no longer.
const LIMIT: Duration = Duration::from_secs(3600);
/// Longest message: 400 000 extents.
const MESSAGE_BYTES: usize = 16 << 20;
/// How often in a row it may break off without having said anything new: with the pauses, long enough to be started anew.
const TRIES: u32 = 5;
/// The pause before the first of further tries; each is twice as long as the one before.
const PAUSE: Duration = Duration::from_millis(500);

/// Why there is no list.
#[derive(Debug)]
enum Failure {
    /// Another try may go on.
    Lost(String),
    /// There is none to be had.
    Refused(String),
}

impl Failure {
    fn because(self) -> String {
        match self {
            Self::Lost(words) | Self::Refused(words) => words,
        }
    }
}

impl From<Unusable> for Failure {
    fn from(unusable: Unusable) -> Self {
        match unusable {
            Unusable::List(words) => Self::Refused(words),
            Unusable::File(error) => Self::Refused(format!("its list cannot be written down: {error}")),
        }
    }
}

/// Adds what differs between the snapshot with this handle and the one that the service is asked about; or says why
/// there is no such list.
pub(super) async fn delta(
    service: &MetadataService,
    base: &str,
    extents: &mut Extents,
) -> Result<(), String> {
    let said = tokio::time::timeout(LIMIT, patiently(service, base, extents)).await;
    let said = said.unwrap_or_else(|_| Err(format!("it was not done within {} s", LIMIT.as_secs())));
    said.map_err(|because| format!("the metadata service at {}: {because}", service.address))
}

async fn patiently(service: &MetadataService, base: &str, extents: &mut Extents) -> Result<(), String> {
    let mut failed = 0;
    loop {
        let before = extents.reached();
        let said = once(service, base, extents).await;
        let because = match said {
            Ok(()) => return extents.end().map_err(|unusable| Failure::from(unusable).because()),
            // Nothing can follow, and to ask from there on is refused by some.
            Err(Failure::Lost(_)) if extents.is_complete() => return Ok(()),
            Err(Failure::Refused(because)) => return Err(because),
            Err(Failure::Lost(because)) => because,
        };
        failed = if extents.reached() > before { 1 } else { failed + 1 };
        if failed >= TRIES {
            return Err(because);
        }
        tracing::info!(because, "the list of changed blocks broke off, it is asked for again");
        tokio::time::sleep(PAUSE * 2_u32.pow(failed - 1)).await;
    }
}

/// From where it broke off to the end.
async fn once(service: &MetadataService, base: &str, extents: &mut Extents) -> Result<(), Failure> {
    let mut client = Grpc::new(connect(service).await?).max_decoding_message_size(MESSAGE_BYTES);
    // Each time anew: what writes the file may renew the token.
    let token = file(&service.token_file)?;
    let request = GetMetadataDeltaRequest {
        security_token: String::from_utf8_lossy(&token).trim().to_owned(),
        namespace: service.namespace.clone(),
        base_snapshot_id: base.to_owned(),
        target_snapshot_name: service.snapshot.clone(),
        starting_offset: i64::try_from(extents.reached()).unwrap_or(i64::MAX),
        max_results: 0,
    };
    client.ready().await.map_err(|error| unreachable(&error))?;
    let codec = ProstCodec::<GetMetadataDeltaRequest, GetMetadataDeltaResponse>::default();
    let path = PathAndQuery::from_static(DELTA);
    let begun = within(client.server_streaming(Request::new(request), path, codec)).await?;
    let mut messages = begun.into_inner();
    while let Some(message) = within(messages.message()).await? {
        extents.of_volume(message.volume_capacity_bytes)?;
        for extent in message.block_metadata {
            extents.add(extent.byte_offset, extent.size_bytes)?;
        }
    }
    Ok(())
}

async fn connect(service: &MetadataService) -> Result<Channel, Failure> {
    let wrong = |error: tonic::transport::Error| Failure::Refused(in_words(&error));
    let certificates = file(&service.ca_file)?;
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(certificates));
    let endpoint = Endpoint::from_shared(format!("https://{}", service.address)).map_err(wrong)?;
    let endpoint = endpoint.tls_config(tls).map_err(wrong)?.connect_timeout(CONNECT_LIMIT);
    endpoint.connect().await.map_err(|error| unreachable(&error))
}

fn file(path: &str) -> Result<Vec<u8>, Failure> {
    fs::read(path).map_err(|error| Failure::Refused(format!("{path} cannot be read: {error}")))
}

fn unreachable(error: &tonic::transport::Error) -> Failure {
    Failure::Lost(in_words(error))
}

/// With its causes, which say what happened.
fn in_words(error: &tonic::transport::Error) -> String {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    std::iter::once(error.to_string()).chain(causes.map(ToString::to_string)).collect::<Vec<_>>().join(": ")
}

/// What the service says, if it says it soon enough.
async fn within<T>(said: impl Future<Output = Result<T, Status>>) -> Result<T, Failure> {
    match tokio::time::timeout(MESSAGE_LIMIT, said).await {
        Ok(said) => said.map_err(|status| failure(&status)),
        // Asked again, it would begin again.
        Err(_) => Err(Failure::Refused(format!("it said nothing for {} s", MESSAGE_LIMIT.as_secs()))),
    }
}

/// What passes is tried again: a service that starts anew, or that ends each call after some time.
fn failure(status: &Status) -> Failure {
    let words = format!("{}: {}", status.code(), status.message());
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::Aborted | Code::Cancelled | Code::Unknown => {
            Failure::Lost(words)
        }
        _ => Failure::Refused(words),
    }
}
