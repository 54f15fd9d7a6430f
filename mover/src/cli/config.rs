//! What options and environment mean together: which repository, what opens it, how to reach the store, what the
//! engine may use. An option always wins over the environment.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use carrack_mover::{
    error::{Error, Result},
    limits,
    store::{ServerSideEncryption, StoreOptions},
};

use super::{
    args::{CipherArg, FromStoreArgs, GlobalArgs, PathStyle, RepositoryArgs, StoreArgs},
    password, units,
};

#[cfg(test)]
mod tests;

/// Looks up a variable of the environment.
pub(crate) type Environment<'e> = &'e dyn Fn(&str) -> Option<OsString>;

/// Where the password or secret comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SecretSource {
    /// First line of a file.
    PasswordFile(PathBuf),
    /// What a command prints.
    PasswordCommand(String),
    /// The variable of this name.
    PasswordVariable(&'static str),
    /// A 256-bit secret in a file.
    KeyFile(PathBuf),
    /// A writer bundle in a file.
    Bundle(PathBuf),
    /// A person at the terminal.
    Prompt,
}

/// One repository: the place and what opens it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) url: String,
    pub(crate) secret: SecretSource,
}

/// Everything that is decided before the engine starts.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) place: Place,
    pub(crate) store: StoreOptions,
    pub(crate) memory_bytes: u64,
    pub(crate) cipher: CipherArg,
    pub(crate) compression: units::CompressionArg,
}

impl Config {
    pub(crate) fn resolve(args: &GlobalArgs, environment: Environment<'_>) -> Result<Self> {
        Ok(Self {
            place: Place::resolve(&args.repository, environment)?,
            store: store_options(&args.store, environment)?,
            memory_bytes: memory(args.engine.memory, environment)?,
            cipher: args.engine.cipher,
            compression: args.engine.compression,
        })
    }
}

impl Config {
    /// How to reach the store that is copied from: as the other one, but for what is said of it.
    pub(crate) fn store_from(
        &self,
        args: &FromStoreArgs,
        environment: Environment<'_>,
    ) -> Result<StoreOptions> {
        let mut store = self.store.clone();
        let endpoint = match &args.from_endpoint {
            Some(endpoint) => Some(endpoint.clone()),
            None => text_variable(environment, "CARRACK_FROM_S3_ENDPOINT")?,
        };
        store.endpoint = endpoint.map(checked_endpoint).transpose()?.or(store.endpoint);
        store.region = args.from_region.clone().or(store.region);
        if let Some(file) = &args.from_credentials_file {
            // The profile that is meant for the other repository is hardly in this file.
            store.credentials_file = Some(file.clone());
            store.profile = None;
        }
        store.profile = args.from_profile.clone().or(store.profile);
        let ca_file = args.from_ca_file.clone();
        let ca_file = ca_file.or_else(|| environment("CARRACK_FROM_CA_FILE").map(PathBuf::from));
        store.ca_file = ca_file.or(store.ca_file);
        Ok(store)
    }
}

/// What a verb is told of a second repository, from which it reads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FromArgs<'a> {
    pub(crate) repo: Option<&'a str>,
    pub(crate) password_file: Option<&'a Path>,
    pub(crate) password_command: Option<&'a str>,
    pub(crate) key_file: Option<&'a Path>,
}

impl Place {
    /// The repository that is copied from.
    pub(crate) fn resolve_from(args: FromArgs<'_>, environment: Environment<'_>) -> Result<Self> {
        let url = match args.repo {
            Some(url) => url.to_owned(),
            None => text_variable(environment, "CARRACK_FROM_REPOSITORY")?.ok_or_else(|| {
                Error::invalid("no repository to copy from is given").with_hint(
                    "say where it is: --from-repo /path/to/repository or --from-repo s3://bucket/prefix, \
                     or set CARRACK_FROM_REPOSITORY",
                )
            })?,
        };
        let typed = args.password_file.map(|file| SecretSource::PasswordFile(file.to_owned()));
        let typed = typed
            .or_else(|| {
                args.password_command.map(|command| SecretSource::PasswordCommand(command.to_owned()))
            })
            .or_else(|| args.key_file.map(|file| SecretSource::KeyFile(file.to_owned())));
        let secret = typed.unwrap_or_else(|| secret_of_environment(environment, &FROM_VARIABLES));
        Ok(Self { url: checked_url(url)?, secret })
    }

