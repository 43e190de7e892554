//! Hands out the metrics of one service from one registry.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::core::Collector;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};

use super::metric::{Kind, Metric, NameError};
use super::process;

/// Why a metric cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum MeterError {
    /// Its name breaks the convention, or it is not declared for the service.
    #[error(transparent)]
    Name(#[from] NameError),
    /// It was asked for as something else than it is declared as.
    #[error("metric {name}: declared as {declared:?}, asked for as {asked}")]
    Kind {
        /// Its name.
        name: String,
        /// What it is.
        declared: Kind,
        /// What it was asked for as.
        asked: &'static str,
    },
    /// The registry refused it.
    #[error("metric {name}: not registered")]
    Registry {
        /// Its name.
        name: String,
        /// Why.
        source: prometheus::Error,
    },
}

/// Hands out the metrics that [`super::metrics`] declares, under the name of one service. Clones and the
/// meters made by [`Meter::of`] share one registry; who asks for a metric again gets the same one, because
/// several streams of one service live in one process.
#[derive(Clone)]
pub struct Meter {
    service: &'static str,
    shared: Arc<Shared>,
}

/// Brings metrics up to date that nobody sets when they change.
type Refresher = Box<dyn Fn() + Send + Sync>;

/// Refreshers of one registry.
const REFRESHERS_MAX: usize = 64;

struct Shared {
    registry: Registry,
    refreshers: Mutex<Vec<Refresher>>,
    given: Mutex<BTreeMap<String, Given>>,
}

#[derive(Clone)]
enum Given {
    Counter(IntCounterVec),
    Gauge(IntGaugeVec),
    Decimal(GaugeVec),
    Histogram(HistogramVec),
}

impl Meter {
    /// A meter for `service` on a registry of its own that also tells about the process and the build.
    ///
    /// # Errors
    /// When the process's own metrics cannot be registered.
    pub fn new(service: &'static str) -> Result<Self, MeterError> {
        let registry = Registry::new();
        process::register(&registry)
            .map_err(|source| MeterError::Registry { name: "process".to_owned(), source })?;
        let shared = Shared { registry, refreshers: Mutex::default(), given: Mutex::default() };
        Ok(Self { service, shared: Arc::new(shared) })
    }

    /// A meter for another service on the same registry.
    #[must_use]
    pub fn of(&self, service: &'static str) -> Self {
        Self { service, shared: Arc::clone(&self.shared) }
    }

