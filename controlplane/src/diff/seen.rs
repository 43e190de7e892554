//! What a plane says of itself, and whether it has come to rest.

use proto::placement::KubernetesVersion;

use crate::ROLLOUT;
use crate::observed::{Object, Pod, at, number, text};

/// A plane as Kamaji shows it.
pub(super) struct Seen<'a> {
    /// The version that is asked for.
    pub(super) version: Option<KubernetesVersion>,
    /// The version that is served.
    pub(super) installed: Option<KubernetesVersion>,
    /// The data store that is asked for.
    pub(super) data_store: &'a str,
    /// The data store that has the data, once there is one.
    pub(super) kept_in: &'a str,
    /// The count of rollouts that were asked for.
    pub(super) rollout: u64,
    /// Replicas that are asked for.
    pub(super) replicas: u64,
    /// Kamaji's word for its state.
    word: &'a str,
    /// Whether that word is about what is asked for now. Right after a change it is not.
    is_current: bool,
}

impl<'a> Seen<'a> {
    /// Reads a plane, and its owner where that is steered instead.
    pub(super) fn read(plane: &'a Object, steered: &'a Object) -> Self {
        let body = &plane.body;
        let version = |path: &[&str]| text(body, path).and_then(|written| written.parse().ok());
        let deployment = ["spec", "controlPlane", "deployment"];
        let annotation = at(body, &deployment)["podAdditionalMetadata"]["annotations"][ROLLOUT].as_str();
        let resources = at(body, &["status", "kubernetesResources"]);
        let is_current = |object: &Object| {
            number(&object.body, &["status", "observedGeneration"])
                == number(&object.body, &["metadata", "generation"])
        };
        Self {
            version: version(&["spec", "kubernetes", "version"]),
            installed: version(&["status", "kubernetesResources", "version", "version"]),
            data_store: text(body, &["spec", "dataStore"]).unwrap_or_default(),
            kept_in: text(body, &["status", "storage", "dataStoreName"]).unwrap_or_default(),
            rollout: annotation.and_then(|written| written.parse().ok()).unwrap_or_default(),
            replicas: number(at(body, &deployment), &["replicas"]),
            word: text(resources, &["version", "status"]).unwrap_or_default(),
            is_current: is_current(plane) && is_current(steered),
        }
    }

    /// Whether nothing is under way: Kamaji has looked at what is asked for now and calls it done, and pods are as
    /// many as are asked for, of one template, all serving.
    pub(super) fn is_at_rest(&self, pods: &[(&str, &Pod)]) -> bool {
        let is_done = match self.word {
            "Ready" | "Sleeping" => true,
            // Limits on what tenants write hide the other words.
            "WriteLimited" => self.replicas > 0,
            _ => false,
        };
        let one_template = pods.windows(2).all(|two| two[0].1.template == two[1].1.template);
        is_done
            && self.is_current
            && self.installed == self.version
            && self.kept_in == self.data_store
            && pods.len() as u64 == self.replicas
            && one_template
            && pods.iter().all(|(_, pod)| pod.ready)
    }
}
