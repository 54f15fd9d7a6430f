//! The S3 client: credentials, region, certificates, proxies, time limits.

use std::path::Path;
use std::time::Duration;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::config::{
    RequestChecksumCalculation, ResponseChecksumValidation, SharedHttpClient, StalledStreamProtectionConfig,
};
use aws_sdk_s3::error::BoxError;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_http_client::{Builder, Connector};
use aws_types::service_config::ServiceConfigKey;

use super::bounds::{BoundedAnswers, short_answers};
use super::profile;
use crate::error::{Error, Result};
use crate::store::StoreOptions;

/// How long an unused connection is kept: shorter than the idle limits of servers and load balancers, so that a
/// request seldom meets a connection that is just being closed.
const IDLE_CONNECTION: Duration = Duration::from_secs(15);
/// Region that services other than AWS accept, or do not look at.
const DEFAULT_REGION: &str = "us-east-1";

pub(super) struct Connection {
    pub(super) client: Client,
    pub(super) endpoint: Option<String>,
    pub(super) region: String,
}

pub(super) async fn connect(options: &StoreOptions) -> Result<Connection> {
    if let Some(endpoint) = &options.endpoint {
        check_endpoint(endpoint)?;
    }
    profile::check(options).await?;
    let http = http_client(options.ca_file.as_deref())?;
    let timeouts = TimeoutConfig::builder().connect_timeout(options.connect_timeout).build();
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(short_answers(http.clone()))
        .retry_config(RetryConfig::disabled())
        .timeout_config(timeouts)
        // Our own limits replace it; two watchdogs would give two errors for one thing.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
    if let Some(provider) = profile::credentials(options) {
        loader = loader.credentials_provider(provider);
    }
    if let Some(profile) = &options.profile {
        loader = loader.profile_name(profile);
    }
    if let Some(region) = &options.region {
        loader = loader.region(Region::new(region.clone()));
    }
    if let Some(endpoint) = &options.endpoint {
        loader = loader.endpoint_url(endpoint);
    }
    // Whoever gives out credentials is asked by the way above; objects may be long.
    let shared = loader.load().await.into_builder().http_client(http).build();
    let endpoint = match &options.endpoint {
        Some(endpoint) => Some(endpoint.clone()),
        None => configured_endpoint(&shared)?,
    };
    let region = shared.region().map_or_else(|| DEFAULT_REGION.to_owned(), ToString::to_string);
    let path_style = options.path_style.unwrap_or(endpoint.is_some());
    let client = client_of(&shared, &region, endpoint.clone(), path_style);
    Ok(Connection { client, endpoint, region })
}

/// The client as this store wants it, by whatever way its requests go.
pub(super) fn client_of(
    shared: &SdkConfig,
    region: &str,
    endpoint: Option<String>,
    path_style: bool,
) -> Client {
    let mut config = aws_sdk_s3::config::Builder::from(shared)
        .region(Region::new(region.to_owned()))
        .force_path_style(path_style)
        // The SDK's default checksum trailers are refused by several services.
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        // What a proxy or a page takes for the time is no reason to sign with it, and some of what can be said is no time
        // that can be signed with.
        .disable_clock_skew_correction(true)
        .interceptor(BoundedAnswers)
        .interceptor(NoWebPages);
    config.set_endpoint_url(endpoint);
    Client::from_conf(config.build())
}

/// The endpoint that the environment or a profile names for S3, in the SDK's own order: what a section `[services …]` says
/// of S3 goes before what is said of all services. The SDK would find it, too, but not tell.
fn configured_endpoint(shared: &SdkConfig) -> Result<Option<String>> {
    let key = ServiceConfigKey::builder().service_id("S3").env("AWS_ENDPOINT_URL").profile("endpoint_url");
    let key = key.build().expect("a key of three parts is whole");
    let of_service = shared.service_config().and_then(|config| config.load_config(key));
    let endpoint = of_service.or_else(|| shared.endpoint_url().map(str::to_owned));
    endpoint.as_deref().map(check_endpoint).transpose()?;
    Ok(endpoint)
}

/// Refuses pages for people: a portal or login page answers 200 to whatever is asked, a delete included.
#[derive(Debug)]
struct NoWebPages;

impl Intercept for NoWebPages {
    fn name(&self) -> &'static str {
        "NoWebPages"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let response = context.response();
        let page = response.headers().get("content-type").is_some_and(|kind| kind.starts_with("text/html"));
        if page && response.status().is_success() { Err("the answer is a web page".into()) } else { Ok(()) }
    }
}

fn check_endpoint(endpoint: &str) -> Result<()> {
    let host = endpoint.strip_prefix("http://").or_else(|| endpoint.strip_prefix("https://"));
    let proper = host.is_some_and(|host| !host.is_empty() && !host.starts_with('/') && !host.contains('@'));
    if proper {
        return Ok(());
    }
    // Not repeated in the message: it may hold a password.
    Err(Error::invalid("the S3 endpoint is not of the form http://host:port or https://host:port")
        .with_hint("give scheme, host and port only; credentials come from the environment or a profile"))
}

