//! Names of namespaces and planes in the management cluster.
//!
//! Ids of tenants and clusters allow what names of Kubernetes do not: capitals, underscores, more letters. Two ids must
//! never share a name, for a name decides whose data somebody sees. So an id that is a plain label stays as it is, and
//! every other becomes a label that begins with [`CODED`] and ends with a digest of the whole id; an id that itself
//! begins so is coded as well.

use std::fmt::Write;

use proto::{ClusterId, TenantId};
use sha2::{Digest, Sha256};

/// What begins a coded name.
const CODED: &str = "x-";
/// An id of more bytes is coded, so that Kamaji's endings fit into 63.
const PLAIN_BYTES_MAX: usize = 40;
/// Bytes of an id that a coded name shows, for people.
const SHOWN_BYTES_MAX: usize = 16;
/// Bytes of the digest: an accident among 2^40 ids is as likely as one in 2^17; made on purpose it costs 2^48 tries
/// of ids that the same tenant must then hold.
const DIGEST_BYTES: usize = 12;

/// The namespace of a tenant's planes.
pub fn namespace_name(tenant: &TenantId) -> String {
    format!("walras-{}", label(tenant.as_str()))
}

/// The name of a cluster's plane within its tenant's namespace.
pub fn plane_name(cluster: &ClusterId) -> String {
    label(cluster.as_str())
}

/// The first bytes of a digest, in hexadecimal.
pub(crate) fn digest(content: &[u8], bytes: usize) -> String {
    let mut shown = String::with_capacity(2 * bytes);
    for byte in Sha256::digest(content).iter().take(bytes) {
        // Writing to a text cannot fail.
        let _written = write!(shown, "{byte:02x}");
    }
    shown
}

fn label(id: &str) -> String {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_plain = id.len() <= PLAIN_BYTES_MAX
        && !id.starts_with(CODED)
        && id.bytes().all(|byte| inner(byte) || byte == b'-')
        && id.bytes().next().is_some_and(|first| first.is_ascii_lowercase())
        && id.bytes().last().is_some_and(inner);
    if is_plain {
        return id.to_owned();
    }
    let shown = id.bytes().filter(u8::is_ascii_alphanumeric).take(SHOWN_BYTES_MAX);
    let shown: String = shown.map(|byte| char::from(byte.to_ascii_lowercase())).collect();
    format!("{CODED}{shown}-{}", digest(id.as_bytes(), DIGEST_BYTES))
}

#[cfg(test)]
mod tests {
    use super::label;

    #[test]
    fn plain_ids_stay_and_others_are_told_apart() {
        for plain in ["a", "acme", "acme-2", "a1"] {
            assert_eq!(label(plain), plain);
        }
        let long = "a".repeat(64);
        let odd = ["A", "a_", "1a", "a-", "-a", "a_b", "A-b", "x-a", "_", &long, &long[1..]];
        let mut names: Vec<String> = odd.iter().map(|id| label(id)).collect();
        names.push(label("a"));
        names.extend(odd.iter().map(|id| label(&label(id))));
        for name in &names {
            let edges = name.starts_with(|first: char| first.is_ascii_lowercase()) && !name.ends_with('-');
            assert!(edges && name.len() <= 44, "{name}");
            assert!(
                name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
            );
        }
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
