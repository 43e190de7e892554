//! What the commands for people say to the gateway.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use proto::webhook::FactKind;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::gateway::cursor::InExchange;
use crate::gateway::problem::Problem;

/// Attempts in a row to follow events that brought none.
const FOLLOW_ATTEMPTS_MAX: u32 = 30;
/// Pause before events are followed again.
const FOLLOW_PAUSE: Duration = Duration::from_secs(1);

/// Where the gateway is and who asks.
#[derive(Clone, Debug, Args)]
pub struct Connection {
    /// The gateway.
    #[arg(long, env = "WALRAS_URL", default_value = "http://127.0.0.1:8700")]
    pub url: String,
    /// The tenant's token.
    #[arg(long, env = "WALRAS_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// A file that holds the tenant's token; `walras up` writes one per tenant.
    #[arg(long, env = "WALRAS_TOKEN_FILE", default_value = "walras-data/tokens/demo")]
    pub token_file: PathBuf,
    /// Print JSON, for programs.
    #[arg(long)]
    pub json: bool,
}

/// Speaks HTTP to the gateway.
pub struct Client {
    agent: ureq::Agent,
    url: String,
    token: Option<String>,
}

impl Client {
    /// A client for the connection; the token is read when it is first needed.
    ///
    /// # Errors
    /// When a token file exists and cannot be read.
    pub fn new(connection: &Connection) -> Result<Self> {
        let token = match &connection.token {
            Some(token) => Some(token.clone()),
            None => match std::fs::read_to_string(&connection.token_file) {
                Ok(token) => Some(token.trim().to_owned()),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
                Err(error) => {
                    return Err(error)
                        .with_context(|| format!("token file {}", connection.token_file.display()));
                }
            },
        };
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        Ok(Self { agent, url: connection.url.trim_end_matches('/').to_owned(), token })
    }

    fn authorization(&self) -> String {
        format!("Bearer {}", self.token.as_deref().unwrap_or_default())
    }

    /// `GET path`.
    ///
    /// # Errors
    /// One line: what the gateway refused, or why it was not reached.
    pub fn get<A: DeserializeOwned>(&self, path: &str) -> Result<A> {
        let request =
            self.agent.get(format!("{}{path}", self.url)).header("authorization", self.authorization());
        self.read(request.call())
    }

