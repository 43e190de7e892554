//! One attempt: a POST to an address that a tenant named, and may not be one of ours.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};

use crate::sign::SIGNATURE_HEADER;

/// How long one attempt may take in all.
const ATTEMPT_MAX: Duration = Duration::from_secs(10);

/// Looks names up, and lets through only addresses that may be dialled: whatever a name means, and whenever it changes its
/// meaning, the address that is dialled is the one that was looked at.
struct Guarded {
    inner: DefaultResolver,
    may_dial_private: bool,
}

impl fmt::Debug for Guarded {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Guarded").field("may_dial_private", &self.may_dial_private).finish_non_exhaustive()
    }
}

impl Resolver for Guarded {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let found = self.inner.resolve(uri, config, timeout)?;
        let mut allowed = self.empty();
        let may_dial = |address: &&SocketAddr| self.may_dial_private || webhook::is_public(address.ip());
        for address in found.iter().filter(may_dial) {
            allowed.push(*address);
        }
        if allowed.is_empty() {
            let problem = "the address is not of the public network";
            return Err(ureq::Error::Io(std::io::Error::new(std::io::ErrorKind::PermissionDenied, problem)));
        }
        Ok(allowed)
    }
}

/// What came of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Posted {
    /// It was taken.
    Taken,
    /// It was not, in a line.
    Failed(String),
}

/// Posts.
#[derive(Clone, Debug)]
pub struct Poster {
    agent: ureq::Agent,
}

impl Poster {
    /// A poster that dials addresses of the public network, or, where it is set up for development, any.
    pub fn new(may_dial_private: bool) -> Self {
        let config = Config::builder()
            .http_status_as_error(false)
            // A redirection would be followed to somewhere that was not asked for.
            .max_redirects(0)
            .max_redirects_will_error(false)
            // A proxy would dial for us what we may not.
            .proxy(None)
            // Each attempt looks the name up anew.
            .max_idle_connections(0)
            .timeout_global(Some(ATTEMPT_MAX))
            .user_agent("walras-webhook/1")
            .build();
        let guarded = Guarded { inner: DefaultResolver::default(), may_dial_private };
        Self { agent: ureq::Agent::with_parts(config, DefaultConnector::default(), guarded) }
    }

    /// Posts a body with its signature, and waits for the answer: at most ten seconds. Blocks its thread.
    pub fn post(&self, url: &str, signature: &str, body: &str) -> Posted {
        let request = self
            .agent
            .post(url)
            .header("content-type", webhook::message::CONTENT_TYPE)
            .header(SIGNATURE_HEADER, signature);
        match request.send(body) {
            Ok(answer) if answer.status().is_success() => Posted::Taken,
            Ok(answer) => Posted::Failed(format!("the receiver answers {}", answer.status().as_u16())),
            Err(error) => Posted::Failed(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn no_address_of_ours_is_dialled_whatever_it_is_called() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let poster = Poster::new(false);
        for host in
            ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "10.0.0.1", "2130706433"]
        {
            let posted = poster.post(&format!("http://{host}:{port}/"), "s", "{}");
            assert!(matches!(posted, Posted::Failed(_)), "{host}: {posted:?}");
            assert!(listener.accept().is_err(), "{host} was dialled");
        }
        let refused = poster.post(&format!("http://127.0.0.1:{port}/"), "s", "{}");
        let Posted::Failed(problem) = refused else { panic!("{refused:?}") };
        assert!(problem.contains("not of the public network"), "{problem}");
    }
}
