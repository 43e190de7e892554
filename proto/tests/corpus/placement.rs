//! Placement's commands, events and answers.

use proto::envelope::{Answers, Commands, EventBatch, EventEntry, Refusal, RefusalReason, Refused};
use proto::machine::CommandKey;
use proto::market::{LeaseSpan, SupplyCause};
use proto::placement::{
    AdoptSiteRules, Amount, Availability, BidStands, ChangeCluster, ClusterTerms, CreateCluster,
    DataStoreTerms, DeleteCluster, Driver, GoneCause, HostTerms, HostsAdvised, KeepHost, KeepServers,
    KubernetesVersion, LeaseChange, MarketNamed, Near, NoticeHost, NoticeServers, OfferDataStore, OfferHost,
    OfferServers, OrderedServer, PlacementAccepted, PlacementAnswer, PlacementCommand, PlacementEvent,
    PlaneMove, PlaneOrder, ReplicaMove, ReportBids, ReportHostGone, ReportPlane, ReportPlaneGone,
    ReportServersGone, Risk, RiskReason, ServedLease, ServerOrder, ServerOrders, SiteRules, WakeCluster,
};

use super::{Golden, LATER, NOON, each, each_kind, golden, id, instant, word};

type Commanded = Vec<(String, PlacementCommand)>;
type Happened = Vec<(String, PlacementEvent)>;

pub(super) fn all() -> Vec<Golden> {
    [commands(), events(), answers(), orders()].concat()
}

fn one<T>(value: T) -> Vec<(String, T)> {
    vec![(String::new(), value)]
}

fn two<T>(plain: T, full: T) -> Vec<(String, T)> {
    vec![("plain".to_owned(), plain), ("full".to_owned(), full)]
}

const VERSION: KubernetesVersion = KubernetesVersion { minor: 35, patch: 2 };
const AMOUNT: Amount = Amount { cpu_milli: 7_500, memory_mib: 30_000, pods: 110 };

fn plain_terms() -> ClusterTerms {
    ClusterTerms {
        availability: Availability::High,
        regions: vec![id("dfw")],
        version: VERSION,
        driver: None,
        data_store: None,
        sleep_after_seconds: None,
    }
}

fn full_terms() -> ClusterTerms {
    ClusterTerms {
        availability: Availability::Single,
        regions: vec![id("dfw"), id("iad")],
        version: VERSION,
        driver: Some(Driver::MySql),
        data_store: Some(id("sql-1.shared")),
        sleep_after_seconds: Some(3_600),
    }
}

fn host_terms(is_full: bool) -> HostTerms {
    HostTerms {
        zone: id("z1"),
        region: id("dfw"),
        capacity: AMOUNT,
        taints: if is_full { vec![id("walras.dev/spot")] } else { Vec::new() },
        hypervisor: is_full.then(|| id("h1")),
    }
}

fn stores() -> Vec<(String, DataStoreTerms)> {
    let drivers = each!(Driver: Etcd, MySql, PostgreSql);
    let terms = |driver: Driver| DataStoreTerms {
        driver,
        units_max: 500,
        dedicated: driver == Driver::Etcd,
        accepting: driver != Driver::Etcd,
    };
    drivers.into_iter().map(|driver| (word(&driver), terms(driver))).collect()
}

fn rules() -> SiteRules {
    SiteRules {
        near: vec![Near { workers: id("iad"), hosts: vec![id("dfw"), id("iad")] }],
        tolerated: vec![id("walras.dev/spot")],
        ..SiteRules::default()
    }
}

fn bid() -> BidStands {
    BidStands { bid: 7, tenant: id("acme"), cluster: id("prod") }
}

fn market() -> proto::MarketId {
    "dfw/gp.large".parse().unwrap()
}

fn named() -> MarketNamed {
    MarketNamed { market: 2, id: market() }
}

fn changes() -> Vec<LeaseChange> {
    let leases = LeaseSpan { first: 40, units: 3 };
    vec![
        LeaseChange::Awarded { bid: 7, market: 2, leases, replaces: None },
        LeaseChange::Awarded { bid: 7, market: 2, leases, replaces: Some(20) },
        LeaseChange::Noticed { leases, gone_at: instant(LATER) },
        LeaseChange::Withdrawn { leases },
        LeaseChange::Released { leases },
    ]
}

fn server_order(is_full: bool) -> ServerOrder {
    let lease = ServedLease {
        exchange: id("main"),
        lease: 40,
        market: market(),
        tenant: id("acme"),
        cluster: id("prod"),
    };
    ServerOrder { lease: is_full.then_some(lease), gone_at: is_full.then(|| instant(LATER)) }
}

