//! One controller leads: the others wait for its lease to run out.
//!
//! Who leads renews the lease long before it ends, and who cannot renew it in time stops all work and asks to lead anew: two
//! that lead at the same time would share out the same slots twice. What they write is safe even then, for each step is
//! applied to what is there, and a status only to the version that was looked at.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{Api, api::PostParams};

use crate::{
    context::Context,
    error::{Error, Result},
    objects,
};

/// Name of the lease.
const NAME: &str = "carrack-controller";
/// How long a lease holds that is not renewed.
const HOLDS: SignedDuration = SignedDuration::from_secs(15);
/// How often it is renewed, or asked for.
const EVERY: Duration = Duration::from_secs(4);
/// How long without an answer until who leads gives up.
const GIVES_UP: SignedDuration = SignedDuration::from_secs(12);

/// A claim to lead.
#[derive(Clone, Debug)]
pub struct Candidate {
    leases: Api<Lease>,
    name: String,
}

impl Candidate {
    /// By the name of this pod, or of this process.
    pub fn new(context: &Context) -> Self {
        let name = std::env::var("POD_NAME").unwrap_or_else(|_| format!("process-{}", std::process::id()));
        Self { leases: Api::namespaced(context.client.clone(), &context.settings.namespace), name }
    }

    /// Waits until this program leads.
    pub async fn lead(&self) -> Result<()> {
        let mut told = false;
        loop {
            match self.ask().await {
                Ok(None) => return Ok(()),
                Ok(Some(other)) if !told => {
                    tracing::info!(leader = other, "another controller leads, this one waits");
                    told = true;
                }
                Ok(Some(_)) => {}
                Err(error) => tracing::warn!(%error, "the lease cannot be asked for, it is asked again"),
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    /// Renews the lease; ends only when it is lost.
    pub async fn keep(&self) -> String {
        let mut renewed = Timestamp::now();
        loop {
            tokio::time::sleep(EVERY).await;
            match self.ask().await {
                Ok(None) => renewed = Timestamp::now(),
                Ok(Some(other)) => return format!("{other} leads now"),
                Err(error) if Timestamp::now().duration_since(renewed) > GIVES_UP => {
                    return format!("the lease could not be renewed in time: {error}");
                }
                Err(error) => tracing::warn!(%error, "the lease cannot be renewed, it is tried again"),
            }
        }
    }

    /// Gives the lease up, so that the next need not wait. Nothing is lost if it cannot.
    pub async fn leave(&self) {
        let released = async {
            let Some(mut lease) = objects::find(&self.leases, NAME).await? else { return Ok(()) };
            let spec = lease.spec.get_or_insert_default();
            if spec.holder_identity.as_deref() == Some(&self.name) {
                spec.holder_identity = None;
                self.write(&lease).await?;
            }
            Ok::<(), Error>(())
        };
        if let Err(error) = released.await {
            tracing::warn!(%error, "the lease could not be given up, it runs out by itself");
        }
    }

    /// Takes or renews the lease; whoever holds it otherwise. That somebody wrote in between does not say that they hold it:
    /// it is read again.
    async fn ask(&self) -> Result<Option<String>> {
        match self.ask_once().await {
            Err(error) if error.is_conflict() => self.ask_once().await,
            answer => answer,
        }
    }

    async fn ask_once(&self) -> Result<Option<String>> {
        let now = Timestamp::now();
        let Some(mut lease) = objects::find(&self.leases, NAME).await? else {
            let metadata = ObjectMeta { name: Some(NAME.into()), ..ObjectMeta::default() };
            let fresh = Lease { metadata, spec: Some(self.held(None, now)) };
            let made = self.leases.create(&PostParams::default(), &fresh).await;
            return made.map(|_| None).map_err(Error::api(format!("Lease {NAME} cannot be made")));
        };
        let found = lease.spec.clone().unwrap_or_default();
        if let Some(other) = holder(&found, now).filter(|holder| *holder != self.name) {
            return Ok(Some(other));
        }
        lease.spec = Some(self.held(Some(found), now));
        self.write(&lease).await.map(|()| None)
    }

    async fn write(&self, lease: &Lease) -> Result<()> {
        // With the version that was read: of two that write at once, one is refused.
        let written = self.leases.replace(NAME, &PostParams::default(), lease).await;
        written.map(drop).map_err(Error::api(format!("Lease {NAME} cannot be written")))
    }

    fn held(&self, before: Option<LeaseSpec>, now: Timestamp) -> LeaseSpec {
        let before = before.unwrap_or_default();
        let same = before.holder_identity.as_deref() == Some(&self.name);
        LeaseSpec {
            holder_identity: Some(self.name.clone()),
            lease_duration_seconds: i32::try_from(HOLDS.as_secs()).ok(),
            renew_time: Some(MicroTime(now)),
            acquire_time: if same { before.acquire_time } else { Some(MicroTime(now)) },
            lease_transitions: Some(before.lease_transitions.unwrap_or(0) + i32::from(!same)),
            ..before
        }
    }
}

/// Whoever holds a lease now.
fn holder(lease: &LeaseSpec, now: Timestamp) -> Option<String> {
    let renewed = lease.renew_time.as_ref()?.0;
    let holds =
        lease.lease_duration_seconds.map_or(HOLDS, |seconds| SignedDuration::from_secs(seconds.into()));
    (now < renewed + holds).then(|| lease.holder_identity.clone().filter(|name| !name.is_empty())).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_held_until_it_runs_out_or_is_given_up() {
        let now = Timestamp::now();
        let lease = |age: i64, name: Option<&str>| LeaseSpec {
            holder_identity: name.map(str::to_owned),
            lease_duration_seconds: Some(15),
            renew_time: Some(MicroTime(now - SignedDuration::from_secs(age))),
            ..LeaseSpec::default()
        };
        assert_eq!(holder(&lease(14, Some("a")), now).as_deref(), Some("a"));
        assert_eq!(holder(&lease(15, Some("a")), now), None);
        assert_eq!(holder(&lease(1, None), now), None);
        assert_eq!(holder(&LeaseSpec::default(), now), None);
    }
}