fn http_client(ca_file: Option<&Path>) -> Result<SharedHttpClient> {
    let mut trust = TrustStore::empty().with_native_roots(ca_file.is_none());
    if let Some(path) = ca_file {
        let place = path.display();
        let pem = std::fs::read(path).map_err(|err| Error::io(err, format!("read the CA file {place}")))?;
        if !pem.windows(27).any(|line| line == b"-----BEGIN CERTIFICATE-----") {
            return Err(Error::invalid(format!("the CA file {place} holds no certificate"))
                .with_hint("it must be in PEM form: -----BEGIN CERTIFICATE-----"));
        }
        trust = trust.with_pem_certificate(pem);
    }
    let tls = TlsContext::builder()
        .with_trust_store(trust)
        .build()
        .map_err(|err| Error::invalid("the certificate authorities cannot be used").with_source(err))?;
    Ok(Builder::new().pool_idle_timeout(IDLE_CONNECTION).build_with_connector_fn(
        move |settings, components| {
            let mut builder = Connector::builder()
                .proxy_config(ProxyConfig::from_env())
                .pool_idle_timeout(IDLE_CONNECTION)
                .tls_provider(Provider::Rustls(CryptoMode::AwsLc));
            builder.set_connector_settings(settings.cloned());
            builder.set_sleep_impl(components.and_then(|components| components.sleep_impl()));
            builder.tls_context(tls.clone()).build()
        },
    ))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    #[expect(deprecated, reason = "the new path is in a crate that is not for direct use")]
    use aws_config::profile::profile_file::{ProfileFileKind, ProfileFiles};
    use aws_credential_types::Credentials;
    use aws_credential_types::provider::SharedCredentialsProvider;
    use aws_smithy_runtime_api::client::http::{
        HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
    };
    use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
    use aws_smithy_runtime_api::http::StatusCode;
    use aws_smithy_types::body::SdkBody;

    use super::*;

    /// A service in another time, and when the requests say that they were made.
    #[derive(Debug, Clone, Default)]
    struct Elsewhen(Arc<Mutex<Vec<String>>>);

    impl HttpConnector for Elsewhen {
        fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
            let signed = request.headers().get("x-amz-date").unwrap().to_owned();
            self.0.lock().unwrap().push(signed);
            let mut response = HttpResponse::new(StatusCode::try_from(204).unwrap(), SdkBody::empty());
            response.headers_mut().insert("date", "Sat, 01 Jan 2050 00:00:00 GMT");
            HttpConnectorFuture::ready(Ok(response))
        }
    }

    #[expect(deprecated, reason = "the new path is in a crate that is not for direct use")]
    async fn configured(file: &str) -> Result<Option<String>> {
        let files = ProfileFiles::builder().with_contents(ProfileFileKind::Config, file).build();
        let loader = aws_config::defaults(BehaviorVersion::latest()).no_credentials().profile_files(files);
        configured_endpoint(&loader.region(Region::from_static("r")).load().await)
    }

    #[tokio::test]
    async fn a_profile_names_an_endpoint_for_all_services_or_for_this_one() {
        let general = "[default]\nendpoint_url = http://all:1\n";
        let special = "services = here\n[services here]\ns3 =\n  endpoint_url = http://s3:2\n";
        for (file, endpoint) in [
            ("[default]\n".to_owned(), None),
            (general.to_owned(), Some("http://all:1")),
            (format!("[default]\n{special}"), Some("http://s3:2")),
            (format!("{general}{special}"), Some("http://s3:2")),
            (format!("[default]\nignore_configured_endpoint_urls = true\n{special}"), None),
        ] {
            assert_eq!(configured(&file).await.unwrap().as_deref(), endpoint, "{file}");
        }
        let error = configured(&general.replace("all", "key:secret@all")).await.unwrap_err();
        assert!(!error.in_one_line().contains("secret"), "{error}");
    }

    #[tokio::test]
    async fn nobody_tells_the_time_that_requests_are_signed_with() {
        let service = Elsewhen::default();
        let connector = SharedHttpConnector::new(service.clone());
        let shared = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .credentials_provider(SharedCredentialsProvider::new(Credentials::new(
                "a", "b", None, None, "test",
            )))
            .http_client(http_client_fn(move |_, _| connector.clone()))
            .build();
        let client = client_of(&shared, DEFAULT_REGION, Some("http://store.example".to_owned()), true);
        for _ in 0..2 {
            client.delete_object().bucket("b").key("x").send().await.unwrap();
        }
        let signed = service.0.lock().unwrap();
        assert!(signed.len() == 2 && signed.iter().all(|time| !time.starts_with("2050")), "{signed:?}");
    }
}
