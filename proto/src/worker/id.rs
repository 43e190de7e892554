//! Who a worker is.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::id::{StreamName, shorten};
use crate::market::LeaseNumber;

/// The longest name of a worker, in bytes: that of a label in DNS, which a Node's name is one of.
const NAME_BYTES_MAX: usize = 63;

/// Why a text names no worker.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a worker is EXCHANGE-NUMBER in lower case letters, digits and -, such as \"main-4711\"; this is {text:?}"
)]
pub struct WorkerIdError {
    text: String,
}

/// A worker is known by its lease: the exchange and the lease's number, written `main-4711`. So is its Node, which is
/// why an exchange whose name holds anything but lower case letters, digits and inner hyphens can have no workers.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId {
    exchange: StreamName,
    lease: LeaseNumber,
}

impl WorkerId {
    /// The worker of a lease.
    ///
    /// # Errors
    /// When no Node can be called so.
    pub fn new(exchange: StreamName, lease: LeaseNumber) -> Result<Self, WorkerIdError> {
        let worker = Self { exchange, lease };
        let text = worker.to_string();
        let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if text.len() > NAME_BYTES_MAX || text.starts_with('-') || !text.bytes().all(legal) {
            return Err(WorkerIdError { text: shorten(&text) });
        }
        Ok(worker)
    }

    /// The exchange that awarded the lease.
    pub fn exchange(&self) -> &StreamName {
        &self.exchange
    }

    /// The lease.
    pub fn lease(&self) -> LeaseNumber {
        self.lease
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}-{}", self.exchange, self.lease)
    }
}

impl FromStr for WorkerId {
    type Err = WorkerIdError;

    fn from_str(text: &str) -> Result<Self, WorkerIdError> {
        let refused = || WorkerIdError { text: shorten(text) };
        let (exchange, number) = text.rsplit_once('-').ok_or_else(refused)?;
        let exchange = exchange.parse().map_err(|_| refused())?;
        let worker = Self::new(exchange, number.parse().map_err(|_| refused())?)?;
        // One worker has one name: no leading zeros, no plus sign.
        if worker.to_string() == text { Ok(worker) } else { Err(refused()) }
    }
}

impl Serialize for WorkerId {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for WorkerId {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(from)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_has_one_name() {
        for good in ["main-4711", "a-0", "eu-west-1-7"] {
            assert_eq!(good.parse::<WorkerId>().unwrap().to_string(), good);
            let read: WorkerId = serde_json::from_str(&format!("{good:?}")).unwrap();
            assert_eq!(read.to_string(), good);
        }
        let long = format!("{}-1", "a".repeat(62));
        for bad in
            ["", "main", "main-", "-1", "main-01", "main-+1", "Main-1", "ma_in-1", "m.n-1", "-a-1", &long]
        {
            assert!(bad.parse::<WorkerId>().is_err(), "{bad}");
        }
    }
}