    /// The service in the names of this meter's metrics.
    pub fn service(&self) -> &'static str {
        self.service
    }

    /// The registry, to be shown on `/metrics`.
    pub fn registry(&self) -> &Registry {
        &self.shared.registry
    }

    /// Has `refresh` called before metrics are shown: for figures that somebody counts anyway and that cost
    /// too much, or are too far away, to be set at every change. It must not wait for anything.
    pub fn before_showing(&self, refresh: impl Fn() + Send + Sync + 'static) {
        let mut refreshers = self.shared.refreshers.lock().unwrap_or_else(PoisonError::into_inner);
        if refreshers.len() < REFRESHERS_MAX {
            refreshers.push(Box::new(refresh));
        } else {
            tracing::warn!("more than {REFRESHERS_MAX} refreshers of metrics");
        }
    }

    /// Everything in the registry as Prometheus text.
    ///
    /// # Errors
    /// When a metric cannot be written as text.
    pub fn text(&self) -> Result<String, prometheus::Error> {
        for refresh in self.shared.refreshers.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            refresh();
        }
        TextEncoder::new().encode_to_string(&self.shared.registry.gather())
    }

    /// A counter with labels.
    ///
    /// # Errors
    /// When the metric is not declared so.
    pub fn counters(&self, metric: &Metric) -> Result<IntCounterVec, MeterError> {
        match self.given(metric)? {
            Given::Counter(found) => Ok(found),
            _ => Err(self.wrong(metric, "counter")),
        }
    }

    /// A counter without labels.
    ///
    /// # Errors
    /// When the metric is not declared so.
    pub fn counter(&self, metric: &Metric) -> Result<IntCounter, MeterError> {
        self.counters(metric)?.get_metric_with_label_values::<&str>(&[]).map_err(|e| self.refused(metric, e))
    }

    /// A whole-number gauge with labels.
    ///
    /// # Errors
    /// When the metric is not declared so.
    pub fn gauges(&self, metric: &Metric) -> Result<IntGaugeVec, MeterError> {
        match self.given(metric)? {
            Given::Gauge(found) => Ok(found),
            _ => Err(self.wrong(metric, "gauge")),
        }
    }

    /// A whole-number gauge without labels.
    ///
    /// # Errors
    /// When the metric is not declared so.
    pub fn gauge(&self, metric: &Metric) -> Result<IntGauge, MeterError> {
        self.gauges(metric)?.get_metric_with_label_values::<&str>(&[]).map_err(|e| self.refused(metric, e))
    }

    /// A gauge of numbers with decimals, with labels.
    ///
    /// # Errors
    /// When the metric is not declared so.
    pub fn decimals(&self, metric: &Metric) -> Result<GaugeVec, MeterError> {
        match self.given(metric)? {
            Given::Decimal(found) => Ok(found),
            _ => Err(self.wrong(metric, "decimal")),
        }
    }

    /// A gauge of numbers with decimals, without labels.
    ///
    /// # Errors
    /// When the metric is not declared so.
    pub fn decimal(&self, metric: &Metric) -> Result<Gauge, MeterError> {
        self.decimals(metric)?.get_metric_with_label_values::<&str>(&[]).map_err(|e| self.refused(metric, e))
    }

    /// A histogram with labels.
    ///
    /// # Errors
    /// When the metric is not declared so.
    pub fn histograms(&self, metric: &Metric) -> Result<HistogramVec, MeterError> {
        match self.given(metric)? {
            Given::Histogram(found) => Ok(found),
            _ => Err(self.wrong(metric, "histogram")),
        }
    }

    /// A histogram without labels.
    ///
    /// # Errors
    /// When the metric is not declared so.
    pub fn histogram(&self, metric: &Metric) -> Result<Histogram, MeterError> {
        self.histograms(metric)?
            .get_metric_with_label_values::<&str>(&[])
            .map_err(|e| self.refused(metric, e))
    }

    fn given(&self, metric: &Metric) -> Result<Given, MeterError> {
        let name = metric.checked_name(self.service)?;
        let mut all = self.shared.given.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = all.get(&name) {
            return Ok(found.clone());
        }
        let made = self.make(metric, &name).map_err(|e| self.refused(metric, e))?;
        all.insert(name, made.clone());
        Ok(made)
    }

    fn make(&self, metric: &Metric, name: &str) -> Result<Given, prometheus::Error> {
        let opts = Opts::new(name, metric.help);
        Ok(match metric.kind {
            Kind::Counter => Given::Counter(self.register(IntCounterVec::new(opts, metric.labels)?)?),
            Kind::Gauge => Given::Gauge(self.register(IntGaugeVec::new(opts, metric.labels)?)?),
            Kind::Decimal => Given::Decimal(self.register(GaugeVec::new(opts, metric.labels)?)?),
            Kind::Histogram(bounds) => {
                let opts = HistogramOpts::from(opts).buckets(bounds.to_vec());
                Given::Histogram(self.register(HistogramVec::new(opts, metric.labels)?)?)
            }
        })
    }

    fn register<C: Collector + Clone + 'static>(&self, collector: C) -> Result<C, prometheus::Error> {
        self.shared.registry.register(Box::new(collector.clone()))?;
        Ok(collector)
    }

    fn wrong(&self, metric: &Metric, asked: &'static str) -> MeterError {
        MeterError::Kind { name: metric.name(self.service), declared: metric.kind, asked }
    }

    fn refused(&self, metric: &Metric, source: prometheus::Error) -> MeterError {
        MeterError::Registry { name: metric.name(self.service), source }
    }
}

impl std::fmt::Debug for Meter {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Meter").field("service", &self.service).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::metrics;
    use super::*;

    #[test]
    fn asking_twice_gives_the_same_metric() {
        let meter = Meter::new("market").unwrap();
        meter.counters(&metrics::FENCED).unwrap().with_label_values(&["main"]).inc();
        let again = meter.clone().counters(&metrics::FENCED).unwrap();
        assert_eq!(again.with_label_values(&["main"]).get(), 1);
    }

    #[test]
    fn what_is_not_declared_is_not_given() {
        let meter = Meter::new("gateway").unwrap();
        let error = meter.counters(&metrics::FENCED).unwrap_err();
        assert_eq!(error.to_string(), "metric walras_gateway_fenced_total: not declared for this service");
        let error = meter.of("market").gauges(&metrics::FENCED).unwrap_err();
        assert!(error.to_string().contains("declared as Counter, asked for as gauge"), "{error}");
        assert!(meter.of("market").counter(&metrics::FENCED).is_err(), "its label is missing");
    }
}