    fn resolve(args: &RepositoryArgs, environment: Environment<'_>) -> Result<Self> {
        let url = match (&args.repo, &args.repository_file) {
            (Some(url), _) => url.clone(),
            (None, Some(file)) => first_line_of(file)?,
            (None, None) => match text_variable(environment, "CARRACK_REPOSITORY")? {
                Some(url) => url,
                None => match environment("CARRACK_REPOSITORY_FILE") {
                    Some(file) => first_line_of(Path::new(&file))?,
                    None => {
                        return Err(Error::invalid("no repository is given").with_hint(
                            "say where it is: -r /path/to/repository or -r s3://bucket/prefix, \
                             or set CARRACK_REPOSITORY",
                        ));
                    }
                },
            },
        };
        Ok(Self { url: checked_url(url)?, secret: secret_source(args, environment) })
    }
}

/// Words of other programs get the answer that helps.
pub(crate) fn checked_url(url: String) -> Result<String> {
    let url = url.trim().to_owned();
    if url.is_empty() {
        return Err(
            Error::invalid("the repository's place is empty").with_hint("set CARRACK_REPOSITORY or -r")
        );
    }
    let scheme = url.split_once(':').map(|(scheme, rest)| (scheme, rest.starts_with("//")));
    match scheme {
        Some(("s3", false)) => {
            Err(Error::invalid(format!("repository {url}: write it as s3://bucket/prefix"))
                .with_hint("the server goes into --endpoint https://host:port (or CARRACK_S3_ENDPOINT)"))
        }
        Some(("sftp" | "rest" | "b2" | "azure" | "gs" | "swift" | "rclone", _)) => {
            Err(Error::invalid(format!("repository {url}: this kind of store is not known"))
                .with_hint("use a directory (a mounted share is one) or s3://bucket/prefix"))
        }
        _ => Ok(url),
    }
}

fn secret_source(args: &RepositoryArgs, environment: Environment<'_>) -> SecretSource {
    let typed = args
        .password_file
        .clone()
        .map(SecretSource::PasswordFile)
        .or_else(|| args.password_command.clone().map(SecretSource::PasswordCommand))
        .or_else(|| args.key_file.clone().map(SecretSource::KeyFile))
        .or_else(|| args.writer_bundle.clone().map(SecretSource::Bundle));
    typed.unwrap_or_else(|| secret_of_environment(environment, &VARIABLES))
}

/// Names of the variables that can hold a secret or say where it is.
pub(crate) struct SecretVariables {
    password: &'static str,
    password_file: &'static str,
    password_command: &'static str,
    key_file: &'static str,
    bundle: Option<&'static str>,
}

const VARIABLES: SecretVariables = SecretVariables {
    password: "CARRACK_PASSWORD",
    password_file: "CARRACK_PASSWORD_FILE",
    password_command: "CARRACK_PASSWORD_COMMAND",
    key_file: "CARRACK_KEY_FILE",
    bundle: Some("CARRACK_WRITER_BUNDLE"),
};

const FROM_VARIABLES: SecretVariables = SecretVariables {
    password: "CARRACK_FROM_PASSWORD",
    password_file: "CARRACK_FROM_PASSWORD_FILE",
    password_command: "CARRACK_FROM_PASSWORD_COMMAND",
    key_file: "CARRACK_FROM_KEY_FILE",
    bundle: None,
};

