//! What can be asked of a site.

use bytes::Bytes;
use placement::machine::{Placement, SiteView};
use proto::machine::RestoreError;
use proto::placement::PlacementEvent;
use proto::{ClusterId, Machine, StreamName, TenantId, Timestamp};
use runtime::telemetry::{Meter, MeterError};
use serde::{Deserialize, Serialize};

use crate::figures::Figures;

/// A site as its events leave it. It answers questions, and is what the metrics tell.
#[derive(Debug)]
pub struct Reading {
    site: Placement,
    sequence: u64,
    figures: Option<Figures>,
    /// Whether something happened that the metrics show.
    is_changed: bool,
}

/// Which clusters are asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ClustersQuestion {
    tenant: TenantId,
    #[serde(default)]
    cluster: Option<ClusterId>,
    /// Read by whoever lets the question wait.
    #[serde(default)]
    wait_for_sequence: Option<u64>,
}

/// A site, as of a turn.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SiteAnswer {
    /// The last turn that is in it.
    pub sequence: u64,
    /// The site.
    #[serde(flatten)]
    pub site: SiteView,
}

/// Bytes of a snapshot that say how far it has got.
const SEQUENCE_BYTES: usize = 8;

impl runtime::runner::View<Placement> for Reading {
    const SNAPSHOT: u16 = Placement::SNAPSHOT as u16;

    fn new(stream: &StreamName) -> Self {
        Self { site: Placement::new(stream), sequence: 0, figures: None, is_changed: false }
    }

    fn apply(&mut self, at: Timestamp, sequence: u64, event: &PlacementEvent) {
        self.sequence = sequence;
        self.site.apply(at, event);
        // Bids come by the thousand, and show nowhere.
        let shows_nowhere = match event {
            PlacementEvent::CommandRefused(_) => true,
            PlacementEvent::BidsReported { leases, .. } => leases.is_empty(),
            _ => false,
        };
        self.is_changed |= !shows_nowhere;
        if let Some(figures) = &mut self.figures {
            figures.tell(at, event);
        }
    }

    fn settle(&mut self, _: Timestamp, sequence: u64) {
        self.sequence = sequence;
        if let Some(figures) = self.figures.as_ref().filter(|_| self.is_changed) {
            figures.show(&self.site);
            self.is_changed = false;
        }
    }

    fn snapshot(&self) -> Vec<u8> {
        let mut bytes = self.sequence.to_le_bytes().to_vec();
        bytes.extend_from_slice(&self.site.snapshot());
        bytes
    }

    fn restore(stream: &StreamName, bytes: &[u8]) -> Result<Self, RestoreError> {
        let Some((sequence, site)) = bytes.split_first_chunk::<SEQUENCE_BYTES>() else {
            return Err(RestoreError::Unreadable { problem: format!("only {} bytes", bytes.len()) });
        };
        let site = Placement::restore(stream, site)?;
        Ok(Self { site, sequence: u64::from_le_bytes(*sequence), figures: None, is_changed: false })
    }

    fn measure(&mut self, meter: &Meter, stream: &StreamName) -> Result<(), MeterError> {
        let figures = Figures::new(meter, stream)?;
        figures.show(&self.site);
        self.figures = Some(figures);
        Ok(())
    }

    /// Questions: `clusters` of a tenant, `orders` (every one in force, for a reader that goes on with the events),
    /// `site` (hosts, data stores, advice).
    fn answer(&self, _: &Placement, question: &str, payload: &[u8]) -> Result<Bytes, String> {
        match question {
            "clusters" => {
                let asked: ClustersQuestion =
                    serde_json::from_slice(payload).map_err(|error| error.to_string())?;
                let _ = asked.wait_for_sequence;
                json(&self.site.clusters(&asked.tenant, asked.cluster.as_ref()))
            }
            "orders" => json(&self.site.orders(self.sequence)),
            "site" => json(&SiteAnswer { sequence: self.sequence, site: self.site.site_view() }),
            other => Err(format!("question {other} is unknown: clusters, orders and site are answered")),
        }
    }
}

fn json(value: &impl Serialize) -> Result<Bytes, String> {
    serde_json::to_vec(value).map(Bytes::from).map_err(|error| error.to_string())
}
