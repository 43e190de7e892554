//! Where files are.

use std::path::{Path, PathBuf};

/// All files of a worker, below one root.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    pub(crate) state: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) tunnel_token: PathBuf,
    pub(crate) bus_authority: PathBuf,
    pub(crate) kubelet_process: PathBuf,
    pub(crate) authority: PathBuf,
    pub(crate) kubeconfig: PathBuf,
    pub(crate) kubelet_config: PathBuf,
    pub(crate) kubelet_directory: PathBuf,
    /// Where the kubelet keeps the certificate that it renewed, with its key.
    pub(crate) kubelet_certificate: PathBuf,
}

impl Places {
    /// The usual places. `root` is put before those of Kubernetes, and is `/` but for tests.
    pub(crate) fn new(state_directory: &Path, root: &Path) -> Places {
        let of = |path: &str| root.join(path);
        Places {
            state: state_directory.join("state.json"),
            key: state_directory.join("worker.key"),
            certificate: state_directory.join("worker.pem"),
            tunnel_token: state_directory.join("tunnel-token"),
            bus_authority: state_directory.join("bus-ca.pem"),
            kubelet_process: state_directory.join("kubelet.json"),
            authority: of("etc/kubernetes/pki/ca.crt"),
            kubeconfig: of("etc/kubernetes/kubelet.conf"),
            kubelet_config: of("var/lib/kubelet/config.yaml"),
            kubelet_directory: of("var/lib/kubelet"),
            kubelet_certificate: of("var/lib/kubelet/pki/kubelet-client-current.pem"),
        }
    }
}
