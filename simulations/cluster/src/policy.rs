//! Mutating admission policies, as far as gates of new pods go: the gates that an apply configuration names literally.
//! Expressions are not evaluated.

use serde_json::{Value, json};

use crate::Cluster;
use crate::json::{at, items, list, text};
use crate::selector::Selector;

/// What stands before the name of a gate in an apply configuration.
const GATE: &str = "schedulingGates{name: \"";

impl Cluster {
    /// Adds the gates that policies in force want on a new pod.
    pub(crate) fn gate(&self, pod: &mut Value) {
        let mut gates: Vec<String> = Vec::new();
        for (_, binding) in self.store().list("mutatingadmissionpolicybindings", None) {
            let policy = self.get("mutatingadmissionpolicies", "", text(binding, "spec.policyName"));
            if let Some(policy) = policy.filter(|policy| self.concerns(policy, pod)) {
                for mutation in items(policy, "spec.mutations") {
                    gates.extend(literals(text(mutation, "applyConfiguration.expression")));
                }
            }
        }
        for gate in gates {
            let gates = list(pod, "spec.schedulingGates");
            if !gates.iter().any(|one| text(one, "name") == gate) {
                gates.push(json!({ "name": gate }));
            }
        }
        if items(pod, "spec.schedulingGates").is_empty() {
            crate::json::remove(pod, "spec.schedulingGates");
        }
    }

    /// Whether a policy is about new pods, and about this one.
    fn concerns(&self, policy: &Value, pod: &Value) -> bool {
        let constraints = at(policy, "spec.matchConstraints");
        let names = |rule: &Value, path: &str, wanted: &str| {
            items(rule, path).iter().any(|one| one == wanted || one == "*")
        };
        let ruled = items(constraints, "resourceRules")
            .iter()
            .any(|rule| names(rule, "resources", "pods") && names(rule, "operations", "CREATE"));
        let namespace = self.get("namespaces", "", text(pod, "metadata.namespace"));
        let inside = Selector::of_object(at(constraints, "namespaceSelector"));
        ruled
            && Selector::of_object(at(constraints, "objectSelector")).selects(pod)
            && namespace.is_some_and(|namespace| inside.selects(namespace))
    }
}

fn literals(expression: &str) -> impl Iterator<Item = String> + '_ {
    expression.split(GATE).skip(1).filter_map(|rest| rest.split_once('"').map(|(name, _)| name.to_owned()))
}
