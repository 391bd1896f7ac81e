//! What the types of a scenario's file do not say.

use super::{Action, After, Arrival, ClientPlan, LinkPlan, Plan, Step};
use crate::fleet::words::{Link, RECEIVE_BUFFERS};
use crate::run::metrics;
use toml::Spanned;

/// What is wrong, and the byte of the text where.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) at: usize,
    pub(super) sentence: String,
}

type Checked<T = ()> = Result<T, Fault>;

fn fault<T>(at: usize, sentence: impl Into<String>) -> Checked<T> {
    Err(Fault {
        at,
        sentence: sentence.into(),
    })
}

/// Checks it, and gives the links with the share of boards that each has.
pub(super) fn check(plan: &Plan) -> Checked<Vec<(Link, f64)>> {
    fleet(plan)?;
    if let Some(settings) = &plan.client {
        client(settings)?;
    }
    for step in &plan.steps {
        one_step(step)?;
    }
    end(plan)?;
    for name in plan.gateway.keys() {
        if ["data", "listen", "socket"].contains(&name.get_ref().as_str()) {
            return fault(
                name.span().start,
                format!(
                    "[gateway] `{}`: the run chooses it. Take it out.",
                    name.get_ref()
                ),
            );
        }
    }
    for (name, bound) in &plan.limits {
        limit(name, bound)?;
    }
    shares(&plan.links)
}

fn fleet(plan: &Plan) -> Checked {
    let at = plan.fleet.span().start;
    let fleet = plan.fleet.get_ref();
    if fleet.boards == 0 {
        return fault(at, "[fleet] `boards` is 0: give at least 1.");
    }
    if fleet.networks == 0 || fleet.networks > 16_384 {
        return fault(
            at,
            "[fleet] `networks` must be 1 to 16384: each is a /24 below 127.128.0.0.",
        );
    }
    if fleet.crews == Some(0) {
        return fault(
            at,
            "[fleet] `crews` is 0: give at least 1, or leave it out.",
        );
    }
    let over = fleet.over_s;
    if !is_time(over) {
        return fault(at, "[fleet] `over_s` is no time: give seconds, 0 or more.");
    }
    if (fleet.arrive == Arrival::AtOnce) != (over == 0.0) {
        return fault(
            at,
            "[fleet] `arrive` and `over_s` do not fit: \"at_once\" has no `over_s`, \"evenly\" and \"poisson\" need one above 0.",
        );
    }
    if let Some(image) = &plan.image
        && !(1..=64 * 1_024).contains(&image.get_ref().kib)
    {
        return fault(image.span().start, "[image] `kib` must be 1 to 65536.");
    }
    Ok(())
}

fn client(client: &Spanned<ClientPlan>) -> Checked {
    let at = client.span().start;
    let client = client.get_ref();
    let wrong = |what: &str| fault(at, format!("[client] {what}"));
    if !RECEIVE_BUFFERS.contains(&client.receive_buffer) {
        return wrong(&format!(
            "`receive_buffer` must be one of {RECEIVE_BUFFERS:?}: chunks of 1 KiB, of 4 KiB, and the largest records."
        ));
    }
    if client.erase_unit == 0 || client.window < client.erase_unit {
        return wrong("`window` must be at least one `erase_unit`, and that above 0.");
    }
    if client.redial_ms[0] == 0 || client.redial_ms[0] > client.redial_ms[1] {
        return wrong(
            "`redial_ms` is [first, longest]: the first above 0, and not above the longest.",
        );
    }
    Ok(())
}

fn is_time(seconds: f64) -> bool {
    (0.0..=86_400.0).contains(&seconds)
}

fn is_share(share: f64) -> bool {
    share > 0.0 && share <= 1.0
}

fn one_step(step: &Spanned<Step>) -> Checked {
    let at = step.span().start;
    let step = step.get_ref();
    if !is_time(step.wait_s) {
        return fault(
            at,
            "`wait_s` of this step is no time: give seconds, 0 to 86400.",
        );
    }
    let Some(action) = step.action() else {
        return fault(
            at,
            "this step must do exactly one thing: push, restart, blackout, power_cut or abuse.",
        );
    };
    let (share, time) = match &action {
        Action::Push(push) => (push.share, 0.0),
        Action::Restart(restart) => (1.0, restart.down_s),
        Action::Blackout(outage) | Action::PowerCut(outage) => (outage.share, outage.for_s),
        Action::Abuse(abuse) => (1.0, abuse.for_s.unwrap_or(0.0)),
    };
    if !is_share(share) {
        return fault(at, "`share` of this step must be above 0 and at most 1.");
    }
    if let Action::Abuse(abuse) = &action
        && (abuse.networks == 0 || abuse.connections() == 0)
    {
        return fault(
            at,
            "`abuse` of this step needs peers, and at least 1 of `networks`.",
        );
    }
    if !is_time(time) {
        return fault(at, "the seconds of this step are no time: give 0 to 86400.");
    }
    Ok(())
}

