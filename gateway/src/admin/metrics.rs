//! /metrics, in Prometheus' text format.

use std::fmt::Write as _;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

use super::Api;
use super::error::ApiError;

/// The gateway's numbers, in Prometheus' text format.
#[utoipa::path(get, path = "/metrics", responses((status = 200, body = String, content_type = "text/plain")))]
pub(super) async fn metrics(State(admin): Api) -> Result<Response, ApiError> {
    let status = admin.status().await?;
    let (sent, received) = admin.store.air_totals().await?;
    let mut text = Text::default();
    text.gauge("dialhome_sessions", "Open sessions", status.sessions);
    text.gauge(
        "dialhome_transfers",
        "Deliveries under way",
        status.transfers,
    );
    let turns = status.turns;
    for (name, help, value) in [
        ("running", "Transfers that have a place", turns.running),
        (
            "lent",
            "Transfers so slow that another runs in their place",
            turns.lent,
        ),
        (
            "waiting",
            "Updates of boards that are online, waiting for a place",
            turns.waiting,
        ),
        (
            "throttled",
            "Transfers that wait for their share of a rate",
            turns.throttled,
        ),
        ("limit", "Transfers at a time, at most", turns.limit.into()),
        (
            "network_limit",
            "Transfers of one network at a time, at most",
            turns.network_limit.into(),
        ),
        (
            "rate_limit_bytes_per_second",
            "Bytes per second of all transfers, at most; 0: no limit",
            turns.rate.unwrap_or(0),
        ),
        (
            "network_rate_limit_bytes_per_second",
            "Bytes per second of the transfers of one network, at most; 0: no limit",
            turns.network_rate.unwrap_or(0),
        ),
    ] {
        text.gauge(&format!("dialhome_transfers_{name}"), help, value);
    }
    text.gauge(
        "dialhome_handshakes",
        "Handshakes under way",
        status.handshakes,
    );
    text.head(
        "dialhome_handshakes_refused_total",
        "counter",
        "Connections that got no session since the start, by reason",
    );
    for (reason, count) in &status.refused_for {
        text.line(
            &format!("dialhome_handshakes_refused_total{{reason=\"{reason}\"}}"),
            *count,
        );
    }
    text.counter(
        "dialhome_accept_failures_total",
        "Times since the start that the system gave no connection",
        status.accept.failures,
    );
    let quic = &status.quic;
    text.head(
        "dialhome_quic",
        "gauge",
        "1 while boards can dial over QUIC, with the address and the pin",
    );
    text.line(
        &format!(
            "dialhome_quic{{listen=\"{}\",pin=\"{}\"}}",
            escape(quic.listen.as_deref().unwrap_or_default()),
            escape(&quic.pin)
        ),
        u64::from(quic.listen.is_some()),
    );
    text.gauge(
        "dialhome_quic_sessions",
        "Open sessions over QUIC",
        quic.sessions,
    );
    text.gauge(
        "dialhome_quic_connections",
        "Open QUIC connections: sessions, handshakes and what is being closed",
        quic.connections,
    );
    for (name, help, value) in [
        (
            "lost_packets",
            "QUIC packets lost and sent anew, of all sessions since the start",
            quic.lost_packets,
        ),
        ("lost_bytes", "Bytes of those packets", quic.lost_bytes),
        (
            "address_changes",
            "Times that a session over QUIC went on from another address",
            quic.address_changes,
        ),
        (
            "retries",
            "QUIC connections that had to prove their address first",
            quic.retries,
        ),
    ] {
        text.counter(&format!("dialhome_quic_{name}_total"), help, value);
    }
    text.gauge("dialhome_devices", "Devices known", status.devices);
    text.gauge(
        "dialhome_devices_held",
        "Devices on hold by themselves",
        status.devices_held,
    );
    text.gauge(
        "dialhome_hold",
        "1 while everything is on hold",
        u64::from(status.hold),
    );
    text.head("dialhome_updates", "gauge", "Updates by state and reason");
    for (state, reason, count) in admin.store.update_counts() {
        let reason = reason.unwrap_or_default();
        text.line(
            &format!(
                "dialhome_updates{{state=\"{}\",reason=\"{}\"}}",
                escape(&state),
                escape(&reason)
            ),
            count,
        );
    }
    text.head(
        "dialhome_air_bytes_total",
        "counter",
        "Bytes over the air, of all devices known",
    );
    text.line("dialhome_air_bytes_total{direction=\"sent\"}", sent);
    text.line("dialhome_air_bytes_total{direction=\"received\"}", received);
    text.gauge(
        "dialhome_store_writable",
        "1 while the store can be written",
        u64::from(status.store.writable),
    );
    text.gauge(
        "dialhome_disk_free_bytes",
        "Free on the disk of the data directory",
        status.disk.free,
    );
    text.gauge(
        "dialhome_open_files",
        "Open files of the gateway",
        status.open_files.used,
    );
    text.gauge(
        "dialhome_open_files_limit",
        "Open files that it may have",
        status.open_files.limit,
    );
    text.counter(
        "dialhome_events_total",
        "Number of the last event",
        status.last_seq,
    );
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4")], text.0).into_response())
}

#[derive(Default)]
struct Text(String);

impl Text {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String does not fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn line(&mut self, name: &str, value: u64) {
        let _ = writeln!(self.0, "{name} {value}");
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, "gauge", help);
        self.line(name, value);
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, "counter", help);
        self.line(name, value);
    }
}

/// A label's value.
fn escape(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}
