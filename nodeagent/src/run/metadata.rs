//! Asking the server's metadata, again and again.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use life::metadata::{Ask as Question, Provider};
use life::{Input, Source};
use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::client::{Answer, Ask, HttpError, ask};

/// Between two questions: notices of 30 s are the shortest there are.
const INTERVAL: Duration = Duration::from_secs(2);

/// Questions with one token. Amazon's lives for six hours.
const QUESTIONS_PER_TOKEN: u32 = 1_000;

/// The metadata.
#[derive(Debug, Clone)]
pub(crate) struct Metadata {
    provider: Provider,
    /// `http://HOST:PORT`.
    base: String,
    server: String,
    event: Arc<Mutex<Option<String>>>,
}

impl Metadata {
    /// The metadata of a provider, at its own address or another. `server` is what Azure calls this one.
    pub(crate) fn new(provider: Provider, base: Option<String>, server: String) -> Metadata {
        let base = base.unwrap_or_else(|| format!("http://{}", provider.address()));
        Metadata { provider, base, server, event: Arc::default() }
    }

    /// Asks for ever.
    pub(crate) async fn watch(self, inputs: mpsc::Sender<Input>) {
        let (mut noticed, mut failing, mut token, mut asked) = (false, false, None, 0_u32);
        loop {
            if let Some(session) = self.provider.session().filter(|_| asked % QUESTIONS_PER_TOKEN == 0) {
                let answer = self.ask(session).await.ok().filter(|answer| answer.status.is_success());
                token = answer.and_then(|answer| String::from_utf8(answer.body.to_vec()).ok());
            }
            asked = asked.wrapping_add(1);
            match self.look(token.as_deref()).await {
                Ok(found) => {
                    failing = false;
                    let input = match found {
                        Some(found) => {
                            *self.event.lock().unwrap_or_else(PoisonError::into_inner) = found.event;
                            noticed = true;
                            let (when, reason) = (found.when, found.reason);
                            Some(Input::Noticed { source: Source::Metadata, when, reason })
                        }
                        None => std::mem::take(&mut noticed).then_some(Input::Withdrawn(Source::Metadata)),
                    };
                    if let Some(input) = input
                        && inputs.send(input).await.is_err()
                    {
                        return;
                    }
                }
                Err(error) => {
                    // Once, until it works again.
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(error = %format!("{error:#}"), "metadata say nothing");
                    }
                    asked = 0;
                }
            }
            sleep(INTERVAL).await;
        }
    }

    async fn look(&self, token: Option<&str>) -> anyhow::Result<Option<life::metadata::Found>> {
        let answer = self.ask(self.provider.ask(token)).await?;
        anyhow::ensure!(answer.body.len() <= life::metadata::ANSWER_BYTES_MAX, "the answer is too long");
        let body = String::from_utf8_lossy(&answer.body);
        Ok(self.provider.read(answer.status.as_u16(), &body, &self.server)?)
    }

    /// Says that the server may go, where that can be said.
    pub(crate) async fn acknowledge(&self) {
        let event = self.event.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(question) = event.and_then(|event| self.provider.acknowledge(&event)) else { return };
        match self.ask(question).await {
            Ok(answer) if answer.status.is_success() => tracing::info!("the notice is acknowledged"),
            Ok(answer) => tracing::warn!(status = %answer.status, "the acknowledgement is refused"),
            Err(error) => tracing::warn!(error = %crate::chain(&error), "the notice is not acknowledged"),
        }
    }

    async fn ask(&self, question: Question) -> Result<Answer, HttpError> {
        let url = format!("{}{}", self.base, question.path);
        let headers: Vec<(&str, &str)> =
            question.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let body = question.body.into_bytes();
        ask(Ask { method: question.method, url: &url, headers: &headers, body }, None).await
    }
}