fn orders() -> Vec<Golden> {
    let order =
        |is_full| OrderedServer { server: id("rack-1.a"), generation: 3, order: server_order(is_full) };
    let (machine, stream) = ("placement".to_owned(), id("main"));
    let orders = vec![order(false), order(true)];
    let letter = ServerOrders { machine, stream, sequence: 12, at: instant(NOON), orders };
    vec![golden("placement-orders", "", "all", &letter)]
}

#[allow(clippy::too_many_lines, reason = "a table")]
fn commands() -> Vec<Golden> {
    use PlacementCommand as C;
    let create = |terms| {
        C::CreateCluster(CreateCluster { id: id("c-1"), tenant: id("acme"), cluster: id("prod"), terms })
    };
    let change = C::ChangeCluster(ChangeCluster {
        id: id("c-2"),
        tenant: id("acme"),
        cluster: id("prod"),
        version: 1,
        terms: full_terms(),
    });
    let offer =
        |terms| C::OfferHost(OfferHost { id: id("o-1"), host: id("node-1.dfw"), generation: 3, terms });
    let store = |(name, terms): (String, DataStoreTerms)| {
        let (id, data_store) = (id("o-2"), id("sql-1.shared"));
        (name, C::OfferDataStore(OfferDataStore { id, data_store, generation: 4, terms }))
    };
    let report = |ready_on: &[&str], version| {
        C::ReportPlane(ReportPlane {
            id: id("r-1"),
            plane: 9,
            generation: 2,
            ready_on: ready_on.iter().map(|host| id(host)).collect(),
            version,
            workers: 12,
            slow: version.is_some(),
        })
    };
    let bids = |is_full: bool| {
        C::ReportBids(ReportBids {
            id: id("r-3"),
            exchange: id("main"),
            sequence: 11,
            part: u32::from(is_full),
            markets: if is_full { vec![named()] } else { Vec::new() },
            placed: if is_full { vec![bid()] } else { Vec::new() },
            leases: if is_full { changes() } else { Vec::new() },
            ended: if is_full { vec![3, 4] } else { Vec::new() },
        })
    };
    let offered = C::OfferServers(OfferServers {
        id: id("s-1"),
        hypervisor: id("h1"),
        market: market(),
        servers: vec![id("rack-1.a"), id("rack-1.b")],
    });
    let noticed = |servers| {
        let (id, hypervisor, gone_at) = (id("s-2"), id("h1"), instant(LATER));
        C::NoticeServers(NoticeServers { id, hypervisor, servers, gone_at })
    };
    let kept = |servers| C::KeepServers(KeepServers { id: id("s-3"), hypervisor: id("h1"), servers });
    let lost =
        |servers| C::ReportServersGone(ReportServersGone { id: id("s-4"), hypervisor: id("h1"), servers });
    let host = id("node-1.dfw");
    let kinds: Vec<(&str, Commanded)> = each_kind!(PlacementCommand:
        CreateCluster => two(create(plain_terms()), create(full_terms())),
        ChangeCluster => one(change),
        DeleteCluster => one(C::DeleteCluster(DeleteCluster { id: id("c-3"), tenant: id("acme"), cluster: id("prod") })),
        WakeCluster => one(C::WakeCluster(WakeCluster { id: id("c-4"), tenant: id("acme"), cluster: id("prod") })),
        OfferHost => two(offer(host_terms(false)), offer(host_terms(true))),
        NoticeHost => one(C::NoticeHost(NoticeHost { id: id("n-1"), host: id("node-1.dfw"), gone_at: instant(LATER) })),
        KeepHost => one(C::KeepHost(KeepHost { id: id("n-2"), host: id("node-1.dfw") })),
        ReportHostGone => one(C::ReportHostGone(ReportHostGone { id: id("n-3"), host })),
        OfferDataStore => stores().into_iter().map(store).collect(),
        ReportPlane => two(report(&[], None), report(&["node-1.dfw", "node-2.dfw"], Some(VERSION))),
        ReportPlaneGone => one(C::ReportPlaneGone(ReportPlaneGone { id: id("r-2"), plane: 9 })),
        ReportBids => two(bids(false), bids(true)),
        OfferServers => one(offered),
        NoticeServers => two(noticed(Vec::new()), noticed(vec![id("rack-1.a")])),
        KeepServers => two(kept(Vec::new()), kept(vec![id("rack-1.a")])),
        ReportServersGone => two(lost(Vec::new()), lost(vec![id("rack-1.a")])),
        AdoptSiteRules => one(C::AdoptSiteRules(AdoptSiteRules { id: id("a-1"), rules: rules() })),
    );
    let mut files = Vec::new();
    let mut together = Vec::new();
    for (kind, examples) in kinds {
        for (name, command) in examples {
            files.push(golden("placement-command", kind, &name, &command));
            together.push(command);
        }
    }
    files.push(golden("placement-commands", "", "all", &Commands { commands: together }));
    files
}

