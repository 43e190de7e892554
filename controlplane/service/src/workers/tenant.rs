//! Tenants' clusters, as their administrator: what the service does there for workers.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result, bail};
use controlplane::workers::Holder;
use controlplane::{namespace_name, plane_name};
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use proto::Timestamp;
use proto::worker::certificate::{base64, unbase64};
use proto::worker::{Claim, TunnelTerms, WorkerId};
use proto::{ClusterId, TenantId};
use serde_json::{Value, json};

use super::ask::{ask, text};

/// Tenants' clusters whose clients are kept; beyond that all are made anew.
const CLIENTS_KEPT_MAX: usize = 4_096;
/// The signer of certificates with which Nodes speak to the API server.
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client-kubelet";
/// How long a tunnel's token is good for, in seconds. Its agent shows it when it connects and no more.
const TOKEN_SECONDS: u32 = 3_600;
/// Who the tunnel's agents are in Kamaji's clusters, and whom their tokens are for.
const AGENT_ACCOUNT: &str = "/api/v1/namespaces/kube-system/serviceaccounts/konnectivity-agent/token";
const AGENT_AUDIENCE: &str = "system:konnectivity-server";

/// A tenant's cluster.
#[derive(Clone)]
pub(crate) struct Tenant {
    pub(crate) client: Client,
    /// As workers reach it.
    pub(crate) api_server: String,
    /// Certificates of its authority, in PEM.
    pub(crate) authority: String,
}

/// The clusters of all tenants.
pub(crate) struct Tenants {
    management: Client,
    known: Mutex<BTreeMap<(TenantId, ClusterId), (String, Tenant)>>,
}

/// What a plane says that its workers are told.
#[derive(Debug, Default)]
pub(crate) struct PlaneTerms {
    pub(crate) cluster_domain: String,
    pub(crate) cluster_dns: Vec<String>,
    /// Port of the tunnel's servers, if there is a tunnel.
    pub(crate) tunnel_port: Option<u16>,
}

impl Tenants {
    pub(crate) fn new(management: Client) -> Self {
        Self { management, known: Mutex::default() }
    }

    /// A holder's cluster; none if it has no plane, or the plane no kubeconfig yet.
    pub(crate) async fn of(&self, holder: &Holder) -> Result<Option<Tenant>> {
        let (namespace, name) = (namespace_name(&holder.tenant), plane_name(&holder.cluster));
        let path = format!("/api/v1/namespaces/{namespace}/secrets/{name}-admin-kubeconfig");
        let Some(secret) = ask(&self.management, "GET", &path, None).await? else { return Ok(None) };
        let version = text(&secret, "/metadata/resourceVersion").to_owned();
        let key = (holder.tenant.clone(), holder.cluster.clone());
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some((_, tenant)) = known.filter(|(known, _)| *known == version) {
            return Ok(Some(tenant));
        }
        let tenant = read(&secret).await.with_context(|| format!("the kubeconfig of {namespace}/{name}"))?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= CLIENTS_KEPT_MAX {
            known.clear();
        }
        known.insert(key, (version, tenant.clone()));
        Ok(Some(tenant))
    }

    /// What a holder's plane says; none if there is no such plane.
    pub(crate) async fn terms(&self, holder: &Holder) -> Result<Option<PlaneTerms>> {
        let (namespace, name) = (namespace_name(&holder.tenant), plane_name(&holder.cluster));
        let path =
            format!("/apis/kamaji.clastix.io/v1alpha1/namespaces/{namespace}/tenantcontrolplanes/{name}");
        let Some(plane) = ask(&self.management, "GET", &path, None).await? else { return Ok(None) };
        let domain = text(&plane, "/spec/networkProfile/clusterDomain");
        let dns = plane.pointer("/spec/networkProfile/dnsServiceIPs").and_then(Value::as_array);
        let dns = dns.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
        let port = plane.pointer("/spec/addons/konnectivity/server/port").and_then(Value::as_u64);
        Ok(Some(PlaneTerms {
            cluster_domain: if domain.is_empty() { "cluster.local".to_owned() } else { domain.to_owned() },
            cluster_dns: dns.collect(),
            tunnel_port: port.and_then(|port| u16::try_from(port).ok()),
        }))
    }
}

async fn read(secret: &Value) -> Result<Tenant> {
    let coded = text(secret, "/data/admin.conf");
    let plain = unbase64(coded).and_then(|bytes| String::from_utf8(bytes).ok());
    let kubeconfig = Kubeconfig::from_yaml(&plain.context("there is no admin.conf")?)?;
    let cluster = kubeconfig.clusters.first().and_then(|named| named.cluster.clone());
    let cluster = cluster.context("it names no cluster")?;
    let authority = cluster.certificate_authority_data.as_deref().and_then(unbase64);
    let authority = authority.and_then(|bytes| String::from_utf8(bytes).ok());
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(Tenant {
        client: crate::client_of(config)?,
        api_server: cluster.server.context("it names no server")?.trim_end_matches('/').to_owned(),
        authority: authority.context("it names no authority, which workers need")?,
    })
}

