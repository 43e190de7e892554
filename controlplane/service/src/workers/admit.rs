//! From a redemption to an admission.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use controlplane::workers::{Holder, Judged};
use proto::worker::{
    Admission, Bound, Claim, ClusterTerms, KubeletTerms, Redemption, RedemptionAnswer, RedemptionRefusal,
    TunnelTerms, WorkerId,
};
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};

use super::{Office, bindings, clock};

/// How often a certificate is looked for within one request, and the pause between.
const LOOKS_MAX: u32 = 10;
const LOOK: Duration = Duration::from_millis(200);
/// When a worker asks again whose certificate is not signed yet, or that we know nothing of, in seconds.
const WAIT_SOON_SECONDS: u32 = 1;
/// The longest value of a label, in bytes.
const LABEL_BYTES_MAX: usize = 63;
/// When it asks again whose cluster cannot be reached, in seconds.
const WAIT_LONG_SECONDS: u32 = 5;

impl Office {
    /// Answers a redemption.
    pub(super) async fn redeem(&self, redemption: &Redemption) -> RedemptionAnswer {
        let answer = match self.site_key.claim(redemption) {
            Ok(claim) if has_signed(&claim, redemption) => self.admit(&claim).await,
            Ok(_) => Ok(RedemptionAnswer::Refused { reason: RedemptionRefusal::Malformed }),
            Err(reason) => Ok(RedemptionAnswer::Refused { reason }),
        };
        let answer = answer.unwrap_or_else(|error| {
            tracing::warn!(error = %format!("{error:#}"), "a worker has to wait for its admission");
            RedemptionAnswer::Wait { seconds: WAIT_LONG_SECONDS }
        });
        let result = match &answer {
            RedemptionAnswer::Admitted(_) => "admitted",
            RedemptionAnswer::Wait { .. } => "wait",
            RedemptionAnswer::Refused { reason } => word(*reason),
        };
        self.figures.redemptions.with_label_values(&[result]).inc();
        answer
    }

    async fn admit(&self, claim: &Claim) -> Result<RedemptionAnswer> {
        let Some((bound, holder)) = self.bind(claim).await? else {
            return Ok(RedemptionAnswer::Wait { seconds: WAIT_SOON_SECONDS });
        };
        let (bound, holder) = match (bound, holder) {
            (Ok(bound), Some(holder)) => (bound, holder),
            (Err(reason), _) => return Ok(RedemptionAnswer::Refused { reason }),
            (_, None) => return Ok(RedemptionAnswer::Refused { reason: RedemptionRefusal::Over }),
        };
        let plane = self.tenants.terms(&holder).await?.context("its cluster has no control plane")?;
        let tenant = self.tenants.of(&holder).await?.context("its control plane has no kubeconfig yet")?;
        let mut certificate = tenant.certificate(claim).await?;
        for _ in 0..LOOKS_MAX {
            if certificate.is_some() {
                break;
            }
            tokio::time::sleep(LOOK).await;
            certificate = tenant.certificate(claim).await?;
        }
        let Some(certificate) = certificate else {
            return Ok(RedemptionAnswer::Wait { seconds: WAIT_SOON_SECONDS });
        };
        self.figures.certificates.with_label_values(&["client", "approved"]).inc();
        let tunnel = match plane.tunnel_port {
            Some(port) => Some(tenant.tunnel(port).await?.context("its tunnel has no account yet")?),
            None => None,
        };
        Ok(RedemptionAnswer::Admitted(Box::new(Admission {
            now: clock(),
            worker: claim.worker.clone(),
            generation: claim.generation,
            session: self.site_key.session(&claim.worker, &bound),
            report_seconds: self.settings.report_seconds.get(),
            cluster: ClusterTerms {
                api_server: tenant.api_server,
                certificate_authority: tenant.authority,
                certificate,
            },
            kubelet: KubeletTerms {
                cluster_domain: plane.cluster_domain,
                cluster_dns: plane.cluster_dns,
                labels: labels(&holder),
                taints: Vec::new(),
            },
            tunnel,
            bus: self.bus_terms(&claim.worker, &bound),
        })))
    }