fn order() -> PlaneOrder {
    PlaneOrder {
        tenant: id("acme"),
        cluster: id("prod"),
        deleted: false,
        replicas: 2,
        hosts: vec![id("node-1.dfw"), id("node-2.dfw")],
        version: VERSION,
        size: id("small"),
        request: Amount { cpu_milli: 250, memory_mib: 768, pods: 1 },
        data_store: id("sql-1.shared"),
        driver: Driver::MySql,
    }
}

fn risks() -> Happened {
    let reasons = each!(RiskReason: NoHosts, TooLarge, Full, TooLate);
    let mut risks: Vec<_> =
        reasons.into_iter().map(|why| (word(&why), Risk { host: None, gone_at: None, why })).collect();
    let full = Risk { host: Some(2), gone_at: Some(instant(LATER)), why: RiskReason::Full };
    risks.push(("with-host".to_owned(), full));
    risks.into_iter().map(|(name, risk)| (name, PlacementEvent::PlaneAtRisk { plane: 9, risk })).collect()
}

#[allow(clippy::too_many_lines, reason = "a table")]
fn events() -> Vec<Golden> {
    use PlacementEvent as E;
    let refusal = Refusal::new(RefusalReason::Unknown, "cluster", "prod", "no such cluster is known");
    let (plane, data_store) = (9, id("sql-1.shared"));
    let created = E::ClusterCreated {
        plane,
        by: id("gateway"),
        tenant: id("acme"),
        cluster: id("prod"),
        terms: plain_terms(),
        data_store: id("sql-1.shared"),
    };
    let offered = |terms| E::HostOffered { host: 2, id: id("node-1.dfw"), generation: 3, terms };
    let gone = |cause: GoneCause| (word(&cause), E::HostGone { host: 2, cause, lost: 1 });
    let reported = |ready_on, version: Option<KubernetesVersion>| {
        let slow = version.is_some();
        E::PlaneReported { plane, generation: 2, ready_on, version, workers: 12, slow }
    };
    let decided =
        |from, gone_at| E::MovesDecided { moves: vec![ReplicaMove { plane, from, to: 3, gone_at }] };
    let begun =
        |from| E::MovesBegun { moves: vec![PlaneMove { number: 5, plane, from, to: 3, generation: 2 }] };
    let ordered = |gone_at| E::PlaneOrdered { plane, generation: 2, order: order(), gone_at };
    let advised = |zone| E::HostsAdvised {
        advice: vec![HostsAdvised { hosts: 2, region: id("dfw"), zone, capacity: AMOUNT }],
    };
    let store =
        |(name, terms)| (name, E::DataStoreOffered { data_store: id("sql-1.shared"), generation: 4, terms });
    let bids = |is_full: bool| E::BidsReported {
        exchange: id("main"),
        sequence: 11,
        part: u32::from(is_full),
        markets: if is_full { vec![named()] } else { Vec::new() },
        placed: if is_full { vec![bid()] } else { Vec::new() },
        leases: if is_full { changes() } else { Vec::new() },
        ended: if is_full { vec![3, 4] } else { Vec::new() },
    };
    let servers = |is_full: bool| E::ServersOffered {
        hypervisor: id("h1"),
        market: market(),
        first: 5,
        servers: if is_full { vec![id("rack-1.a")] } else { Vec::new() },
        again: if is_full { vec![3] } else { Vec::new() },
    };
    let stated = |is_full: bool| E::SupplyStated {
        exchange: id("main"),
        market: market(),
        hypervisor: id("h1"),
        generation: 9,
        units: 12,
        cause: if is_full { SupplyCause::Host } else { SupplyCause::Ready },
        gone_at: is_full.then(|| instant(LATER)),
        lost: if is_full { vec![40] } else { Vec::new() },
    };
    let told = |is_full| E::ServerOrdered { server: 5, generation: 3, order: server_order(is_full) };
    let (exchange, lease, gone_at) = (id("main"), 40, instant(LATER));
    let noon = || Some(instant(NOON));
    let kinds: Vec<(&str, Happened)> = each_kind!(PlacementEvent:
        CommandRefused => one(E::CommandRefused(refusal)),
        ClusterCreated => one(created),
        ClusterChanged => one(E::ClusterChanged { plane, version: 2, terms: full_terms(), data_store }),
        ClusterDeleted => one(E::ClusterDeleted { plane }),
        PlaneGone => one(E::PlaneGone { plane }),
        PlaneSlept => one(E::PlaneSlept { plane }),
        PlaneWoken => one(E::PlaneWoken { plane }),
        PlaneSized => one(E::PlaneSized { plane, size: id("large") }),
        PlaneReported => two(reported(Vec::new(), None), reported(vec![2, 3], Some(VERSION))),
        PlaneSlow => one(E::PlaneSlow { plane, moves: true }),
        HostOffered => two(offered(host_terms(false)), offered(host_terms(true))),
        HostNoticed => one(E::HostNoticed { host: 2, gone_at: instant(LATER), replicas: 40 }),
        HostKept => one(E::HostKept { host: 2 }),
        HostGone => each!(GoneCause: NoticeEnded, Left, Died).into_iter().map(gone).collect(),
        DataStoreOffered => stores().into_iter().map(store).collect(),
        BidsReported => two(bids(false), bids(true)),
        ServersOffered => two(servers(false), servers(true)),
        ServersNoticed => one(E::ServersNoticed { servers: vec![5], gone_at: instant(LATER), leased: 1 }),
        ServersKept => one(E::ServersKept { servers: vec![5] }),
        ServersGone => one(E::ServersGone { servers: vec![5], cause: GoneCause::Died, lost: 1 }),
        LeaseDisplaced => one(E::LeaseDisplaced { exchange, lease, gone_at }),
        LeaseUnserved => one(E::LeaseUnserved { exchange: id("main"), lease }),
        SupplyStated => two(stated(false), stated(true)),
        ServerOrdered => two(told(false), told(true)),
        SiteRulesAdopted => one(E::SiteRulesAdopted { rules: rules() }),
        MovesDecided => two(decided(None, None), decided(Some(2), noon())),
        MovesWithdrawn => one(E::MovesWithdrawn),
        MovesBegun => two(begun(None), begun(Some(2))),
        MoveDone => one(E::MoveDone { number: 5, plane }),
        MoveFailed => one(E::MoveFailed { number: 5, plane }),
        PlaneOrdered => two(ordered(None), ordered(noon())),
        PlaneAtRisk => risks(),
        PlaneSafe => one(E::PlaneSafe { plane }),
        HostsAdvised => two(advised(None), advised(Some(id("z1")))),
    );
    let mut files = Vec::new();
    for (kind, examples) in kinds {
        for (name, event) in examples {
            let key = Some(CommandKey(0x0123_4567_89ab_cdef));
            let entry = EventEntry { key, digest: Some("00000000000000ff".to_owned()), events: vec![event] };
            let batch = EventBatch {
                machine: "placement".to_owned(),
                stream: id("main"),
                sequence: 12,
                at: instant(NOON),
                rules: 1,
                entries: vec![entry],
            };
            files.push(golden("placement-events", kind, &name, &batch));
        }
    }
    files
}

fn answers() -> Vec<Golden> {
    let accepted = |is_full: bool| {
        PlacementAnswer::Accepted(PlacementAccepted {
            id: id("c-1"),
            tenant: is_full.then(|| id("acme")),
            cluster: is_full.then(|| id("prod")),
            version: is_full.then_some(1),
            sequence: 12,
        })
    };
    let refusal = Refusal::new(RefusalReason::LimitReached, "terms.data_store", "sql", "holds 4 of 4 units");
    let refused =
        PlacementAnswer::Refused(Refused { id: Some(id("c-1")), tenant: None, sequence: Some(12), refusal });
    let kinds: Vec<(&str, Vec<(String, PlacementAnswer)>)> = each_kind!(PlacementAnswer:
        Accepted => two(accepted(false), accepted(true)),
        Refused => one(refused),
    );
    let mut files = Vec::new();
    for (kind, examples) in kinds {
        for (name, answer) in examples {
            let (machine, stream) = ("placement".to_owned(), id("main"));
            let letter =
                Answers { machine, stream, sequence: Some(12), at: instant(NOON), answers: vec![answer] };
            files.push(golden("placement-answers", kind, &name, &letter));
        }
    }
    files
}