impl Tenant {
    /// The certificate with which a worker's Node speaks to its API server; none while it is not signed. The request is
    /// made and approved here, so nobody else gets to make one.
    pub(crate) async fn certificate(&self, claim: &Claim) -> Result<Option<String>> {
        let fingerprint = claim.public_key.fingerprint();
        let short = fingerprint.get(..8).unwrap_or_default();
        let name = format!("walras-{}-{}-{short}", claim.worker, claim.generation);
        let path = format!("/apis/certificates.k8s.io/v1/certificatesigningrequests/{name}");
        let mut request = match ask(&self.client, "GET", &path, None).await? {
            Some(request) => request,
            None => self.request_certificate(&name, claim).await?,
        };
        let is = |request: &Value, kind: &str| {
            let conditions = request.pointer("/status/conditions").and_then(Value::as_array);
            conditions.is_some_and(|all| all.iter().any(|one| text(one, "/type") == kind))
        };
        if is(&request, "Denied") || is(&request, "Failed") {
            // Somebody in the cluster refused it, or it cannot be signed: the next attempt begins anew.
            ask(&self.client, "DELETE", &path, None).await?;
            bail!("the request {name} for a certificate was denied or failed");
        }
        if !is(&request, "Approved") {
            request = approve(&self.client, request, Ok("redeemed with the lease's join secret")).await?;
        }
        let certificate = unbase64(text(&request, "/status/certificate"));
        Ok(certificate.and_then(|bytes| String::from_utf8(bytes).ok()).filter(|pem| !pem.is_empty()))
    }

    async fn request_certificate(&self, name: &str, claim: &Claim) -> Result<Value> {
        let object = json!({
            "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
            "metadata": { "name": name, "labels": { "walras.dev/worker": claim.worker } },
            "spec": {
                "request": base64(claim.certificate_request.as_bytes()),
                "signerName": CLIENT_SIGNER,
                "usages": ["digital signature", "client auth"],
            },
        });
        let path = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
        ask(&self.client, "POST", path, Some(&object)).await?.context("the cluster signs no certificates")
    }

    /// Where the tunnel leads, with a new token; none while the cluster has no account for its agents.
    pub(crate) async fn tunnel(&self, port: u16) -> Result<Option<TunnelTerms>> {
        let body = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": { "audiences": [AGENT_AUDIENCE], "expirationSeconds": TOKEN_SECONDS },
        });
        let Some(answer) = ask(&self.client, "POST", AGENT_ACCOUNT, Some(&body)).await? else {
            return Ok(None);
        };
        let uri: http::Uri = self.api_server.parse().context("the address of the API server")?;
        let token_expires_at: Timestamp = text(&answer, "/status/expirationTimestamp").parse()?;
        let token = text(&answer, "/status/token").to_owned();
        anyhow::ensure!(!token.is_empty(), "the cluster gives an empty token");
        let host = uri.host().context("the API server has no host")?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Some(TunnelTerms { host, port, token, token_expires_at }))
    }

    /// Lets a Node go. Its pods, which cannot end by themselves any more, are collected by the cluster.
    pub(crate) async fn delete_node(&self, worker: &WorkerId) -> Result<()> {
        Ok(ask(&self.client, "DELETE", &format!("/api/v1/nodes/{worker}"), None).await.map(drop)?)
    }
}

/// Approves or denies a request for a certificate, with why.
///
/// # Errors
/// When the API server refuses, or does not answer.
pub(crate) async fn approve(
    client: &Client,
    mut request: Value,
    decided: Result<&str, &str>,
) -> Result<Value> {
    let (kind, message) = match decided {
        Ok(message) => ("Approved", message),
        Err(message) => ("Denied", message),
    };
    let name = text(&request, "/metadata/name").to_owned();
    let condition =
        json!({ "type": kind, "status": "True", "reason": "WalrasInventory", "message": message });
    match request.pointer_mut("/status/conditions").and_then(Value::as_array_mut) {
        Some(conditions) => conditions.push(condition),
        None => request["status"]["conditions"] = json!([condition]),
    }
    let path = format!("/apis/certificates.k8s.io/v1/certificatesigningrequests/{name}/approval");
    ask(client, "PUT", &path, Some(&request)).await?.context("the request is gone")
}
