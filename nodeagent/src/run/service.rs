//! The service that keeps the control plane: admission and reports.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use life::Input;
use proto::worker::{
    Admission, REDEEM_PATH, REPORT_PATH, Redemption, RedemptionAnswer, Report, ReportAnswer,
};
use rustls::ClientConfig;

use crate::client::{Ask, ask};
use crate::konnectivity::{TlsError, TlsFiles};

/// Where the service is, and who may have signed its certificate.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    pub(crate) url: String,
    pub(crate) authority: PathBuf,
}

impl Service {
    fn tls(&self) -> Result<Arc<ClientConfig>, TlsError> {
        let protocols = vec!["http/1.1".to_owned()];
        TlsFiles { ca: self.authority.clone(), own: None, protocols }.load_exactly()
    }

    async fn post(&self, path: &str, session: Option<&str>, body: Vec<u8>) -> anyhow::Result<(u16, Vec<u8>)> {
        let url = format!("{}{path}", self.url.trim_end_matches('/'));
        let bearer = session.map(|session| format!("Bearer {session}"));
        let mut headers = vec![("content-type", "application/json")];
        headers.extend(bearer.as_deref().map(|bearer| ("authorization", bearer)));
        let asked = ask(Ask { method: "POST", url: &url, headers: &headers, body }, Some(self.tls()?));
        let answer = asked.await?;
        Ok((answer.status.as_u16(), answer.body.to_vec()))
    }

    /// Redeems a secret, once.
    pub(crate) async fn redeem(&self, redemption: &Redemption) -> Input {
        let asked = async {
            let body = serde_json::to_vec(redemption)?;
            let (status, body) = self.post(REDEEM_PATH, None, body).await?;
            let read = serde_json::from_slice::<RedemptionAnswer>(&body);
            read.map_err(|error| {
                anyhow::anyhow!("status {status}, and an answer that cannot be read: {error}")
            })
        };
        match asked.await {
            Ok(RedemptionAnswer::Admitted(admission)) => Input::Redeemed(admission),
            Ok(RedemptionAnswer::Wait { seconds }) => Input::RedeemLater(Duration::from_secs(seconds.into())),
            Ok(RedemptionAnswer::Refused { reason }) => Input::RedeemRefused(reason),
            Err(error) => {
                tracing::warn!(error = %format!("{error:#}"), "no admission yet");
                Input::RedeemFailed
            }
        }
    }

    /// Sends a report, once.
    pub(crate) async fn report(&self, admission: &Admission, report: &Report) -> Input {
        let asked = async {
            let body = serde_json::to_vec(report)?;
            let (status, body) = self.post(REPORT_PATH, Some(&admission.session), body).await?;
            anyhow::ensure!(status == 200, "the service answers {status}");
            Ok(serde_json::from_slice::<ReportAnswer>(&body)?)
        };
        match asked.await {
            Ok(answer) => Input::Reported(Box::new(answer)),
            Err(error) => {
                tracing::warn!(error = %format!("{error:#}"), state = ?report.state, "the report was not taken");
                Input::ReportFailed
            }
        }
    }
}