    /// All pages of a list over all exchanges: `GET path`, then what each page says comes next.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn pages<T: DeserializeOwned>(&self, path: &str) -> Result<Vec<InExchange<T>>> {
        let mut pages = vec![self.get::<InExchange<T>>(path)?];
        let joint = if path.contains('?') { '&' } else { '?' };
        while let Some(next) = pages.last().and_then(|page| page.next.clone()) {
            pages.push(self.get(&format!("{path}{joint}after={next}"))?);
        }
        Ok(pages)
    }

    /// `DELETE path`.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn delete<A: DeserializeOwned>(&self, path: &str) -> Result<A> {
        let request =
            self.agent.delete(format!("{}{path}", self.url)).header("authorization", self.authorization());
        self.read(request.call())
    }

    /// `PUT path` with a JSON body.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn put<A: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<A> {
        let request =
            self.agent.put(format!("{}{path}", self.url)).header("authorization", self.authorization());
        self.read(request.header("content-type", "application/json").send(serde_json::to_vec(body)?))
    }

    /// `POST path` with a JSON body.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn post<A: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<A> {
        let request =
            self.agent.post(format!("{}{path}", self.url)).header("authorization", self.authorization());
        self.read(request.header("content-type", "application/json").send(serde_json::to_vec(body)?))
    }

    /// `PATCH path` with a JSON body.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn patch<A: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<A> {
        let request =
            self.agent.patch(format!("{}{path}", self.url)).header("authorization", self.authorization());
        self.read(request.header("content-type", "application/json").send(serde_json::to_vec(body)?))
    }

    /// Follows server-sent events until `each` says stop by returning `false`. A connection that breaks is opened
    /// again behind the last event seen, [`FOLLOW_ATTEMPTS_MAX`] times in a row.
    ///
    /// # Errors
    /// As [`Client::get`], once the gateway stays away.
    pub fn follow(&self, path: &str, mut each: impl FnMut(&str, &Value) -> bool) -> Result<()> {
        let (mut seen, mut attempts) = (None, 0);
        loop {
            let before = seen.clone();
            match self.follow_once(path, &mut seen, &mut each) {
                Ok(Ended::Enough) => return Ok(()),
                Err(Unfollowed::Refused(refusal)) => return Err(refusal),
                Ok(Ended::Broken) | Err(Unfollowed::Unreached(_)) if seen != before => attempts = 0,
                // One that was never reached is not waited for.
                Err(Unfollowed::Unreached(error)) if seen.is_none() || attempts >= FOLLOW_ATTEMPTS_MAX => {
                    return Err(error);
                }
                Ok(Ended::Broken) | Err(Unfollowed::Unreached(_)) => {}
            }
            attempts += 1;
            anyhow::ensure!(attempts <= FOLLOW_ATTEMPTS_MAX, "the gateway ends the events again and again");
            std::thread::sleep(FOLLOW_PAUSE);
        }
    }

    fn follow_once(
        &self,
        path: &str,
        seen: &mut Option<String>,
        each: &mut impl FnMut(&str, &Value) -> bool,
    ) -> Result<Ended, Unfollowed> {
        let mut request = self.agent.get(format!("{}{path}", self.url));
        if self.token.is_some() {
            request = request.header("authorization", self.authorization());
        }
        if let Some(seen) = seen.as_deref() {
            request = request.header("last-event-id", seen);
        }
        let response = request.call().with_context(|| self.unreached());
        let mut response = response.map_err(Unfollowed::Unreached)?;
        if !response.status().is_success() {
            let text = response.body_mut().read_to_string().unwrap_or_default();
            return Err(Unfollowed::Refused(refusal(&text)));
        }
        let mut kind = String::new();
        for line in BufReader::new(response.body_mut().as_reader()).lines() {
            let Ok(line) = line else { return Ok(Ended::Broken) };
            if let Some(name) = line.strip_prefix("event: ") {
                name.clone_into(&mut kind);
            } else if let Some(id) = line.strip_prefix("id: ") {
                *seen = Some(id.to_owned());
            } else if let Some(data) = line.strip_prefix("data: ") {
                let fact = serde_json::from_str(data).context("an event is not JSON");
                if !each(&kind, &fact.map_err(Unfollowed::Refused)?) {
                    return Ok(Ended::Enough);
                }
            }
        }
        Ok(Ended::Broken)
    }

    fn read<A: DeserializeOwned>(
        &self,
        response: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<A> {
        let mut response = response.with_context(|| self.unreached())?;
        let text = response.body_mut().read_to_string().context("the gateway's answer broke off")?;
        if !response.status().is_success() {
            return Err(refusal(&text));
        }
        serde_json::from_str(&text).context("the gateway's answer is of another version")
    }

    fn unreached(&self) -> String {
        format!("no gateway answers at {} (is `walras up` running?)", self.url)
    }
}

/// How following events ended.
enum Ended {
    /// Whoever follows has seen enough.
    Enough,
    /// The connection broke, or the gateway ended it.
    Broken,
}

/// Why events could not be followed.
enum Unfollowed {
    /// The gateway refused, or speaks another language: trying again is of no use.
    Refused(anyhow::Error),
    /// No gateway was reached.
    Unreached(anyhow::Error),
}

fn refusal(text: &str) -> anyhow::Error {
    match serde_json::from_str::<Problem>(text) {
        Ok(problem) => anyhow::anyhow!("{}: {}", problem.title, problem.detail),
        Err(_) => anyhow::anyhow!("the gateway answered: {}", proto::id::shorten(text)),
    }
}

/// A kind of facts from the command line.
///
/// # Errors
/// What is none, with those there are.
pub fn fact_kind(text: &str) -> Result<FactKind, String> {
    let all = FactKind::ALL;
    let words = all.map(FactKind::word).join(", ");
    all.into_iter().find(|kind| kind.word() == text).ok_or_else(|| format!("must be one of {words}"))
}

/// Reads `MARKET=LIMIT`.
///
/// # Errors
/// One line that names the part that is wrong.
pub fn option(text: &str) -> Result<proto::market::BidOption> {
    let Some((market, limit)) = text.split_once('=') else {
        bail!("an option is MARKET=LIMIT, such as dfw/gp.large=0.030; this is {text:?}");
    };
    let market = market.parse()?;
    let (limit, running_limit) = match limit.split_once(':') {
        Some((limit, running)) => (limit, Some(running.parse()?)),
        None => (limit, None),
    };
    Ok(proto::market::BidOption { market, limit: limit.parse()?, running_limit })
}