pub(crate) fn secret_of_environment(environment: Environment<'_>, names: &SecretVariables) -> SecretSource {
    let path = |name: &str| environment(name).map(PathBuf::from);
    if let Some(file) = path(names.password_file) {
        return SecretSource::PasswordFile(file);
    }
    if let Some(command) = environment(names.password_command).and_then(|text| text.into_string().ok()) {
        return SecretSource::PasswordCommand(command);
    }
    if environment(names.password).is_some() {
        return SecretSource::PasswordVariable(names.password);
    }
    if let Some(file) = path(names.key_file) {
        return SecretSource::KeyFile(file);
    }
    names.bundle.and_then(path).map_or(SecretSource::Prompt, SecretSource::Bundle)
}

pub(crate) fn first_line_of(file: &Path) -> Result<String> {
    let bytes = password::read_first_line(file, "repository file")?;
    String::from_utf8(bytes).map_err(|_| {
        Error::invalid(format!("repository file {}: its first line is not UTF-8", file.display()))
    })
}

pub(crate) fn text_variable(environment: Environment<'_>, name: &str) -> Result<Option<String>> {
    environment(name)
        .map(|value| value.into_string().map_err(|_| Error::invalid(format!("{name} is not UTF-8"))))
        .transpose()
}

fn store_options(args: &StoreArgs, environment: Environment<'_>) -> Result<StoreOptions> {
    let mut endpoint = args.endpoint.clone();
    for name in ["CARRACK_S3_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"] {
        if endpoint.is_none() {
            endpoint = text_variable(environment, name)?;
        }
    }
    let ca_file = args.ca_file.clone().or_else(|| {
        environment("CARRACK_CA_FILE").or_else(|| environment("AWS_CA_BUNDLE")).map(PathBuf::from)
    });
    let path_style = match args.path_style {
        PathStyle::Auto => None,
        PathStyle::Always => Some(true),
        PathStyle::Never => Some(false),
    };
    Ok(StoreOptions {
        endpoint: endpoint.map(checked_endpoint).transpose()?,
        region: args.region.clone(),
        path_style,
        profile: args.profile.clone(),
        ca_file,
        storage_class: args.storage_class.clone(),
        server_side_encryption: encryption(args.server_side_encryption.as_deref())?,
        upload_checksum: args.upload_checksum,
        limit_upload_bytes_per_second: args.limit_upload,
        limit_download_bytes_per_second: args.limit_download,
        max_requests_in_flight: args.max_requests.map(|count| count as usize),
        ..StoreOptions::default()
    })
}

fn checked_endpoint(endpoint: String) -> Result<String> {
    if endpoint.starts_with("https://") || endpoint.starts_with("http://") {
        return Ok(endpoint);
    }
    // Not repeated in the message: it may hold a password.
    Err(Error::invalid("the endpoint is not of the form http://host:port or https://host:port")
        .with_hint("write it with its scheme; credentials come from the environment or a profile"))
}

fn encryption(text: Option<&str>) -> Result<ServerSideEncryption> {
    let kms = |key: &str| ServerSideEncryption::Kms { key_id: (!key.is_empty()).then(|| key.to_owned()) };
    match text {
        None => Ok(ServerSideEncryption::BucketDefault),
        Some("AES256") => Ok(ServerSideEncryption::Aes256),
        Some("aws:kms") => Ok(kms("")),
        Some(other) => match other.strip_prefix("aws:kms:") {
            Some(key) => Ok(kms(key)),
            None => Err(Error::invalid(format!("--server-side-encryption {other:?} is not known"))
                .with_hint("use AES256, aws:kms or aws:kms:KEY")),
        },
    }
}

fn memory(typed: Option<u64>, environment: Environment<'_>) -> Result<u64> {
    let bytes = match (typed, text_variable(environment, "CARRACK_MEMORY")?) {
        (Some(bytes), _) => bytes,
        (None, Some(text)) => units::parse_size(&text)
            .map_err(|problem| Error::invalid(format!("CARRACK_MEMORY: {problem}")))?,
        (None, None) => limits::MEMORY_DEFAULT,
    };
    if bytes < limits::MEMORY_MIN {
        return Err(Error::invalid(format!("{} of memory are too little", units::size(bytes)))
            .with_hint(format!("give at least --memory {}MiB", limits::MEMORY_MIN >> 20)));
    }
    Ok(bytes)
}
