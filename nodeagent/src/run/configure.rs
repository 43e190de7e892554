//! The kubelet's files. They are JSON, which is YAML too.

use std::io;
use std::path::Path;

use proto::worker::{Admission, TaintEffect};
use serde_json::{Value, json};
use thiserror::Error;

use super::files::{self, PUBLIC, SECRET};
use super::places::Places;

/// What a kubelet gives its pods when the machine is shut down without a word to us, and critical ones of that: the
/// net under a drain that was not finished.
const SHUTDOWN_GRACE: &str = "30s";
const SHUTDOWN_GRACE_CRITICAL: &str = "10s";

/// A file that cannot be written.
#[derive(Debug, Error)]
#[error("cannot write {0}")]
pub(crate) struct ConfigureError(String, #[source] io::Error);

/// Writes everything that the kubelet and the tunnel read.
pub(crate) fn write(places: &Places, admission: &Admission) -> Result<(), ConfigureError> {
    let replace = |path: &Path, bytes: &[u8], mode| {
        files::replace(path, bytes, mode).map_err(|error| ConfigureError(path.display().to_string(), error))
    };
    let cluster = &admission.cluster;
    replace(&places.authority, cluster.certificate_authority.as_bytes(), PUBLIC)?;
    replace(&places.certificate, cluster.certificate.as_bytes(), PUBLIC)?;
    replace(&places.kubeconfig, kubeconfig(places, admission).to_string().as_bytes(), SECRET)?;
    replace(&places.kubelet_config, kubelet_config(places, admission).to_string().as_bytes(), PUBLIC)?;
    if let Some(authority) = admission.bus.as_ref().and_then(|bus| bus.certificate_authority.as_deref()) {
        replace(&places.bus_authority, authority.as_bytes(), PUBLIC)?;
    }
    write_token(places, admission)
}

/// Writes the tunnel's token.
pub(crate) fn write_token(places: &Places, admission: &Admission) -> Result<(), ConfigureError> {
    let Some(tunnel) = &admission.tunnel else { return Ok(()) };
    let path = &places.tunnel_token;
    files::replace(path, tunnel.token.as_bytes(), SECRET)
        .map_err(|error| ConfigureError(path.display().to_string(), error))
}

fn kubeconfig(places: &Places, admission: &Admission) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "cluster", "cluster": {
            "server": admission.cluster.api_server,
            "certificate-authority": places.authority,
        } }],
        "users": [{ "name": "worker", "user": {
            "client-certificate": places.certificate,
            "client-key": places.key,
        } }],
        "contexts": [{ "name": "worker", "context": { "cluster": "cluster", "user": "worker" } }],
        "current-context": "worker",
    })
}

fn kubelet_config(places: &Places, admission: &Admission) -> Value {
    let kubelet = &admission.kubelet;
    let taint = |taint: &proto::worker::Taint| {
        let effect = match taint.effect {
            TaintEffect::NoSchedule => "NoSchedule",
            TaintEffect::PreferNoSchedule => "PreferNoSchedule",
            TaintEffect::NoExecute => "NoExecute",
        };
        json!({ "key": taint.key, "value": taint.value, "effect": effect })
    };
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": { "enabled": false },
            "webhook": { "enabled": true },
            "x509": { "clientCAFile": places.authority },
        },
        "authorization": { "mode": "Webhook" },
        "readOnlyPort": 0,
        "rotateCertificates": true,
        "serverTLSBootstrap": true,
        "cgroupDriver": "systemd",
        "clusterDomain": kubelet.cluster_domain,
        "clusterDNS": kubelet.cluster_dns,
        "registerWithTaints": kubelet.taints.iter().map(taint).collect::<Vec<_>>(),
        "shutdownGracePeriod": SHUTDOWN_GRACE,
        "shutdownGracePeriodCriticalPods": SHUTDOWN_GRACE_CRITICAL,
    })
}

/// What the kubelet is started with.
pub(crate) fn kubelet_arguments(places: &Places, admission: &Admission) -> Vec<String> {
    let labels: Vec<String> =
        admission.kubelet.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mut arguments = vec![
        format!("--kubeconfig={}", places.kubeconfig.display()),
        format!("--config={}", places.kubelet_config.display()),
        format!("--root-dir={}", places.kubelet_directory.display()),
        format!("--cert-dir={}", places.kubelet_directory.join("pki").display()),
        format!("--hostname-override={}", admission.worker),
    ];
    if !labels.is_empty() {
        arguments.push(format!("--node-labels={}", labels.join(",")));
    }
    arguments
}
