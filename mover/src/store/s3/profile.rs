//! Profiles in the shared configuration files: credentials of one that was named, and whether it is there at all.

use aws_config::profile::ProfileFileCredentialsProvider;
#[expect(deprecated, reason = "the new path is in a crate that is not for direct use")]
use aws_config::profile::profile_file::{ProfileFileKind, ProfileFiles};
use aws_types::os_shim_internal::{Env, Fs};

use super::plain::Plain;
use crate::error::{Error, Result};
use crate::store::StoreOptions;

/// What goes before AWS_PROFILE in the search for credentials, so that a wrong name there does no harm.
const BEFORE_PROFILES: &[&str] = &["AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE"];
/// Names of profiles that a message lists.
const LISTED: usize = 10;

/// Credentials of a profile that was named: it goes before the environment, as in Amazon's own tools.
pub(super) fn credentials(options: &StoreOptions) -> Option<ProfileFileCredentialsProvider> {
    if options.profile.is_none() && options.credentials_file.is_none() {
        return None;
    }
    let mut builder = ProfileFileCredentialsProvider::builder().profile_files(files(options));
    if let Some(profile) = &options.profile {
        builder = builder.profile_name(profile);
    }
    Some(builder.build())
}

#[expect(deprecated, reason = "the new path is in a crate that is not for direct use")]
fn files(options: &StoreOptions) -> ProfileFiles {
    match &options.credentials_file {
        Some(path) => ProfileFiles::builder()
            .include_default_config_file(true)
            .with_file(ProfileFileKind::Credentials, path)
            .build(),
        None => ProfileFiles::default(),
    }
}

/// Refuses a profile that is nowhere. The SDK would look for other credentials without a word, and find none or, worse,
/// those of somebody else.
pub(super) async fn check(options: &StoreOptions) -> Result<()> {
    let environment = Env::real();
    let variable = |name: &str| environment.get(name).ok().filter(|value| !value.is_empty());
    let (name, said) = match (&options.profile, variable("AWS_PROFILE")) {
        (Some(name), _) => (name.clone(), ""),
        (None, Some(name)) => (name, "AWS_PROFILE: "),
        (None, None) => return Ok(()),
    };
    let passed_over = BEFORE_PROFILES.iter().any(|name| variable(name).is_some());
    if options.profile.is_none() && (name == "default" || (passed_over && options.credentials_file.is_none()))
    {
        return Ok(());
    }
    let profiles =
        aws_config::profile::load(&Fs::real(), &environment, &files(options), Some(name.clone().into()))
            .await
            .map_err(|err| {
                Error::invalid(format!("{said}profile {name:?}: the files of profiles cannot be read"))
                    .with_hint("see what is wrong there: aws configure list-profiles reads the same files")
                    .with_source(Plain::of(&err))
            })?;
    if profiles.get_profile(&name).is_some() {
        return Ok(());
    }
    let mut known: Vec<&str> = profiles.profiles().collect();
    known.sort_unstable();
    Err(Error::invalid(format!("{said}there is no profile {name:?} in {}", searched(options, &variable)))
        .with_hint(next_step(&name, &known)))
}

/// The files that were looked through, and which of them there are.
fn searched(options: &StoreOptions, variable: &dyn Fn(&str) -> Option<String>) -> String {
    let usual = |file: &str| format!("{}/.aws/{file}", variable("HOME").unwrap_or_else(|| "~".to_owned()));
    let config = variable("AWS_CONFIG_FILE").unwrap_or_else(|| usual("config"));
    let credentials = match &options.credentials_file {
        Some(path) => path.display().to_string(),
        None => variable("AWS_SHARED_CREDENTIALS_FILE").unwrap_or_else(|| usual("credentials")),
    };
    let told = |path: String| match std::fs::metadata(&path) {
        Ok(_) => path,
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => format!("{path} (which does not exist)"),
        Err(_) => format!("{path} (which cannot be read)"),
    };
    format!("{} or {}", told(config), told(credentials))
}

fn next_step(name: &str, known: &[&str]) -> String {
    if known.is_empty() {
        return format!(
            "make it (aws configure --profile {name}), say where the files are (AWS_CONFIG_FILE, \
             AWS_SHARED_CREDENTIALS_FILE), or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY and name no profile"
        );
    }
    let more = if known.len() > LISTED { ", ..." } else { "" };
    let known = known[..known.len().min(LISTED)].join(", ");
    format!("name one that is there (--profile or AWS_PROFILE): {known}{more}")
}