    /// Binds the lease to the key, or finds that it is bound. None: not now.
    #[allow(clippy::type_complexity, reason = "it is taken apart at once, in one place")]
    async fn bind(
        &self,
        claim: &Claim,
    ) -> Result<Option<(Result<Bound, RedemptionRefusal>, Option<Holder>)>> {
        let known = self.desk().bound(&claim.worker).map(|(bound, _)| bound.clone());
        let mut judged = self.desk().judge(clock(), claim, known.as_ref());
        if let (Judged::Bind(bound, holder), None) = (&judged, &known) {
            if bindings::keep(&self.management, holder, &claim.worker, bound).await? {
                let (bound, holder) = (bound.clone(), holder.clone());
                tracing::info!(worker = %claim.worker, tenant = %holder.tenant, "a worker joins");
                self.desk().remember(clock(), claim.worker.clone(), bound.clone(), holder.clone());
                return Ok(Some((Ok(bound), Some(holder))));
            }
            // Another of us, or we before a crash, remembered somebody.
            let stored = bindings::find(&self.management, holder, &claim.worker).await?;
            let stored = stored.context("its tenant has no namespace yet, or the binding is going")?;
            self.desk().remember(clock(), claim.worker.clone(), stored.clone(), holder.clone());
            judged = self.desk().judge(clock(), claim, Some(&stored));
        }
        Ok(match judged {
            Judged::Wait | Judged::Bind(..) => None,
            Judged::Refuse(reason) => {
                if reason == RedemptionRefusal::OtherKey {
                    tracing::error!(
                        worker = %claim.worker, fingerprint = claim.public_key.fingerprint(),
                        "another key redeems a secret that is taken: somebody else has it"
                    );
                }
                Some((Err(reason), None))
            }
            Judged::Again(holder) => {
                let bound = self.desk().bound(&claim.worker).map(|(bound, _)| bound.clone());
                Some((bound.ok_or(RedemptionRefusal::Over), Some(holder)))
            }
        })
    }

    /// How a worker joined; one that joined at another replica is looked up once.
    pub(super) async fn known(&self, worker: &WorkerId) -> Option<(Bound, Holder)> {
        let known = |office: &Self| {
            office.desk().bound(worker).map(|(bound, holder)| (bound.clone(), holder.clone()))
        };
        if let Some(known) = known(self) {
            return Some(known);
        }
        let holder = self.desk().holder(worker)?;
        match bindings::find(&self.management, &holder, worker).await {
            Ok(bound) => self.desk().remember(clock(), worker.clone(), bound?, holder),
            Err(error) => {
                tracing::warn!(%worker, error = %format!("{:#}", anyhow::Error::from(error)), "not known how it joined");
            }
        }
        known(self)
    }

    /// The tunnel's terms with a new token, for a worker that asks for one. Without it a worker keeps what it has, and
    /// asks again.
    pub(super) async fn new_token(&self, holder: &Holder) -> Option<TunnelTerms> {
        let renewed = async {
            let plane = self.tenants.terms(holder).await?.context("there is no control plane")?;
            let tenant = self.tenants.of(holder).await?.context("there is no kubeconfig")?;
            match plane.tunnel_port {
                Some(port) => tenant.tunnel(port).await,
                None => Ok(None),
            }
        };
        renewed.await.unwrap_or_else(|error| {
            tracing::warn!(error = %format!("{error:#}"), "a tunnel's token is not renewed");
            None
        })
    }
}

/// Whether the key signed the request itself: a lease is not bound to a key that nobody holds.
fn has_signed(claim: &Claim, redemption: &Redemption) -> bool {
    let info = proto::worker::certificate::request_info(&claim.worker, &claim.public_key);
    let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, claim.public_key.as_bytes());
    redemption.signature_bytes().is_some_and(|signature| key.verify(&info, &signature).is_ok())
}

/// What a Node is labelled with: what schedules pods, and whose it is.
fn labels(holder: &Holder) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    if let Some(pool) = &holder.pool {
        labels.insert("walras.dev/pool".to_owned(), pool.to_string());
    }
    if let Some(market) = &holder.market {
        labels.insert("topology.kubernetes.io/region".to_owned(), market.region().to_owned());
        labels.insert("node.kubernetes.io/instance-type".to_owned(), market.class().to_owned());
    }
    // Ids may be what no label may; a kubelet with such a label would not start.
    labels.retain(|_, value| is_label_value(value));
    labels
}

/// Whether a text may be a label's value in Kubernetes.
fn is_label_value(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let edge = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    let is_bounded = text.len() <= LABEL_BYTES_MAX && edge(text.bytes().next()) && edge(text.bytes().last());
    is_bounded && text.bytes().all(inner)
}

const fn word(reason: RedemptionRefusal) -> &'static str {
    match reason {
        RedemptionRefusal::Malformed => "malformed",
        RedemptionRefusal::Foreign => "foreign",
        RedemptionRefusal::Expired => "expired",
        RedemptionRefusal::OtherKey => "other-key",
        RedemptionRefusal::Over => "over",
    }
}
