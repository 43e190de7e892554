//! A plane as Cluster API's provider is asked for it, where that owns the plane: it rewrites the plane from its own
//! object at every pass, so that what is written to the plane itself would not last.

use std::collections::BTreeMap;

use proto::placement::Driver;
use serde::Serialize;

use super::plane::{
    Addons, PlaneTerms, PodMetadata, Probes, Spread, Strategy, addons, admission, api_server_args,
    containers, controller_args, pod_metadata, probes, spread, strategy, tolerations,
};
use super::{Manifest, Metadata, Resources, Spec, manifest};
use crate::desired::Toleration;
use crate::kind::Kind;
use crate::name::namespace_name;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ClusterApiSpec<'a> {
    replicas: u32,
    version: String,
    data_store_name: &'a str,
    addons: Addons,
    admission_controllers: &'static [&'static str],
    api_server: Component,
    controller_manager: Component,
    scheduler: Component,
    #[serde(skip_serializing_if = "Option::is_none")]
    kine: Option<Component>,
    deployment: Deployment<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Component {
    resources: Option<Resources>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    extra_args: Vec<&'static str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Deployment<'a> {
    strategy: Strategy,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    node_selector: &'a BTreeMap<String, String>,
    tolerations: Vec<Toleration>,
    topology_spread_constraints: [Spread; 2],
    probes: Probes,
    pod_additional_metadata: PodMetadata,
}

/// The manifest of a plane's owner, which is called `name`.
pub(crate) fn cluster_api_plane(name: &str, terms: &PlaneTerms<'_>) -> Manifest {
    let PlaneTerms { number, plane, site, version, data_store, rollout } = *terms;
    let mut resources = containers(plane.request, plane.driver);
    let mut component = |name: &str, extra_args: Vec<&'static str>| Component {
        resources: resources.remove(name),
        extra_args,
    };
    let spec = ClusterApiSpec {
        replicas: plane.replicas,
        version: version.to_string(),
        data_store_name: data_store,
        addons: addons(plane.request),
        admission_controllers: admission(),
        api_server: component("apiServer", api_server_args().to_vec()),
        controller_manager: component("controllerManager", controller_args().to_vec()),
        scheduler: component("scheduler", Vec::new()),
        kine: (plane.driver != Driver::Etcd).then(|| component("kine", Vec::new())),
        deployment: Deployment {
            strategy: strategy(),
            node_selector: &site.pool,
            tolerations: tolerations(site),
            topology_spread_constraints: spread(),
            probes: probes(),
            pod_additional_metadata: pod_metadata(rollout),
        },
    };
    let metadata = Metadata::new(&namespace_name(&plane.tenant), name).of_plane(number);
    manifest(Kind::ClusterApiPlane, metadata, &Spec { spec })
}