fn end(plan: &Plan) -> Checked {
    let at = plan.end.span().start;
    let end = plan.end.get_ref();
    if !is_time(end.wait_s) || !is_time(end.within_s) || end.within_s == 0.0 {
        return fault(
            at,
            "[end] `wait_s` and `within_s` are seconds, at most 86400, `within_s` above 0.",
        );
    }
    if end.after == After::Begin && end.wait_s >= end.within_s {
        return fault(at, "[end] would come after `within_s`: give it more time.");
    }
    Ok(())
}

fn limit(name: &Spanned<String>, bound: &Spanned<super::Bound>) -> Checked {
    let at = name.span().start;
    let known = name.get_ref();
    if metrics::find(known).is_none() {
        return fault(
            at,
            format!(
                "[limits] there is no metric `{known}`{}",
                metrics::nearest(known).map_or_else(
                    || ": SCENARIOS.md lists them.".to_owned(),
                    |near| format!(": do you mean `{near}`? SCENARIOS.md lists them."),
                )
            ),
        );
    }
    let bound = bound.get_ref();
    if bound.at_most.is_none() && bound.at_least.is_none() {
        return fault(
            at,
            format!(
                "[limits] `{known}` says neither `at_most` nor `at_least`: give one of them, or both."
            ),
        );
    }
    for (name, value) in [("at_most", bound.at_most), ("at_least", bound.at_least)] {
        if value.is_some_and(|value| !value.is_finite()) {
            return fault(
                at,
                format!(
                    "[limits] `{name}` of `{known}` is no number that a run could keep or violate: give one, or leave it out."
                ),
            );
        }
    }
    if let (Some(most), Some(least)) = (bound.at_most, bound.at_least)
        && most < least
    {
        return fault(
            at,
            format!("[limits] `{known}` can never hold: at most {most} and at least {least}."),
        );
    }
    Ok(())
}

fn shares(plans: &[Spanned<LinkPlan>]) -> Checked<Vec<(Link, f64)>> {
    if plans.is_empty() {
        let loopback = Link::preset("loopback").unwrap_or_default();
        return Ok(vec![(loopback, 1.0)]);
    }
    let mut found = Vec::with_capacity(plans.len());
    for plan in plans {
        let at = plan.span().start;
        let plan = plan.get_ref();
        let share = match plan.share {
            None if plans.len() == 1 => 1.0,
            None => return fault(at, "this link needs a `share`: there are several."),
            Some(share) if is_share(share) => share,
            Some(_) => {
                return fault(at, "`share` of this link must be above 0 and at most 1.");
            }
        };
        found.push((one_link(at, plan)?, share));
    }
    let sum: f64 = found.iter().map(|(_, share)| share).sum();
    if (sum - 1.0).abs() > 0.001 {
        return fault(
            plans.first().map_or(0, |plan| plan.span().start),
            format!("the shares of the links add up to {sum}: make it 1."),
        );
    }
    Ok(found)
}

fn one_link(at: usize, plan: &LinkPlan) -> Checked<Link> {
    let mut link = match (&plan.preset, &plan.name) {
        (Some(preset), name) => {
            let Some(link) = Link::preset(preset) else {
                return fault(
                    at,
                    format!(
                        "there is no preset \"{preset}\": it is one of {}, or leave it out and give the link a `name`.",
                        Link::PRESETS.join(", ")
                    ),
                );
            };
            Link {
                name: name.clone().unwrap_or(link.name),
                ..link
            }
        }
        (None, Some(name)) => Link {
            name: name.clone(),
            ..Link::default()
        },
        (None, None) => {
            return fault(
                at,
                "this link has neither a `preset` nor a `name`: give one.",
            );
        }
    };
    let put = |value: Option<u32>, into: &mut u32| *into = value.unwrap_or(*into);
    link.down_bits_per_s = plan.down_bits_per_s.unwrap_or(link.down_bits_per_s);
    link.up_bits_per_s = plan.up_bits_per_s.unwrap_or(link.up_bits_per_s);
    put(plan.round_trip_ms, &mut link.round_trip_ms);
    put(plan.jitter_ms, &mut link.jitter_ms);
    put(plan.stall_every_s, &mut link.stall_every_s);
    put(plan.blackout_every_s, &mut link.blackout_every_s);
    put(plan.nat_idle_s, &mut link.nat_idle_s);
    link.stall_ms = plan.stall_ms.unwrap_or(link.stall_ms);
    link.blackout_ms = plan.blackout_ms.unwrap_or(link.blackout_ms);
    link.nat_then = plan.nat_then.unwrap_or(link.nat_then);
    for (name, range, every) in [
        ("stall_ms", link.stall_ms, link.stall_every_s),
        ("blackout_ms", link.blackout_ms, link.blackout_every_s),
    ] {
        if range[0] > range[1] || (every > 0 && range[1] == 0) {
            return fault(
                at,
                format!(
                    "`{name}` of this link is [shortest, longest], and not 0 where it happens."
                ),
            );
        }
    }
    Ok(link)
}
