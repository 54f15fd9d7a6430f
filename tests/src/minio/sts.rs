//! Temporary credentials: those that MinIO makes itself, and a service that gives them to whoever shows a web identity
//! token, as the cluster of a cloud has one.

use std::io;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::{ACCESS_KEY, MinioServer, SECRET_KEY};
use crate::http::{Request, answer};
use crate::images::run;
use crate::liar::reply;

/// Key id, secret and token.
pub type Session = [String; 3];

/// A session of MinIO that may do what `actions` say: names of them, each in quotation marks.
pub fn session(server: &MinioServer, actions: &str) -> Result<Session> {
    let policy = format!(
        "{{\"Version\":\"2012-10-17\",\"Statement\":[{{\"Effect\":\"Allow\",\"Action\":[{actions}],\
         \"Resource\":[\"arn:aws:s3:::*\"]}}]}}"
    );
    let answer = run(Command::new("curl")
        .args(["--silent", "--show-error", "--noproxy", "*", "--aws-sigv4", "aws:amz:us-east-1:sts"])
        .args(["--user", &format!("{ACCESS_KEY}:{SECRET_KEY}")])
        .args(["--data", "Action=AssumeRole&Version=2011-06-15&DurationSeconds=900"])
        .args(["--data-urlencode", &format!("Policy={policy}"), &format!("{}/", server.url())]))?;
    let part = |name: &str| -> Result<String> {
        let rest = answer.split_once(&format!("<{name}>")).with_context(|| format!("no {name}: {answer}"))?.1;
        Ok(rest.split_once('<').context("its end")?.0.to_owned())
    };
    Ok([part("AccessKeyId")?, part("SecretAccessKey")?, part("SessionToken")?])
}

/// Who has assumed the role.
const USER: &str = "arn:aws:sts::123456789012:assumed-role/backup/carrack";

/// What the service knows.
#[derive(Debug)]
struct State {
    session: Session,
    /// Role and token that it gives credentials for.
    role: &'static str,
    token: &'static str,
    /// How long clients are told to keep them.
    life: Duration,
    given: AtomicUsize,
    /// What it calls the user of the role.
    user: Mutex<&'static str>,
    /// What it answers instead: status and body.
    trouble: Mutex<Option<(&'static str, String)>>,
}

/// A running service; ends when dropped.
#[derive(Debug)]
pub struct Sts {
    state: Arc<State>,
    port: u16,
    task: JoinHandle<()>,
}

impl Sts {
    /// Gives this session to whoever wants this role and shows this token.
    pub async fn start(
        session: Session,
        role: &'static str,
        token: &'static str,
        life: Duration,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let given = AtomicUsize::default();
        let (user, trouble) = (Mutex::new(USER), Mutex::default());
        let state = Arc::new(State { session, role, token, life, given, user, trouble });
        let shared = state.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let state = shared.clone();
                // A client that goes away is no concern of the service.
                tokio::spawn(async move { state.serve(client).await.ok() });
            }
        });
        Ok(Self { state, port, task })
    }

    /// Base URL.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// How often it has given credentials.
    pub fn given(&self) -> usize {
        self.state.given.load(Ordering::SeqCst)
    }

    /// Answers everything with this status and code from now on.
    pub fn fail(&self, status: &'static str, code: &str) {
        let trouble = Some((status, refusal(code, "So.")));
        *self.state.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    /// Gives the user of the role no name, as MinIO's own service does.
    pub fn name_nobody(&self) {
        *self.state.user.lock().unwrap_or_else(PoisonError::into_inner) = "";
    }
}

impl Drop for Sts {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl State {
    async fn serve(&self, mut client: TcpStream) -> io::Result<()> {
        let Some(request) = Request::read(&mut client).await? else { return Ok(()) };
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (status, body) = trouble.unwrap_or_else(|| self.judge(&String::from_utf8_lossy(&request.body)));
        answer(client, &reply(status, "Content-Type: text/xml\r\n", body.as_bytes())).await
    }

    fn judge(&self, form: &str) -> (&'static str, String) {
        let field = |name: &str| {
            let value = form.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
            value.unwrap_or_default().replace("%3A", ":").replace("%2F", "/")
        };
        if field("Action") != "AssumeRoleWithWebIdentity" || field("RoleSessionName").is_empty() {
            return ("400 Bad Request", refusal("InvalidAction", form));
        }
        if field("RoleArn") != self.role {
            return ("403 Forbidden", refusal("AccessDenied", "Not authorized to assume that role"));
        }
        if field("WebIdentityToken") != self.token {
            let why = "The web identity token that was passed could not be validated";
            return ("400 Bad Request", refusal("InvalidIdentityToken", why));
        }
        self.given.fetch_add(1, Ordering::SeqCst);
        let [id, secret, token] = &self.session;
        let end = Timestamp::now() + self.life;
        let user = *self.user.lock().unwrap_or_else(PoisonError::into_inner);
        let text = format!(
            "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
             <AssumeRoleWithWebIdentityResult>\
             <AssumedRoleUser><Arn>{user}</Arn><AssumedRoleId>A:x</AssumedRoleId></AssumedRoleUser><Credentials><AccessKeyId>{id}</AccessKeyId>\
             <SecretAccessKey>{secret}</SecretAccessKey><SessionToken>{token}</SessionToken>\
             <Expiration>{end:.0}</Expiration></Credentials></AssumeRoleWithWebIdentityResult>\
             <ResponseMetadata><RequestId>1</RequestId></ResponseMetadata></AssumeRoleWithWebIdentityResponse>"
        );
        ("200 OK", text)
    }
}

fn refusal(code: &str, message: &str) -> String {
    format!(
        "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type>\
         <Code>{code}</Code><Message>{message}</Message></Error><RequestId>1</RequestId></ErrorResponse>"
    )
}
